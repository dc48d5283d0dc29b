"""Maxima and minima over square windows by doubling: log2(width) vectorised steps instead of width comparisons."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

Pick = Callable[[Tensor, Tensor], Tensor]  # torch.maximum or torch.minimum


def shifts(px: int) -> Iterator[int]:
    """Shifts that build a window of 2*px+1 from single pixels: each step takes an extreme of two neighbours."""
    have, width = 1, 2 * px + 1
    while have < width:
        step = min(have, width - have)
        yield step
        have += step


def slide(x: Tensor, px: int, dim: int, pick: Pick, fill: float) -> Iterator[Tensor]:
    """Extremes over windows of 2*px+1 along `dim` (-1 or -2): the padded x, then every step on the way.

    Args:
        x: (…, H, W), any number type that holds `fill`.
        px: radius.
        dim: of the windows.
        pick: which extreme.
        fill: what lies beyond the border.

    Yields:
        The padded x and the result of each step; the last has x's shape.
    """
    step = F.pad(x, (px, px) if dim == -1 else (0, 0, px, px), value=fill)
    yield step
    for shift in shifts(px):
        size = step.shape[dim] - shift
        step = pick(step.narrow(dim, 0, size), step.narrow(dim, shift, size))
        yield step


def window_max(x: Tensor, px: int) -> Tensor:
    """Maximum over squares of side 2*px+1, (N, K, H, W) float; separable, the border ignored. No gradient is kept."""
    for dim in (-1, -2) if px else ():
        steps = slide(x, px, dim, torch.maximum, -torch.inf)
        (x,) = deque(steps, maxlen=1)  # the steps before are forgotten
    return x
