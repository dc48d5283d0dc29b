"""The interface of a source of data: classes, splits, and one image with its masks at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from autoseg.errors import InputError

IGNORE = 255  # the ignored id in the cache and everywhere after it, whatever number the source used
MAX_CLASSES = 255  # ids are bytes, and 255 is the ignored one

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """One image with its masks, all of one size."""

    image: Bytes  # (H, W, 3) uint8, RGB
    masks: Bytes  # (1 + raters, H, W) uint8 class ids or 255; the label, then one per annotator


@dataclass(frozen=True)
class ClassCounts:
    """How often each of C classes occurs in masks, at the size of the files."""

    pixels: list[int]  # of each class
    around: list[int]  # pixels with a class in all images that show it

    @classmethod
    def none(cls, num_classes: int) -> Self:
        """Return the counts of no image."""
        return cls([0] * num_classes, [0] * num_classes)

    def plus(self, labels: NDArray[Any]) -> Self:
        """Return these counts and those of one more image, given its pixels of each id, at least C numbers."""
        found = [int(count) for count in labels[: len(self.pixels)]]
        shown = [sum(found) if count else 0 for count in found]
        pixels = [a + b for a, b in zip(self.pixels, found, strict=True)]
        return type(self)(pixels, [a + b for a, b in zip(self.around, shown, strict=True)])


class Source(Protocol):
    """A source of images. Roles are `train`, `val` and, if there is one, `test`."""

    @property
    def classes(self) -> Sequence[str]:
        """Class names in the order of their ids."""

    @property
    def palette(self) -> Sequence[Sequence[int]]:
        """One RGB colour per class."""

    @property
    def raters(self) -> int:
        """Number of annotators of every image besides the label itself; 0 for ordinary data."""

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        """Names of the images of each role, sorted."""

    def identity(self) -> Any:
        """Return plain data that changes whenever the content may have changed; cheap, no image is opened."""

    def read(self, role: str, index: int) -> Sample:
        """Read image number `index` of a role. Called from several threads at once."""


def generated_palette(num_classes: int) -> list[list[int]]:
    """Return colours that are far apart: PASCAL VOC's bit-interleaved map, black first."""
    palette = []
    for index in range(num_classes):
        rgb = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                rgb[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
        palette.append(rgb)
    return palette


def check_present(counts: Sequence[int], classes: Sequence[str], ignored: int | None) -> None:
    """Raise for training labels that show fewer than two classes: every loss would learn to predict that one.

    Args:
        counts: pixels of each id in the training labels, at least one number per class.
        classes: names in the order of the ids.
        ignored: the id of ignored pixels in the mask files, if `data.ids` may name it.

    Raises:
        InputError: at most one class has a pixel.
    """
    present = [name for name, count in zip(classes, counts, strict=False) if count]
    if len(present) < 2:
        got = f"pixels of {present[0]} alone" if present else "none: every pixel is ignored"
        hint = "" if ignored is None else f"{if_a_class(ignored)}."
        raise InputError("training masks", f"pixels of at least two of the {len(classes)} classes", got, hint)


def if_a_class(ignored: int) -> str:
    """Return what to do if an ignored id stands for a class."""
    ids = f"data.ids=[0,{ignored or 1}]"
    return f"{ignored} is ignored: if it is a class in your masks, name the id of each class, as in {ids}"
