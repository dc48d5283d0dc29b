"""The functions that the kernels of `rows` and `loops` share; importing this needs triton."""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def load(at, where):
    """Load in fp32 where `where` is true; 0 elsewhere."""
    return tl.load(at, mask=where, other=0.0).to(tl.float32)


@triton.jit
def classes_at(ids, within, at, inside, C: tl.constexpr):
    """Return the classes of each group of pixels in int32: -1 if a pixel does not count, 0 if it does but has no
    class.
    """
    found = ()
    for g in tl.static_range(len(ids)):
        counts = inside
        if within[g] is not None:
            counts = counts & (tl.load(within[g] + at, mask=inside, other=0) != 0)
        if ids[g] is None:
            found = found + (tl.where(counts, 0, -1),)
        else:
            label = tl.load(ids[g] + at, mask=inside, other=0).to(tl.int64)  # a narrower type could wrap it into [0, C)
            found = found + (tl.where(counts & (label >= 0) & (label < C), label, -1).to(tl.int32),)
    return found


@triton.jit
def strange(ids, at, inside, ignore, C: tl.constexpr):
    """Return 1 where a label is neither a class nor `ignore`."""
    label = tl.load(ids + at, mask=inside, other=0).to(tl.int64)
    return (inside & (label != ignore) & ((label < 0) | (label >= C))).to(tl.int32)


@triton.jit
def curves_of(curves, PIECES: tl.constexpr):
    """Return the pieces of each curve, with the numbers that `_way` needs; as `curves.evaluate`, in fp32."""
    found = ()
    for k in tl.static_range(len(curves)):
        found = found + (curve_of(curves[k], PIECES[k]),)
    return found


@triton.jit
def curve_of(curve, COUNT: tl.constexpr):
    """Return the pieces of one curve, (COUNT, 6).

    A function, since older Triton has no elements of a constexpr tuple.
    """
    pieces = ()
    for piece in tl.static_range(COUNT):
        row = curve + piece * 6
        left, right, a = tl.load(row).to(tl.float32), tl.load(row + 1).to(tl.float32), tl.load(row + 2).to(tl.float32)
        start, y1, y2 = tl.load(row + 3), tl.load(row + 4), tl.load(row + 5)
        inverse, near = 1 / (right - left), a <= 0.5
        rise, bend = (y1 - start).to(tl.float32) * inverse, (y2 - 2 * y1 + start).to(tl.float32) * inverse * inverse
        end, first = tl.where(near, left, right), tl.where(near, a * a, (1 - a) * (1 - a))
        pieces = pieces + ((left, end, first, (1 - 2 * a) * inverse, a, start.to(tl.float32), rise, 2 * rise, bend),)
    return pieces


@triton.jit
def value(x, pieces):
    """Return g(x) elementwise, equal to `curves.evaluate` up to rounding; x is not negative."""
    t, _, start, _, twice, bend = _way(x, pieces)
    return start + t * (twice + bend * t)


@triton.jit
def slope(x, pieces):
    """Return g'(x), as `value` does g(x)."""
    t, inverse_root, _, rise, _, bend = _way(x, pieces)
    return (rise + bend * t) * inverse_root


@triton.jit
def weights_of(weights, stride_t, apart, image, TOTALS: tl.constexpr):
    """Return pointers to the weights of each total, for an image."""
    found = ()
    for k in tl.static_range(len(TOTALS)):
        found = found + (weights + TOTALS[k][-1] * stride_t + image * apart,)
    return found


@triton.jit
def factor_of(factor):
    """Return the factor of all weights, 1 if there is none."""
    found = 1.0
    if factor is not None:
        found = tl.load(factor).to(tl.float32)
    return found


@triton.jit
def own_pulls(here, stride_c, of, whole, pieces, weights, factor, HITS: tl.constexpr, FIRST: tl.constexpr):
    """Return p d for each own total, 0 where a pixel does not count, and their sum.

    Curve and weights of the first own total are `pieces[FIRST]` and `weights[FIRST]`.
    """
    pulls, pulled = (), tl.zeros_like(whole)
    for k in tl.static_range(len(HITS)):
        own = of[HITS[k][0]]
        p = tl.exp2(load(here + own * stride_c, own >= 0) * LOG2E - whole)
        d = slope(p, pieces[FIRST + k]) * (load(weights[FIRST + k] + own, own >= 0) * factor)
        pulls = pulls + (tl.where(own >= 0, p * d, 0.0),)
        pulled += pulls[k]
    return pulls, pulled


@triton.jit
def _way(x, pieces):
    """Return t and 1 / root, and for the piece that x is on: left ordinate, rise, twice that, and bend over the width.

    A piece is not scaled to [0, 1], as in `pieces`: t is divided by the width. The radicand is `first` at the `end`
    where it is least and changes by `tilt`, so that no rounding is magnified there.
    """
    x = tl.minimum(x, 1.0, propagate_nan=tl.PropagateNan.ALL)
    left, end, first, tilt, a, start, rise, twice, bend = pieces[0]
    for k in tl.static_range(1, len(pieces)):
        left_k, end_k, first_k, tilt_k, a_k, start_k, rise_k, twice_k, bend_k = pieces[k]
        on = x > left_k  # a knot belongs to the piece on its left
        left, end, first = tl.where(on, left_k, left), tl.where(on, end_k, end), tl.where(on, first_k, first)
        tilt, a, start = tl.where(on, tilt_k, tilt), tl.where(on, a_k, a), tl.where(on, start_k, start)
        rise, twice, bend = tl.where(on, rise_k, rise), tl.where(on, twice_k, twice), tl.where(on, bend_k, bend)
    square = first + tilt * (x - end)
    inverse_root = tl.rsqrt(square)
    reciprocal = tl.rsqrt(a + square * inverse_root)
    # way / (a + root), in a third of the instructions that a division takes
    return (x - left) * reciprocal * reciprocal, inverse_root, start, rise, twice, bend
