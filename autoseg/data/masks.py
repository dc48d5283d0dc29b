"""What the pixels of mask files stand for: ids or colours, and the labels that they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autoseg.config import DataConfig
from autoseg.data.decode import opened
from autoseg.data.source import IGNORE, Bytes, generated_palette
from autoseg.errors import InputError

OUT_OF_RANGE = -1
COLOURS = 2**24
WITH_IDS = ("L", "P", "1")  # Pillow's modes
IN_COLOURS = (*WITH_IDS, "LA", "RGB", "RGBA")  # of a grey pixel red, green and blue are alike
SMOOTHED = 32  # of more wrong ids or colours, smoothing is the likely cause
ANEW = "If they come from JPEG or smooth resizing, make the masks anew. Of two classes, by a threshold: mask > 127."
# JPEG blurs edges. Of the masks of CamVid and CrackForest, so written with quality 50 to 95, no value this far from
# all ids or colours was a thousandth of the pixels of a mask. That of a class is, unless it is thin: such a class, if
# nobody has named it, is taken for another one.
FAR, SHARE, LEAST = 32, 0.005, 16


@dataclass(frozen=True)
class MaskCode:
    """How masks tell classes: by ids, or by colours."""

    classes: Sequence[str]  # class names in the order of their labels
    # int16, (256,) by id, or (2^24,) by colour as one number: the label, 255 for ignored, -1 for not allowed
    lookup: NDArray[np.int16]
    ignored: int | None = None  # the ignored id, if classes may name it in `data.ids`
    remedy: str = "Name every class in data.classes, or the ids of unlabelled pixels in data.ignored_ids."
    named: tuple[int, ...] = ()  # the ids or colours that the user has named, classes and ignored ones

    @classmethod
    def of(cls, config: DataConfig) -> MaskCode:
        """Return the code of the masks in folders: ids from 0, or what `data.ids` and `data.ignored_ids` name.

        Raises:
            InputError: not as many ids as classes, ids beside colours, or one that is a class and ignored.
        """
        ids, ignored, count = config.ids, config.ignored_ids, len(config.classes)
        if ids and len(ids) != count:
            raise InputError("data.ids", f"one for each of the {count} classes", len(ids))
        coloured = in_colours(config)
        if ignored and coloured != isinstance(ignored[0], list):
            hint = "Name them as data.ids has them, which are the ids 0, 1, 2, … if it is empty."
            raise InputError("data.ignored_ids", "colours" if coloured else "ids", ignored[0], hint)
        if twice := [one for one in ignored if one in ids]:
            raise InputError("data.ignored_ids", "none of data.ids", twice[0])
        if coloured:
            ids, ignored = [list(map(_as_number, colours)) for colours in (ids, ignored)]
        named = (*ids, *ignored) if ids else ()
        if not coloured:
            ignored = [one for one in (config.ignore_index, *ignored) if one not in ids]  # 255 may be a class
        lookup = np.full(COLOURS if coloured else 256, OUT_OF_RANGE, dtype=np.int16)
        lookup[ids or list(range(count))] = np.arange(count)
        lookup[ignored] = IGNORE
        return cls(config.classes, lookup, None if ids else config.ignore_index, named=named)

    @property
    def in_colours(self) -> bool:
        """Whether masks tell classes by colours."""
        return len(self.lookup) == COLOURS

    @cached_property
    def is_spaced(self) -> bool:
        """Whether the named ids or colours can be told in a JPEG: a pixel is of the nearest, if they are far apart."""
        values = self._channels(np.array(self.named, dtype=np.int64))
        apart = np.linalg.norm(values[:, None] - values, axis=-1)
        return len(values) > 0 and bool((apart[~np.eye(len(values), dtype=bool)] >= 2 * FAR).all())

    def identity(self) -> list[Any]:
        """Return plain data that tells codes apart."""
        if not self.in_colours:
            return self.lookup.tolist()
        allowed = np.flatnonzero(self.lookup != OUT_OF_RANGE)
        return [allowed.tolist(), self.lookup[allowed].tolist()]

    def labels(self, path: Path, size: tuple[int, int], image: Path) -> Bytes:
        """Return the labels in a mask file, (H, W) uint8, whose image has this (width, height).

        Raises:
            InputError: it is no such mask, or a pixel is of no class; names the file and says what to do.
        """
        with opened(path) as mask:
            self._check(path, mask, size, image)
            pixels = self._pixels(mask)
            nearest = self.is_spaced and mask.format == "JPEG"
            labels = (self._of_the_nearest(pixels) if nearest else self.lookup).take(pixels)
            if (labels == OUT_OF_RANGE).any():
                raise self._unknown(path, mask, labels == OUT_OF_RANGE)
        return labels.astype(np.uint8)

    def counts(self, path: Path, size: tuple[int, int], image: Path) -> NDArray[np.float64]:
        """Return the (256,) pixels of each label in a mask file; errors as in `labels`.

        They are counted in a histogram of ids: a fifth of the time of looking each pixel up.
        """
        if not self.in_colours:
            with opened(path) as mask:
                self._check(path, mask, size, image)
                ids, allowed = np.asarray(mask.histogram()), self.lookup != OUT_OF_RANGE
                if mask.mode != "1" and mask.format != "JPEG" and not ids[~allowed].any():
                    counts: NDArray[np.float64] = np.zeros(256)
                    np.add.at(counts, self.lookup[allowed], ids[allowed])
                    return counts
        return np.bincount(self.labels(path, size, image).ravel(), minlength=256).astype(float)

    def _check(self, path: Path, mask: Image.Image, size: tuple[int, int], image: Path) -> None:
        """Raise for a mask that is no map of ids or of colours, or does not have the (width, height) of its image."""
        if mask.mode not in (IN_COLOURS if self.in_colours else WITH_IDS):
            hint = "Save it with 8 bits."
            if mask.mode in IN_COLOURS:
                hint = "If each class has a colour, name all, in the classes' order: data.ids=[[0,0,0],[255,0,0]]."
            expected = "an 8-bit image" if self.in_colours else "an 8-bit single-channel image of class ids"
            raise InputError(f"mask {path}", expected, f"mode {mask.mode}", hint)
        if mask.size != size:
            expected = f"the size of its image {image.name}, {size[0]}x{size[1]}"
            hint = "Image and mask must have the same size: resize the mask with nearest-neighbour sampling."
            raise InputError(f"mask {path}", expected, f"{mask.size[0]}x{mask.size[1]}", hint)

    def _pixels(self, mask: Image.Image) -> NDArray[np.integer[Any]]:
        """Return what `lookup` has the labels of: the id of each pixel, or its colour."""
        if not self.in_colours:
            return np.asarray(mask).astype(np.uint8)
        return np.asarray(mask.convert("RGBA")).view("<u4")[..., 0] & (COLOURS - 1)  # without the opacity

    def _channels(self, values: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
        """Return ids as (n, 1) numbers, colours as (n, 3)."""
        shifts = (0, 8, 16) if self.in_colours else (0,)
        return np.stack([values >> shift & 255 for shift in shifts], axis=-1).astype(float)

    def _of_the_nearest(self, pixels: NDArray[np.integer[Any]]) -> NDArray[np.int16]:
        """Return a table like `lookup` for these pixels: the label of the nearest id or colour that is named.

        It has -1 for a value that is frequent and near to none.
        """
        from scipy.spatial import KDTree

        counts, named = np.bincount(pixels.ravel(), minlength=len(self.lookup)), np.array(self.named)
        values, table = np.flatnonzero(counts), self.lookup.copy()
        away, nearest = KDTree(self._channels(named)).query(self._channels(values))
        table[values] = self.lookup[named[nearest]]
        table[values[(away > FAR) & (counts[values] > max(SHARE * pixels.size, LEAST))]] = OUT_OF_RANGE
        return table

    def _unknown(self, path: Path, mask: Image.Image, where: NDArray[np.bool_]) -> InputError:
        """Return the error about pixels of a mask that are of no class."""
        wrong, counts = np.unique(self._pixels(mask)[where], return_counts=True)
        amount, count = int(counts.sum()), len(self.classes)
        if self.in_colours:
            most = wrong[counts.argsort()[::-1]][:5].tolist()
            names = ", ".join(str([code & 255, code >> 8 & 255, code >> 16]) for code in most)
            hint = "Name each in data.ids, with its class in data.classes, or in data.ignored_ids."
            if mask.mode in WITH_IDS:
                hint += " If masks hold ids, name these."
            if len(wrong) > SMOOTHED:
                hint += f" {ANEW}"
            got = f"colours {names}{', …' * (len(wrong) > 5)} in {amount} pixels"
            return InputError(f"mask {path}", f"colours of the {count} classes", got, hint)
        hint = self.remedy
        if mask.mode == "1":
            hint = "Masks of 1 bit have the ids 0 and 1. data.ids=[[0,0,0],[255,255,255]] names black and white."
        elif self.ignored is not None and wrong.tolist() == [count] and (self.lookup[1:count] == range(1, count)).all():
            names = ",".join(map(str, [*range(1, min(count, 3) + 1), *["…"] * (count > 3)]))
            hint = "If 0 is the background, name it first in data.classes. "
            hint += f"If it is unlabelled: data.ids=[{names}] data.ignored_ids=[0]."
        if len(wrong) > SMOOTHED:
            hint += f" {ANEW}"
        got = f"id {', '.join(map(str, wrong[:SMOOTHED]))}{', …' * (len(wrong) > SMOOTHED)} in {amount} pixels"
        expected = f"ids of the {count} classes ({_ranges(self.lookup)})"
        return InputError(f"mask {path}", expected, got, hint)


def class_colours(config: DataConfig) -> list[list[int]]:
    """Return an RGB colour for each class: those of the masks, or generated ones."""
    count = len(config.classes)
    return config.ids if in_colours(config) and len(config.ids) == count else generated_palette(count)


def in_colours(config: DataConfig) -> bool:
    """Return whether the masks of a folder tell classes by colours."""
    return bool(config.ids) and isinstance(config.ids[0], list)


def _as_number(colour: Sequence[int]) -> int:
    red, green, blue = colour
    return red | green << 8 | blue << 16


def _ranges(lookup: NDArray[np.int16]) -> str:
    allowed = np.flatnonzero(lookup != OUT_OF_RANGE)
    runs = np.split(allowed, np.flatnonzero(np.diff(allowed) > 1) + 1)
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
