"""Stores the features of a frozen backbone, which is a fixed function of the images, once for a seed's batches.

All candidates with a seed are shown the same pixels, so the maps of the backbone (in evaluation mode, with its own
statistics) are stored in one file, mapped into memory by every worker, and only the heads are trained.
The results are exact: the same numbers as from the images.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from math import prod
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from autoseg.data.once import BYTES, head
from autoseg.errors import InputError
from autoseg.files import GB
from autoseg.training.models import Features, Segmentor
from autoseg.training.precision import Precision

KINDS = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
TRAIN, SCORED = "train", "scored"
log = logging.getLogger(__name__)


class Stored:
    """The features of a seed's batches and of the scored images, in a file that `write` made.

    Args:
        path: the file.
        device: device to move the features to.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self._file = safe_open(path, framework="pt")
        about = json.loads(self._file.metadata()["autoseg"])
        self._read, self._last, self._device = about["read"], about["channels_last"], device
        self._sizes: dict[str, tuple[int, int]] = {kind: tuple(size) for kind, size in about["sizes"].items()}

    def batch(self, iteration: int) -> Features:
        """Return the features of a training batch."""
        return self._features(TRAIN, iteration)

    def scored(self, number: int) -> Features:
        """Return the features of a batch of scored images."""
        return self._features(SCORED, number)

    def _features(self, kind: str, number: int) -> Features:
        maps = []
        for place, read in enumerate(self._read):
            kept = self._file.get_tensor(f"{kind}.{number}.{place}") if read else None
            if kept is not None and self._last:
                kept = kept.permute(0, 3, 1, 2)
            maps.append(None if kept is None else kept.to(self._device, non_blocking=True))
        return Features(tuple(maps), self._sizes[kind])


def write(
    path: Path,
    model: Segmentor,
    shown: Mapping[str, tuple[Iterator[Tensor], Sequence[tuple[int, int, int]]]],
    precision: Precision,
    most_gb: float,
) -> None:
    """Compute features and write them to a file.

    Args:
        path: the new file.
        model: a network with a frozen backbone.
        shown: under "train" and "scored": the batches of images (N, 3, H, W) float32, as training and evaluation see
            them, and the (N, H, W) of each.
        precision: as in training.
        most_gb: limit of the file's size, 1e9 bytes.

    Raises:
        InputError: the file would be larger than that, or than the space on the disk.
    """
    model.to(memory_format=precision.layout)
    probes = {
        kind: _of(model, torch.zeros(1, 3, *sizes[0][1:], device=precision.device), precision)
        for kind, (_, sizes) in shown.items()
    }
    read = model.reads(probes[TRAIN])  # of the network, whatever the images
    tensors: dict[str, tuple[str, Sequence[int]]] = {}
    for kind, (_, sizes) in shown.items():
        for number, (count, *_) in enumerate(sizes):
            for place, one in _kept(probes[kind], read, precision):
                tensors[f"{kind}.{number}.{place}"] = (KINDS[one.dtype], (count, *one.shape[1:]))
    _check_space(sum(BYTES[kind] * prod(shape) for kind, shape in tensors.values()), most_gb, path)
    about = {
        "read": read,
        "channels_last": precision.layout is torch.channels_last,
        "sizes": {kind: sizes[0][1:] for kind, (_, sizes) in shown.items()},
    }
    with path.open("wb") as file:
        file.write(head(tensors, about))
        for images in chain.from_iterable(batches for batches, _ in shown.values()):
            for _, one in _kept(_of(model, images, precision), read, precision):
                file.write(one.cpu().view(torch.uint8).numpy().tobytes())


def _of(model: Segmentor, images: Tensor, precision: Precision) -> Features:
    with torch.no_grad(), precision.autocast():
        return model.features(images.to(memory_format=precision.layout))


def _kept(features: Features, read: Sequence[bool], precision: Precision) -> Iterator[tuple[int, Tensor]]:
    """Yield the maps that a head reads, with their index, in the order of their bytes: pixel by pixel if
    channels-last.
    """
    for place, one in enumerate(features.maps):
        if read[place] and one is not None:
            last = precision.layout is torch.channels_last
            yield place, (one.permute(0, 2, 3, 1) if last else one).contiguous()


def _check_space(size: int, most_gb: float, path: Path) -> None:
    if size > most_gb * GB:
        got = f"{size / GB:.3g} GB of features for one seed"
        hint = "Allow more, as a resumed search may too, or train on less: proxy.iters, proxy.batch_size, proxy.crop."
        raise InputError("proxy.backbone", f"at most the {most_gb:g} GB of proxy.frozen_gb", got, hint)
    free = shutil.disk_usage(path.parent).free
    if size > free:
        got = f"{free / GB:.3g} GB free in {path.parent}"
        raise InputError("proxy.backbone", f"space for {size / GB:.3g} GB of features for one seed", got)
    log.warning("features of the frozen backbone take %.3g GB in %s, made once", size / GB, path.parent)
