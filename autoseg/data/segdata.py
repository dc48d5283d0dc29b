"""Opens a data set: `open_data` turns a `DataConfig` into memory-mapped images and labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from autoseg.config import DataConfig
from autoseg.data.builtin import BuiltinSource
from autoseg.data.cache import cache_file, check_size
from autoseg.data.folder import open_folder
from autoseg.data.holdout import group_of
from autoseg.data.mmseg_source import open_mmseg
from autoseg.data.source import IGNORE, Source
from autoseg.errors import InputError, unknown_name

KINDS: dict[str, Callable[[DataConfig], Source]] = {
    "builtin": BuiltinSource.from_config,
    "folder": open_folder,
    "mmseg": open_mmseg,
}


class SegData:
    """A prepared data set: uint8 tensors over one memory-mapped file, shared by all processes that open it.

    Roles are `train`, `val` and, if the data has one, `test`, whatever the folders are called.

    Args:
        path: a finished cache file.

    Attributes:
        classes: names in the order of the ids; `num_classes` is their number.
        palette: one RGB colour per class.
        ignore_index: always 255, whatever number the source used.
        splits: the roles there are.
        fingerprint: SHA-256 (hex) of the pixels, labels and class names at this size.
    """

    ignore_index: int = IGNORE

    def __init__(self, path: Path) -> None:
        self.path = path
        with safe_open(path, framework="pt") as file:
            about: dict[str, Any] = json.loads(file.metadata()["autoseg"])
            self._tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}
        self.classes: list[str] = about["classes"]
        self.palette: list[list[int]] = about["palette"]
        self.fingerprint: str = about["fingerprint"]
        self._names: dict[str, list[str]] = about["names"]

    @property
    def num_classes(self) -> int:
        """Number of classes, background included, ignored pixels not."""
        return len(self.classes)

    @property
    def splits(self) -> list[str]:
        """The roles this data has: `train`, `val`, and perhaps `test`."""
        return list(self._names)

    def images(self, split: str) -> Tensor:
        """Return (N, 3, H, W) uint8 RGB, memory-mapped: index it and move the result, do not write to it."""
        return self._tensor(split, "images")

    def labels(self, split: str) -> Tensor:
        """Return (N, H, W) uint8 class ids, 255 where ignored or padded; memory-mapped."""
        return self._tensor(split, "labels")

    def sizes(self, split: str) -> Tensor:
        """Return (N, 2) int32, height and width of each image without padding; it is at the top left."""
        return self._tensor(split, "sizes")

    def raters(self, split: str) -> Tensor:
        """Return (N, R, H, W) uint8, the label of every annotator; raise InputError if there is one label per image."""
        return self._tensor(split, "raters")

    def names(self, split: str) -> list[str]:
        """Return the names of the images of a split, in the order of the tensors."""
        self._tensor(split, "images")
        return self._names[split]

    def _tensor(self, split: str, kind: str) -> Tensor:
        if split not in self._names:
            raise unknown_name("split", split, self._names)
        if f"{split}.{kind}" not in self._tensors:
            hint = "This data has one label per image."
            raise InputError("data.annotator_dirs", "a folder of masks per annotator", "none", hint)
        return self._tensors[f"{split}.{kind}"]

    def __reduce__(self) -> tuple[type[SegData], tuple[Path]]:
        return SegData, (self.path,)  # another process maps the file again instead of receiving the pixels


def vote_shares(raters: Tensor, num_classes: int) -> Tensor:
    """Return the share of the annotators that chose each class, among those who chose one.

    Args:
        raters: (B, R, H, W) integer ids of each annotator, 255 where ignored.
        num_classes: C.

    Returns:
        (B, C, H, W) float32, all 0 where every annotator ignored the pixel.
    """
    votes = torch.stack([(raters == label).sum(1) for label in range(num_classes)], dim=1)
    return votes / votes.sum(1, keepdim=True).clamp(min=1)


def open_data(config: DataConfig, size: Sequence[int]) -> SegData:
    """Open a data set at one size; if it has no cache file yet, prepare it.

    Args:
        config: where the data is; every user-settable key of the group `data`.
        size: (height, width) in pixels; every image is fitted into it once, preserving its aspect ratio.

    Raises:
        InputError: anything wrong with the data or the configuration; names the file and says what to do.
    """
    if config.kind not in KINDS:
        raise unknown_name("data.kind", config.kind, KINDS)
    fitted = check_size(size)
    source = KINDS[config.kind](config)
    if config.groups is not None:  # names that do not fit are said now, not after an hour of decoding
        for name in source.names["train"]:
            group_of(name, config.groups)
    path = cache_file(source, config.name, fitted, config.cache_dir)
    try:
        return SegData(path)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError):
        # Damaged by something else after it was made, or without its metadata: it is only a cache.
        path.unlink(missing_ok=True)
        return SegData(cache_file(source, config.name, fitted, config.cache_dir))
