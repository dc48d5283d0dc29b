"""Curves for the fused pass on CPU: value and slope together, in vectorised steps over a block that fits a cache.

`curves.evaluate` selects each element's coefficients by `torch.where` and is the specification. Here every piece
is evaluated everywhere and adds its rise, which takes a third of the time: x is clamped to the piece, so that left of
it the rise is 0 and right of it the full rise. Values agree to rounding.

A piece of width w is computed in d = x - left, the distance into it, without scaling it to [0, 1]:

    s = sqrt(a² + (1 - 2a) d / w),  t = d / (a + s),  value = t (h + r),  slope = h / s,  h = r + b t

with r = rise / w and b = bend / w². 1 / s is one operation and cheaper than s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

STRAIGHT = 1e-9  # a piece with its control point this near the middle of its chord is a line
STEEP = 0.9  # for a control point right of it, the radicand, nearly 0 at the right end, is computed from that end
ROOM = 4  # number of buffers that an evaluation needs


@dataclass(frozen=True, eq=False)
class Piece:
    """One piece of a curve as numbers, see `curves.prepare`."""

    left: float  # its left end
    width: float  # its width
    control: float  # the control point's relative x, a
    start: float  # ordinate at the left end
    rise: float  # control's ordinate minus the left one, over the width
    bend: float  # second difference of the three ordinates, over the width squared
    first: Tensor  # 0-d, the radicand at the end it is computed from: a², or (1 - a)² for the right one
    control_: Tensor  # 0-d, the control
    rise_: Tensor  # 0-d, the rise

    @property
    def straight(self) -> bool:
        """Whether it is a line."""
        return abs(self.control - 0.5) < STRAIGHT and abs(self.bend) * self.width**2 < STRAIGHT

    def way(self, x: Tensor, out: Tensor) -> Tensor:
        """Return d, the distance of x into this piece, from 0 to its width; x itself if the piece spans [0, 1]."""
        if self.left:
            return torch.sub(x, self.left, out=out).clamp_(0, self.width)
        return x if self.width == 1 else torch.clamp_max(x, self.width, out=out)

    def radicand(self, d: Tensor, out: Tensor) -> Tensor:
        """Return a² + (1 - 2a) d / w, never negative."""
        slope = (1 - 2 * self.control) / self.width
        if self.control <= STEEP:
            return torch.add(self.first, d, alpha=slope, out=out)
        return torch.add(self.first, torch.neg(d, out=out).add_(self.width), alpha=-slope, out=out)


def pieces_of(coefficients: Tensor, dtype: torch.dtype) -> list[Piece]:
    """Return the rows of `curves.prepare` as numbers, for arguments of a dtype; waits for the device."""
    out = []
    for left, right, a, y0, y1, y2 in coefficients.tolist():
        width = right - left
        first, rise, bend = (a if a <= STEEP else 1 - a) ** 2, (y1 - y0) / width, (y2 - 2 * y1 + y0) / width**2
        scalars = torch.tensor([first, a, rise], dtype=dtype, device="cpu")
        out.append(Piece(left, width, a, y0, rise, bend, *scalars))
    return out


def table(coefficients: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the rows of `curves.prepare` in the form of the compiled passes, on the same device.

    Returns:
        (K, 8): left x, 1 / width, a, a², (1-a)², left ordinate, rise to the control, bend (second difference).
    """
    left, right, a, y0, y1, y2 = coefficients.double().unbind(1)
    rows = [left, 1 / (right - left), a, a * a, (1 - a) ** 2, y0, y1 - y0, y2 - 2 * y1 + y0]
    return torch.stack(rows, 1).to(dtype)


def room_for(x: Tensor, within: Tensor | None = None) -> list[Tensor]:
    """Return buffers for an evaluation at x, inside `within` (at least `ROOM` times x's size); None: new memory."""
    room = x.new_empty(ROOM * x.numel()) if within is None else within[: ROOM * x.numel()]
    return list(room.view(ROOM, *x.shape).unbind(0))


def value_and_slope(x: Tensor, pieces: Sequence[Piece]) -> tuple[Tensor, Tensor]:
    """Return g(x) and g'(x) of `curves.evaluate`, up to rounding; no gradient is recorded.

    Args:
        x: float32 or float64 in [0, 1], any shape; not changed.
        pieces: pieces of one curve, for x's dtype.
    """
    slope = torch.empty_like(x)
    return _value(x, pieces, slope), slope


def value_alone(x: Tensor, pieces: Sequence[Piece]) -> Tensor:
    """Return g(x) of `value_and_slope`, a fifth cheaper."""
    return _value(x, pieces, None)


def _value(x: Tensor, pieces: Sequence[Piece], slope: Tensor | None) -> Tensor:
    value, room = torch.empty_like(x), room_for(x)
    for k, piece in enumerate(pieces):
        t, h = _inverted(x, piece, room)
        factor = 2 * piece.rise if h is None else torch.add(h, piece.rise, out=room[0])
        if k == 0:
            torch.mul(t, factor, out=value)
        elif h is None:
            value.add_(t, alpha=2 * piece.rise)
        else:
            value.addcmul_(t, room[0])
        if slope is not None:
            _choose(x, piece, h, slope, room)
    return value.add_(pieces[0].start) if pieces[0].start else value


def total(x: Tensor, pieces: Sequence[Piece], mask: Tensor | None, slope: Tensor | None, room: list[Tensor]) -> Tensor:
    """Sum g(x) along the rows, without storing g(x), and compute g'(x).

    Args:
        x: (C, B) float32 or float64 in [0, 1]; not changed.
        pieces: pieces of one curve, for x's dtype.
        mask: (B,) 0 or 1 in x's dtype; None for all ones.
        slope: (C, B), g' is written to it; None: not computed.
        room: from `room_for(x)`.

    Returns:
        (C,) float64; rows are summed in x's dtype.
    """
    whole = x.new_zeros(len(x), dtype=torch.float64)
    for piece in pieces:
        t, h = _inverted(x, piece, room)
        if h is None:
            whole.add_(_along(t, mask), alpha=2 * piece.rise)
        else:
            whole.add_(_along(t, mask), alpha=piece.rise).add_(_along(torch.mul(t, h, out=room[0]), mask))
        if slope is not None:
            _choose(x, piece, h, slope, room)
    if pieces[0].start:
        whole.add_(pieces[0].start * (x.shape[1] if mask is None else float(mask.sum())))
    return whole


def _along(x: Tensor, mask: Tensor | None) -> Tensor:
    return x.sum(1) if mask is None else x @ mask


def _inverted(x: Tensor, piece: Piece, room: list[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Return (t, h) of x, and 1 / s in `room[2]`; a line has t = d, and None for h.

    Afterwards `room[0]` is free, unless t is in it.
    """
    d = piece.way(x, room[0])
    if piece.straight:
        return d, None
    square = piece.radicand(d, room[1])
    reach = torch.addcmul(piece.control_, square, torch.rsqrt(square, out=room[2]), out=square)  # a + s
    t = torch.div(d, reach, out=reach)
    return t, torch.add(piece.rise_, t, alpha=piece.bend, out=room[3])


def _choose(x: Tensor, piece: Piece, h: Tensor | None, slope: Tensor, room: list[Tensor]) -> None:
    """Write the piece's slope where x is beyond its left end; for the first piece everywhere."""
    if not piece.left:
        slope.fill_(2 * piece.rise) if h is None else torch.mul(h, room[2], out=slope)
        return
    steepness = room[2].fill_(2 * piece.rise) if h is None else h.mul_(room[2])
    slope.lerp_(steepness, torch.gt(x, piece.left, out=room[0]))  # `where` is not vectorised for bool
