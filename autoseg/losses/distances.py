"""Distances in label maps, in pixels: exact Euclidean transforms on the CPU, computed once with the data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoseg.errors import InputError
from autoseg.files import GB
from autoseg.losses.base import check_id_maps
from autoseg.machine import free_memory

FloatMap = NDArray[np.float32]
IntMap = NDArray[np.int64]
BoolMap = NDArray[np.bool_]


def per_image(loss: str, labels: Tensor, make: Callable[..., FloatMap], *options: int) -> Tensor:
    """Stack make(label map (H, W), *options) -> (K, H, W) over (N, H, W) labels into (N, K, H, W) float32.

    Args:
        loss: name of the loss, for the message.
        labels: as in `SegLoss.prepare`.
        make: computes the maps of one image.
        options: further arguments of `make`.

    Raises:
        InputError: labels of another type, or too many for the memory to hold their maps.
    """
    check_id_maps(labels)
    maps = torch.empty(0, 0, *labels.shape[1:], device=labels.device)
    for place, image in enumerate(labels):
        made = torch.from_numpy(make(image.numpy().astype(np.int64), *options))
        free = free_memory()
        if (len(labels) - place) * made.nbytes > free:  # checked every time: other processes take memory too
            raise _too_large(loss, len(labels), made, free)
        if place == 0:
            maps = made.new_empty((len(labels), *made.shape))  # takes memory only where it is filled
        maps[place] = made
    return maps


def _too_large(loss: str, count: int, made: Tensor, free: int) -> InputError:
    each, height, width = made.shape
    needed = f"memory for what it prepares, {count * made.nbytes / GB:.1f} GB"
    expected = f"{needed}: {each} map(s) of {width}x{height} for each of {count:,} images"
    hint = (
        "In a search every worker keeps its own. "
        "Make proxy.size smaller, train on fewer images (a larger data.holdout), or choose another loss."
    )
    return InputError(f"loss {loss}", expected, f"{free / GB:.1f} GB free", hint)


def distance_to(mask: BoolMap) -> FloatMap:
    """Return the (H, W) distance of every pixel to the nearest pixel of the mask; inf if the mask is empty."""
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    from scipy import ndimage  # here: a second to import, for boundary losses alone

    return np.asarray(ndimage.distance_transform_edt(~mask), np.float32)


def signed_distance(labels: IntMap, num_classes: int, ignore_index: int) -> FloatMap:
    """Return the (C, H, W) signed distance to each class's region: positive outside, 0 or negative inside.

    Outside, the distance to the nearest pixel of the class; inside, 1 minus the distance to the nearest pixel
    of another class, so that both sides of an edge differ by 1 (as in the authors' release). Ignored pixels
    belong to no class and make no edge. 0 where a class has no edge, and on ignored pixels.
    """
    valid = labels != ignore_index
    maps = np.zeros((num_classes, *labels.shape), np.float32)
    for c in np.unique(labels[valid]):
        if not 0 <= c < num_classes:
            raise InputError("labels of prepare()", f"ids in [0, {num_classes}) or the ignore_index {ignore_index}", c)
        inside = labels == c
        others = valid & ~inside
        if others.any():
            maps[c] = np.where(inside, 1 - distance_to(others), distance_to(inside)) * valid
    return maps


def closeness(labels: IntMap, ignore_index: int) -> FloatMap:
    """Return (1, H, W) in [0, 1]: 1 at the edge of the pixel's own class region, falling linearly to its middle.

    With d the distance to the nearest pixel of another class and D the largest d of the class in this image,
    1 - (d - 1) / D. 0 where the class has no edge, and on ignored pixels.
    """
    valid = labels != ignore_index
    near = np.zeros(labels.shape, np.float32)
    for c in np.unique(labels[valid]):
        inside = labels == c
        others = valid & ~inside
        if others.any():
            d = distance_to(others)[inside]
            near[inside] = 1 - (d - 1) / d.max()
    return near[None]


def two_nearest_cells(
    labels: IntMap, background: int | None, ignore_index: int, reach_px: float
) -> tuple[FloatMap, FloatMap]:
    """Return the distances (H, W) to the nearest and the second nearest cell; inf beyond `reach_px`.

    A cell is a connected component (8 neighbours) of one class other than the background. A pixel inside a
    cell has distance 0 to it.
    """
    from scipy import ndimage

    first = np.full(labels.shape, np.inf, np.float32)
    second = first.copy()
    margin = int(np.ceil(reach_px))
    for c in np.unique(labels[labels != ignore_index]):
        if c == background:
            continue
        components, _ = ndimage.label(labels == c, structure=np.ones((3, 3)))
        for number, box in enumerate(ndimage.find_objects(components), start=1):
            near = tuple(slice(max(0, side.start - margin), side.stop + margin) for side in box)
            d = distance_to(components[near] == number)
            second[near] = np.minimum(second[near], np.maximum(first[near], d))
            first[near] = np.minimum(first[near], d)
    return first, second
