"""Chooses the training images on which candidate losses are scored."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from autoseg.errors import InputError

BLOCKS = 8


def split_holdout(names: Sequence[str], share: float, groups: str | None = None) -> tuple[Tensor, Tensor]:
    """Split training images into those to train on and those to score on.

    The held-out images lie in up to 8 contiguous blocks spread evenly over the order: neighbouring video
    frames look alike, so single held-out frames would all have a near copy among the training images. Groups, if they
    are named, are held out as a whole, and spread as evenly as their sizes allow.

    Args:
        names: the sorted names of the images, at least 2.
        share: share held out, in (0, 1); rounded to whole images or groups, at least one on either side.
        groups: a regular expression; images are of one group if it finds the same in their names: all of what it
            matches, or its parentheses if it has any.

    Returns:
        (training, held-out) indices, int64, sorted, disjoint, together all of `range(len(names))`.

    Raises:
        InputError: fewer than two images, a share outside (0, 1), a name in which nothing is found, or one group alone.
    """
    if not 0.0 < share < 1.0:
        raise InputError("data.holdout", "a share between 0 and 1", share, "0.2 holds out every fifth image.")
    if len(names) < 2:
        raise InputError("training split", "at least 2 images", len(names), "One is trained on, the other judged on.")
    heldout = torch.tensor(_blocks(len(names), share) if groups is None else _whole_groups(names, share, groups))
    index = torch.arange(len(names))
    return index[~heldout], index[heldout]


def _blocks(count: int, share: float) -> list[bool]:
    """Return whether each image is held out: an end of each of up to 8 parts of the order."""
    total = min(max(round(count * share), 1), count - 1)
    blocks = min(BLOCKS, total)
    pattern: list[bool] = []
    for block in range(blocks):
        pattern += [False] * _part(count - total, block, blocks) + [True] * _part(total, block, blocks)
    return pattern


def _part(total: int, block: int, blocks: int) -> int:
    return (block + 1) * total // blocks - block * total // blocks


def _whole_groups(names: Sequence[str], share: float, pattern: str) -> list[bool]:
    """Return whether each image is held out: a group is, if that brings the images so far nearer to their share."""
    labels = [group_of(name, pattern) for name in names]
    sizes = Counter(labels)  # in the order of their first images
    if len(sizes) < 2:
        hint = "One is trained on, the other judged on."
        found = f"'{pattern}', which finds one in the names of {len(names)} images"
        raise InputError("data.groups", "at least two groups", found, hint)
    heldout, seen, out = set(), 0, 0
    for label, size in sizes.items():
        seen += size
        if abs(out + size - share * seen) < abs(out - share * seen):
            heldout.add(label)
            out += size
    if not heldout:
        heldout = {_nearest(sizes, share * len(names))}
    elif len(heldout) == len(sizes):
        heldout.remove(_nearest(sizes, (1 - share) * len(names)))
    return [label in heldout for label in labels]


def group_of(name: str, pattern: str) -> str:
    """Return what `data.groups` finds in the name of an image.

    Raises:
        InputError: nothing.
    """
    found = re.search(pattern, name)
    if found is None:
        raise InputError("data.groups", "a regular expression that finds a part of every name", f"none in '{name}'")
    return " ".join(part or "" for part in found.groups() or (found.group(),))


def _nearest(sizes: Counter[str], size: float) -> str:
    return min(sizes, key=lambda label: abs(sizes[label] - size))
