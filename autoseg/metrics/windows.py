"""Extremes over windows by doubling: log2(width) vectorised steps instead of width comparisons.

For floats the maximum or minimum, for flags and bits the OR, which is their maximum (`bits`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from torch import Tensor
from torch.nn import functional as F

Pick = Callable[[Tensor, Tensor], Tensor]  # torch.maximum, torch.minimum or torch.bitwise_or


def shifts(before: int, after: int | None = None) -> Iterator[int]:
    """Yield shifts that build a window of before+1+after (None: as before) pixels: each step joins two neighbours."""
    have, width = 1, before + 1 + (before if after is None else after)
    while have < width:
        step = min(have, width - have)
        yield step
        have += step


def slide(x: Tensor, before: int, dim: int, pick: Pick, fill: float, after: int | None = None) -> Iterator[Tensor]:
    """Compute extremes over windows along `dim` (-1 or -2): yield the padded x, then every intermediate step.

    Args:
        x: (…, H, W), any number type that holds `fill`.
        before: pixels of a window ahead of its own.
        dim: dimension of the windows.
        pick: the extreme of two tensors.
        fill: value beyond the border.
        after: pixels behind its own; None: as many as ahead.

    Yields:
        The padded x and the result of each step; the last has x's shape.
    """
    beyond = (before, before if after is None else after)
    step = F.pad(x, beyond if dim == -1 else (0, 0, *beyond), value=fill)
    yield step
    for shift in shifts(before, after):
        size = step.shape[dim] - shift
        step = pick(step.narrow(dim, 0, size), step.narrow(dim, shift, size))
        yield step


def last(steps: Iterator[Tensor]) -> Tensor:
    """Return the result of `slide`; each step before it is freed."""
    (result,) = deque(steps, maxlen=1)
    return result
