"""Chooses the training images on which candidate losses are scored."""

from __future__ import annotations

import torch
from torch import Tensor

from autoseg.errors import InputError

BLOCKS = 8


def split_holdout(count: int, share: float) -> tuple[Tensor, Tensor]:
    """Split `count` training images, in the order of their names, into those to train on and those to score on.

    The held-out images lie in up to 8 contiguous blocks spread evenly over the order: neighbouring video
    frames look alike, so single held-out frames would all have a near copy among the training images.

    Args:
        count: number of images, at least 2.
        share: share held out, in (0, 1); rounded to whole images, at least one on either side.

    Returns:
        (training, held-out) indices, int64, sorted, disjoint, together all of `range(count)`.

    Raises:
        InputError: fewer than two images, or a share outside (0, 1).
    """
    if not 0.0 < share < 1.0:
        raise InputError("data.holdout", "a share between 0 and 1", share, "0.2 holds out every fifth image.")
    if count < 2:
        raise InputError("training split", "at least 2 images", count, "One part is trained on, the other judged on.")
    total = min(max(round(count * share), 1), count - 1)
    blocks = min(BLOCKS, total)
    pattern: list[bool] = []
    for block in range(blocks):
        pattern += [False] * _part(count - total, block, blocks) + [True] * _part(total, block, blocks)
    heldout = torch.tensor(pattern)
    index = torch.arange(count)
    return index[~heldout], index[heldout]


def _part(total: int, block: int, blocks: int) -> int:
    return (block + 1) * total // blocks - block * total // blocks
