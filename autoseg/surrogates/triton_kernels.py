"""The fused pass as two Triton kernels, forward and backward, for `triton_pass`; importing this needs triton.

A program takes BLOCK pixels of one image and walks through their classes, one after the other: per pixel it keeps a
few numbers in registers, whatever C is, and the logits it comes back to are still in the cache.

    forward    max_c x_c;  sum_c exp(x_c - max);  for each total: for each class: sum over the block's pixels
    backward   for each class: p d, summed over the classes;  for each class: p (d - sum_c p d), written

with d = dL/dp. A pixel's own class is one number of its row, gathered: own curves are evaluated once a pixel.
Nothing the size of the logits is written but their gradient.

What the arguments of both kernels mean. Totals everywhere come first, own totals after them, T in all:

    logits        (N, C, P) bf16, fp16 or fp32 at any strides: of contiguous and channels-last logits alike
    maps          (R, N, P) int8 or int16: masks (1 counts, 0 does not), then class maps (the class, negative for none)
    curves        (T, K, 6) fp32, see `curves.prepare`
    EVERYWHERE    how many totals everywhere there are
    MASKS, MAPS   how many masks there are, and how many maps, R
    MAP           for each total the index of the map it reads
    AT            for each total its place among the results
    COUNT         for each total whether it counts pixels, whatever their logits are

Sums are float32 within a program; each program writes its own and the caller adds them up in float64, so that no
atomics are needed and the same batch gives the same bits again. Exponentials are powers of 2, which is what the
hardware has: p = 2^(x log2(e) - n) with n the logsumexp in base 2.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def forward_kernel(
    logits, maps, curves, sums, normalizer, stride_n, stride_c, stride_p, pixels,
    EVERYWHERE: tl.constexpr, MASKS: tl.constexpr, MAPS: tl.constexpr, MAP: tl.constexpr, AT: tl.constexpr,
    COUNT: tl.constexpr, PIECES: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """All totals of a block of pixels, and logsumexp; grid (blocks of an image, N).

    Args:
        sums: (T, N, blocks, C) fp32, written; zeros are expected.
        normalizer: (N, P) fp32, written: logsumexp over the classes in base 2.
        pixels: P.
    """
    block, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    blocks, images = tl.num_programs(0), tl.num_programs(1)
    i = block * BLOCK + tl.arange(0, BLOCK)
    here, inside = logits + image * stride_n + i * stride_p, i < pixels
    highest = tl.full((BLOCK,), float("-inf"), tl.float32)
    for c in range(C):
        highest = tl.maximum(highest, _load(here + c * stride_c, inside))
    highest *= LOG2E
    whole = tl.zeros((BLOCK,), tl.float32)
    for c in range(C):
        whole += tl.exp2(_load(here + c * stride_c, inside) * LOG2E - highest)
    tl.store(normalizer + image * pixels + i, highest + tl.log2(whole), mask=inside)
    scale = 1 / whole
    for k in tl.static_range(EVERYWHERE):
        curve = _curve(curves, k, PIECES)
        counts = tl.load(maps + (MAP[k] * images + image) * pixels + i, mask=inside, other=0).to(tl.float32)
        to = sums + ((AT[k] * images + image) * blocks + block) * C
        for c in range(C):
            p = tl.exp2(_load(here + c * stride_c, inside) * LOG2E - highest) * scale
            value, _ = _value_and_slope(p, curve, PIECES)
            tl.store(to + c, tl.sum(value * counts))
    for g in tl.static_range(MASKS, MAPS):
        of = tl.load(maps + (g * images + image) * pixels + i, mask=inside, other=-1).to(tl.int32)
        p = tl.exp2(_load(here + of * stride_c, of >= 0) * LOG2E - highest) * scale
        first, last = tl.min(tl.where(of >= 0, of, C)), tl.max(of)  # neighbours are of few classes
        for k in tl.static_range(EVERYWHERE, len(MAP)):
            if MAP[k] == g:
                if COUNT[k]:
                    value = tl.full((BLOCK,), 1.0, tl.float32)
                else:
                    value, _ = _value_and_slope(p, _curve(curves, k, PIECES), PIECES)
                to = sums + ((AT[k] * images + image) * blocks + block) * C
                for c in range(first, last + 1):
                    tl.store(to + c, tl.sum(tl.where(of == c, value, 0.0)))


@triton.jit
def backward_kernel(
    logits, maps, curves, weights, normalizer, grad, stride_n, stride_c, stride_p, grad_n, grad_c, grad_p, pixels,
    EVERYWHERE: tl.constexpr, MASKS: tl.constexpr, MAPS: tl.constexpr, MAP: tl.constexpr, AT: tl.constexpr,
    COUNT: tl.constexpr, PIECES: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradient of a block of pixels, p (d - sum_c p d), softmax made again; grid (blocks of an image, N).

    Args:
        weights: (T, N, C) fp32: dL/dT, at the totals' places.
        normalizer: (N, P) fp32, from `forward_kernel`.
        grad: (N, C, P) in the logits' dtype at strides of its own, written.
        pixels: P.
    """
    image, images = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here, inside = logits + image * stride_n + i * stride_p, i < pixels
    whole = tl.load(normalizer + image * pixels + i, mask=inside, other=0.0)
    everywhere, own = (), ()  # of each total, or class map, what the loops over the classes need
    for k in tl.static_range(EVERYWHERE):
        counts = tl.load(maps + (MAP[k] * images + image) * pixels + i, mask=inside, other=0).to(tl.float32)
        everywhere = everywhere + ((_curve(curves, k, PIECES), counts, weights + (AT[k] * images + image) * C),)
    pulled = tl.zeros((BLOCK,), tl.float32)  # sum_c p d
    for g in tl.static_range(MASKS, MAPS):
        of = tl.load(maps + (g * images + image) * pixels + i, mask=inside, other=-1).to(tl.int32)
        p = tl.exp2(_load(here + of * stride_c, of >= 0) * LOG2E - whole)
        d = tl.zeros((BLOCK,), tl.float32)
        for k in tl.static_range(EVERYWHERE, len(MAP)):
            if MAP[k] == g:
                if not COUNT[k]:
                    _, slope = _value_and_slope(p, _curve(curves, k, PIECES), PIECES)
                    d += slope * tl.load(weights + (AT[k] * images + image) * C + of, mask=of >= 0, other=0.0)
        pull = tl.where(of >= 0, p * d, 0.0)
        own = own + ((of, pull),)
        pulled += pull
    for c in range(C):
        pulled += _pull(tl.exp2(_load(here + c * stride_c, inside) * LOG2E - whole), c, everywhere, PIECES)
    to = grad + image * grad_n + i * grad_p
    for c in range(C):
        p = tl.exp2(_load(here + c * stride_c, inside) * LOG2E - whole)
        pull = _pull(p, c, everywhere, PIECES) - p * pulled
        for g in tl.static_range(MAPS - MASKS):
            of, its = own[g]
            pull += tl.where(of == c, its, 0.0)
        tl.store(to + c * grad_c, pull.to(grad.dtype.element_ty), mask=inside)


@triton.jit
def _load(at, where):
    """In fp32; 0 elsewhere."""
    return tl.load(at, mask=where, other=0.0).to(tl.float32)


@triton.jit
def _pull(p, c, everywhere, PIECES: tl.constexpr):
    """What the totals everywhere add to p d of class c."""
    d = tl.zeros_like(p)
    for k in tl.static_range(len(everywhere)):
        curve, counts, weight = everywhere[k]
        _, slope = _value_and_slope(p, curve, PIECES)
        d += slope * counts * tl.load(weight + c)
    return p * d


@triton.jit
def _curve(curves, k, PIECES: tl.constexpr):
    """Of each piece of curve k: left x, 1 / width, a, a², (1 - a)², left ordinate, rise to the control, bend."""
    pieces = ()
    for piece in tl.static_range(PIECES):
        row = curves + (k * PIECES + piece) * 6
        left, right, a = tl.load(row), tl.load(row + 1), tl.load(row + 2)
        y0, y1, y2 = tl.load(row + 3), tl.load(row + 4), tl.load(row + 5)
        pieces = pieces + ((left, 1 / (right - left), a, a * a, (1 - a) * (1 - a), y0, y1 - y0, y2 - 2 * y1 + y0),)
    return pieces


@triton.jit
def _value_and_slope(x, pieces, PIECES: tl.constexpr):
    """g(x) and g'(x) elementwise as `curves.evaluate` has them, but for rounding.

    Of the two, the compiler drops what is not used.
    """
    left, inverse, a, low, high, start, rise, bend = pieces[0]
    for k in tl.static_range(1, PIECES):
        left_k, inverse_k, a_k, low_k, high_k, start_k, rise_k, bend_k = pieces[k]
        on = x > left_k  # a knot belongs to the piece on its left
        left, inverse, a = tl.where(on, left_k, left), tl.where(on, inverse_k, inverse), tl.where(on, a_k, a)
        low, high, start = tl.where(on, low_k, low), tl.where(on, high_k, high), tl.where(on, start_k, start)
        rise, bend = tl.where(on, rise_k, rise), tl.where(on, bend_k, bend)
    u = tl.clamp((x - left) * inverse, 0.0, 1.0, propagate_nan=tl.PropagateNan.ALL)
    square = low * (1 - u) + high * u  # a² + (1 - 2a) u, without cancellation near u = 1
    inverse_root = tl.rsqrt(square)
    reciprocal = tl.rsqrt(a + square * inverse_root)
    t = u * reciprocal * reciprocal  # u / (a + root) in a third of the instructions that a division takes
    half = rise + bend * t  # dy/dt / 2
    return start + t * (half + rise), half * inverse * inverse_root
