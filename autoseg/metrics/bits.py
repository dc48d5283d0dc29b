"""Windows over maps of whole numbers: the exact metrics' erosion and dilation, in bits instead of floats.

Classes are dilated together, one bit each, instead of one map each.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.metrics.windows import last, slide

BITS = 62  # classes in one int64 map; its sign bit is not used


def widen(flags: Tensor, dim: int, before: int, after: int) -> Tensor:
    """Return OR over the pixels from `before` ahead of each one to `after` behind it; nothing beyond the border.

    Args:
        flags: (…, H, W) bool, or int64, bit by bit.
        dim: -1 along rows, -2 along columns.
        before: number of pixels, 0 or more.
        after: number of pixels, 0 or more.

    Returns:
        The same shape and dtype.
    """
    return last(slide(flags, before, dim, torch.bitwise_or, 0, after))


def square(flags: Tensor, px: int) -> Tensor:
    """Return OR over squares of side 2*px+1, see `widen`."""
    return widen(widen(flags, -1, px, px), -2, px, px)


def uniform(classes: Tensor, px: int, border: bool) -> Tensor:
    """Return whether a class map is constant over the square of side 2*px+1 around each pixel.

    That is where no two neighbours within the square differ, side by side or one above the other.

    Args:
        classes: (N, H, W) integer.
        px: 1 or more.
        border: whether a square that reaches beyond the image counts as not constant.

    Returns:
        (N, H, W) bool.
    """
    across = F.pad(classes[..., 1:] != classes[..., :-1], (1, 0))  # at j: pixels j-1 and j differ
    down = F.pad(classes[..., 1:, :] != classes[..., :-1, :], (0, 0, 1, 0))
    across = widen(widen(across, -1, px - 1, px), -2, px, px)
    down = widen(widen(down, -2, px - 1, px), -1, px, px)
    same = ~(across | down)
    if border:
        inside = torch.zeros_like(same)
        inside[..., px:-px, px:-px] = True
        same &= inside
    return same


def reached(sources: Tensor, at: Tensor, px: int, num_classes: int) -> Tensor:
    """Return whether a pixel of the same class lies within the square of side 2*px+1.

    Args:
        sources: (N, H, W) int64 class map to search in; negative: no class.
        at: (N, H, W) int64 class map: the class to search for at each pixel; negative: none.
        px: 0 or more.
        num_classes: C.

    Returns:
        (N, H, W) bool.
    """
    found = torch.zeros_like(at, dtype=torch.bool)
    for word, bits in enumerate(widened(sources, px, num_classes)):
        found |= (bits & _bits(at - word * BITS)) != 0
    return found


def widened(classes: Tensor, px: int, num_classes: int) -> list[Tensor]:
    """Dilate a class map class by class, by squares of side 2*px+1.

    Args:
        classes: (N, H, W) int64; negative: no class.
        px: 0 or more.
        num_classes: C.

    Returns:
        (N, H, W) int64 per `BITS` classes, a bit each.
    """
    return [square(_bits(classes - first), px) for first in range(0, num_classes, BITS)]


def _bits(classes: Tensor) -> Tensor:
    """Return 1 << class for classes 0 to BITS - 1, 0 for all others; int64."""
    inside = (classes >= 0) & (classes < BITS)
    return inside.long() << classes.clamp(0, BITS - 1)
