"""The work of one pass over the logits, for any of the codes that run it: `cpu.fused`, `cpu.native_pass`,
`gpu.launches`.

Three kinds of total cover every formula whose prediction planes are not eroded or dilated:

    everywhere: T[n, c] = sum over pixels i that count of g(p_c(n, i)),
    own:        T[n, c] = sum over pixels i of class c of g(p_c(n, i)),
    counts:     T[n, c] = number of pixels of class c,

since S(p AND y) = own(gA) and S(p OR y) = everywhere(gO) - own(gO) + counts. Kernels get the latter as one total:
everywhere, but 1 instead of g(p_c) where c is the pixel's own class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from autoseg.metrics.maps import NO_CLASS

CurveT = TypeVar("CurveT")  # coefficients (K, 6), see `curves.prepare`; in a pass for any batch, their key
PixelsT = TypeVar("PixelsT", bound=Any)  # `Pixels`; in a pass for any batch, a `PixelSet`


@dataclass(frozen=True, eq=False)
class Pixels:
    """The pixels that count, and the class of each.

    Kernels read `ids` and `within`, the other passes `mask` and `classes`.

    Attributes:
        ids: (N, H, W) integer; pixels with an id outside [0, C) do not count. None: all do, and none has a class.
        within: (N, H, W) bool; pixels outside do not count. None: all are within.
        num_classes: C.
    """

    ids: Tensor | None
    within: Tensor | None
    num_classes: int

    @cached_property
    def mask(self) -> Tensor | None:
        """The pixels that count, (N, H, W) bool; None if all are known to count; on a GPU this check would wait."""
        mask = self.within
        if self.ids is not None:
            known = (self.ids >= 0) & (self.ids < self.num_classes)
            mask = known if mask is None else known & mask
        return None if mask is None or (mask.device.type == "cpu" and bool(mask.all())) else mask

    @cached_property
    def classes(self) -> Tensor:
        """The classes, (N, H, W) int64, `NO_CLASS` where a pixel does not count."""
        assert self.ids is not None
        ids = self.ids.long()
        return ids if self.mask is None else torch.where(self.mask, ids, NO_CLASS)


@dataclass(frozen=True, eq=False)
class Everywhere(Generic[CurveT, PixelsT]):
    """A total of the kind "everywhere".

    Attributes:
        curve: g.
        pixels: the pixels that count.
        at: its index among the pass's results.
        own: pixels that count as 1 in the total of their class, whatever their probability; for kernels only.
    """

    curve: CurveT
    pixels: PixelsT
    at: int
    own: PixelsT | None = None


@dataclass(frozen=True, eq=False)
class Own(Generic[CurveT, PixelsT]):
    """Totals of the kinds "own" and "counts", of the same pixels.

    Attributes:
        pixels: the pixels with their classes.
        curves: (g, index among the pass's results) of each total; for kernels None instead of g: pixels are counted.
    """

    pixels: PixelsT
    curves: list[tuple[CurveT | None, int]] = field(default_factory=list)


@dataclass
class Pass(Generic[CurveT, PixelsT]):
    """The totals that one pass computes; its results are in the order in which they were added."""

    everywhere: list[Everywhere[CurveT, PixelsT]] = field(default_factory=list)
    own: list[Own[CurveT, PixelsT]] = field(default_factory=list)

    def labels(self: Bound) -> list[Tensor]:
        """The class maps that backward reads again, to be saved for it: torch then notices a change of them."""
        return [own.pixels.classes for own in self.own]

    def __len__(self) -> int:
        return len(self.everywhere) + sum(len(own.curves) for own in self.own)

    def add_everywhere(self, curve: CurveT, pixels: PixelsT, own: PixelsT | None = None) -> int:
        """Add a total and return the index of its result."""
        self.everywhere.append(Everywhere(curve, pixels, len(self), own))
        return len(self) - 1

    def add_own(self, curve: CurveT | None, pixels: PixelsT) -> int:
        """Add a total and return the index of its result."""
        place = len(self)
        group = next((own for own in self.own if own.pixels == pixels), None)
        if group is None:
            group = Own(pixels)
            self.own.append(group)
        group.curves.append((curve, place))
        return place

    def of(self, curve: Callable[[CurveT], Tensor], pixels: Callable[[PixelsT], Pixels]) -> Pass[Tensor, Pixels]:
        """Return the same pass for a batch; for the passes on a CPU."""
        return Pass(
            [Everywhere(curve(each.curve), pixels(each.pixels), each.at) for each in self.everywhere],
            [Own(pixels(own.pixels), [(curve(g), at) for g, at in own.curves if g is not None]) for own in self.own],
        )


Bound = Pass[Tensor, Pixels]  # a pass for a batch
