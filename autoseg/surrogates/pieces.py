"""Curves for the fused pass on CPU: value and slope together, in plain vectorised steps over a block that fits a cache.

`curves.evaluate` selects each element's coefficients by `torch.where` and is the specification. Here every piece
is evaluated everywhere and adds its rise, which costs a third: u is clamped to the piece, so that left of it the
rise is 0 and right of it all of it. Values agree to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

STRAIGHT = 1e-9  # a piece with its control point this near the middle of its chord is a line


@dataclass(frozen=True)
class Piece:
    """One piece of a curve as numbers, see `curves.prepare`.

    Attributes:
        left: where it begins.
        right: where it ends.
        control: the control point's relative x, a.
        start: ordinate at the left end.
        rise: control's ordinate minus the left one.
        bend: second difference of the three ordinates.
    """

    left: float
    right: float
    control: float
    start: float
    rise: float
    bend: float

    @property
    def straight(self) -> bool:
        """Whether it is a line."""
        return abs(self.control - 0.5) < STRAIGHT and abs(self.bend) < STRAIGHT

    def share(self, x: Tensor) -> Tensor:
        """u, how far x is on this piece, 0 to 1; x itself where the piece spans [0, 1]."""
        if self.left == 0 and self.right == 1:
            return x
        return torch.sub(x, self.left).mul_(1 / (self.right - self.left)).clamp_(0, 1)


def pieces_of(coefficients: Tensor) -> list[Piece]:
    """The rows of `curves.prepare` as numbers; waits for the device."""
    return [
        Piece(left, right, control, y0, y1 - y0, y2 - 2 * y1 + y0)
        for left, right, control, y0, y1, y2 in coefficients.tolist()
    ]


def table(coefficients: Tensor, dtype: torch.dtype) -> Tensor:
    """The rows of `curves.prepare` as compiled passes take them, on the device they are on.

    Returns:
        (K, 8): left x, 1 / width, a, a², (1-a)², left ordinate, rise to the control, bend; see `Piece`.
    """
    left, right, a, y0, y1, y2 = coefficients.double().unbind(1)
    rows = [left, 1 / (right - left), a, a * a, (1 - a) ** 2, y0, y1 - y0, y2 - 2 * y1 + y0]
    return torch.stack(rows, 1).to(dtype)


def value_and_slope(x: Tensor, pieces: list[Piece]) -> tuple[Tensor, Tensor]:
    """g(x) and g'(x) as `curves.evaluate` has them, but for rounding; no gradient is recorded.

    Args:
        x: float32 or float64 in [0, 1], any shape; left as it is.
        pieces: of one curve.
    """
    value, slope = _evaluated(x, pieces, True)
    assert slope is not None
    return value, slope


def value_alone(x: Tensor, pieces: list[Piece]) -> Tensor:
    """g(x) of `value_and_slope`, a fifth cheaper."""
    return _evaluated(x, pieces, False)[0]


def _evaluated(x: Tensor, pieces: list[Piece], slopes: bool) -> tuple[Tensor, Tensor | None]:
    value, slope = _rise(x, pieces[0], slopes)
    for piece in pieces[1:]:
        more, steepness = _rise(x, piece, slopes)
        value.add_(more)
        if slope is not None and steepness is not None:
            beyond = torch.gt(x, piece.left, out=more)  # 0 or 1 in x's dtype: `where` is not vectorised for bool
            slope.lerp_(steepness, beyond)
    if pieces[0].start:
        value.add_(pieces[0].start)
    return value, slope


def _rise(x: Tensor, piece: Piece, slopes: bool) -> tuple[Tensor, Tensor | None]:
    """How far the piece has risen at x, and its slope there (its end's slope outside)."""
    u, width = piece.share(x), piece.right - piece.left
    if piece.straight:
        return torch.mul(u, 2 * piece.rise), torch.full_like(x, 2 * piece.rise / width) if slopes else None
    a, scalar = piece.control, u.new_tensor
    # The radicand a² + (1 - 2a) u from whichever end adds positive numbers: exact at that end, never negative.
    if a <= 0.5:
        root = torch.add(scalar(a * a), u, alpha=1 - 2 * a)
    else:
        root = torch.sub(scalar(1.0), u)
        torch.add(scalar((1 - a) ** 2), root, alpha=2 * a - 1, out=root)
    root.sqrt_()
    t = torch.add(root, a)
    torch.div(u, t, out=t)
    half = torch.add(scalar(piece.rise), t, alpha=piece.bend)  # dy/dt / 2
    value = t.mul_(torch.add(half, piece.rise))
    return value, half.div_(root if width == 1 else root.mul_(width)) if slopes else None
