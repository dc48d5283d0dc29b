"""Planes as class maps, (N, H, W) with the class of each pixel, and the exact logic, which counts them."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from autoseg.errors import InputError
from autoseg.metrics.bits import reached, square, uniform
from autoseg.metrics.logic import Logic, Plane, Region

NO_CLASS = -1  # in a class map: this pixel belongs to no class (void, or removed by the formula)
SPREAD = 256  # rows of bins, see `count_spread`


def count_bins(bins: Tensor, count: int) -> Tensor:
    """Return how often each of 0, ..., count - 1 occurs in (P,) int64; (count,) int64. Does not wait for a GPU.

    torch.compile does not know the size that `bincount` returns: it would compile the code before and after it
    separately.
    """
    known = bins.device.type != "cpu" or torch.compiler.is_compiling()
    return count_spread(bins, count) if known else torch.bincount(bins, minlength=count)


def count_spread(bins: Tensor, count: int) -> Tensor:
    """Return the result of `count_bins` without waiting for a GPU; `bincount` looks for the largest value first.

    Neighbours are counted into different ones of `SPREAD` rows, so that they do not wait for the same few addresses.
    """
    row = torch.arange(bins.shape[0], device=bins.device) % SPREAD  # len() would fix the size in a graph
    counts = torch.zeros(SPREAD * count, dtype=torch.int64, device=bins.device)
    return counts.index_add_(0, row * count + bins, bins.new_ones(()).expand_as(bins)).view(SPREAD, count).sum(0)


def one_hot(classes: Tensor, num_classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a (N, H, W) class map, `NO_CLASS` allowed, as (N, C, H, W) of 0 and 1."""
    ids = torch.arange(num_classes, device=classes.device).view(1, -1, 1, 1)
    return (classes.unsqueeze(1) == ids).to(dtype)


class MapLogic(Logic):
    """Evaluates planes that are class maps (every pixel in at most one class): all of hard logic except dilation.

    Args:
        labels: (N, H, W) integer; ids outside [0, C) are void.
        num_classes: C.
        per_image: totals are (N, C) instead of (C,).
    """

    def __init__(self, labels: Tensor, num_classes: int, per_image: bool) -> None:
        self._labels, self._classes, self._per_image = labels, num_classes, per_image
        self._known: Tensor | None = None
        self._cache: dict[Plane, Tensor] = {}
        self._masks: dict[Region, Tensor] = {}

    @property
    def labels(self) -> Tensor:
        """(N, H, W) integer; ids outside [0, C) are void."""
        return self._labels

    @property
    def _valid(self) -> Tensor:
        """The valid pixels, (N, H, W) bool, False where the label is void."""
        if self._known is None:  # not `cached_property`, whose lock stops dynamo
            ids = self._labels.long()
            self._known = (ids >= 0) & (ids < self._classes)
        return self._known

    def _map(self, plane: Plane) -> Tensor:
        """Return the (N, H, W) int64 class map of a plane; raise `InputError` if a pixel may have several classes."""
        if plane not in self._cache:
            self._cache[plane] = self._make_map(plane)
        return self._cache[plane]

    def _make_map(self, plane: Plane) -> Tensor:
        match plane.op:
            case "label":
                return torch.where(self._valid, self._labels.long(), NO_CLASS)
            case "and":
                a, b = map(self._map, plane.args)
                return torch.where(a == b, a, NO_CLASS)
            case "erode":
                classes = self._map(plane.args[0])
                return torch.where(uniform(classes, plane.px, plane.border), classes, NO_CLASS)
            case "boundary":
                whole, inner = map(self._map, plane.args)
                return torch.where(inner == NO_CLASS, whole, NO_CLASS)
        hint = "A dilated plane can be the within= of a total; regions are of the label."
        got = f"a plane made by {plane.op!r}"
        raise InputError("the metric's formula", "at most one class a pixel where it counts", got, hint)

    def _mask(self, region: Region) -> Tensor:
        """Return a region as (N, H, W) bool."""
        if region not in self._masks:
            plane = region.plane
            px = plane.px if plane.op == "dilate" else 0
            classes = self._map(plane.args[0] if plane.op == "dilate" else plane)
            # dilation and "any class" commute: one map is widened instead of C
            self._masks[region] = square(classes >= int(region.skip_first), px)
        return self._masks[region]

    def _selected(self, within: Region | None, void: bool) -> Tensor | None:
        """Return (N, H, W) bool of the pixels that count, None for all."""
        mask = None if void else self._valid
        if within is not None:
            region = self._mask(within)
            mask = region if mask is None else mask & region
        return mask

    def _bins(self, classes: Tensor) -> Tensor:
        """Return the index of each pixel's total: class, or image and class.

        Pixels without a class get one extra bin.
        """
        c = self._classes
        extra = torch.where(classes == NO_CLASS, c, classes)
        if self._per_image:
            extra = extra + (c + 1) * torch.arange(classes.shape[0], device=classes.device).view(-1, 1, 1)
        return extra.reshape(-1)

    def _shape(self, totals: Tensor) -> Tensor:
        totals = totals.view(-1, self._classes + 1)[:, :-1]
        return totals if self._per_image else totals[0]

    def _n_bins(self) -> int:
        return (self._classes + 1) * (len(self._labels) if self._per_image else 1)

    def _count(self, classes: Tensor, selected: Tensor | None) -> Tensor:
        """Return the pixels per class, int64."""
        if selected is not None:
            classes = torch.where(selected, classes, NO_CLASS)
        return self._shape(count_bins(self._bins(classes), self._n_bins()))


class HardLogic(MapLogic):
    """One-hot predictions against labels, counted exactly.

    Counts and maps of one formula are cached for the next formula that needs them: see `sharing`.

    Args:
        pred: (N, H, W) int64 predicted classes.
        labels: (N, H, W) int64; ids outside [0, num_classes) are void.
        num_classes: C.
        volumes: each "image" is a volume, its slices one below the other (`labels.as_images`).
    """

    def __init__(self, pred: Tensor, labels: Tensor, num_classes: int, volumes: bool = False) -> None:
        super().__init__(labels, num_classes, per_image=True)  # counted per image; summed if not needed
        self._cache[self.pred] = pred
        self._map(self.label)  # once for all that share it
        self._apart, self.volumes = False, volumes
        self._totals: dict[tuple[Plane, Plane | Region | None, bool], Tensor] = {}

    def sharing(self, per_image: bool) -> HardLogic:
        """Return a logic of the same batch for another formula; totals are (N, C) with `per_image`, else (C,)."""
        other = copy.copy(self)
        other._apart = per_image
        return other

    def total(self, a: Plane, within: Plane | Region | None = None, void: bool = False) -> Tensor:
        """Return int64 counts, see `Logic.total`."""
        key = (a, within, void)
        if key not in self._totals:
            self._totals[key] = self._counted(a, within, void)
        totals = self._totals[key]
        return totals if self._apart else totals.sum(0)

    def _counted(self, a: Plane, within: Plane | Region | None, void: bool) -> Tensor:
        """Return the counts as (N, C) int64."""
        if a.op == "or":
            parts = self.sharing(per_image=True)
            both = parts.total(Plane("and", a.args, name="and", soft=a.soft), within, void)
            return parts.total(a.args[0], within, void) + parts.total(a.args[1], within, void) - both
        if isinstance(within, Plane):
            return self._product(a, within, void)
        return self._count(self._map(a), self._selected(within, void))

    def _product(self, a: Plane, b: Plane, void: bool) -> Tensor:
        if a.op == "dilate":
            a, b = b, a
        classes = self._map(a)
        if b.op == "dilate":
            hit = reached(self._map(b.args[0]), classes, b.px, self._classes)
        else:
            hit = self._map(b) == classes
        mask = self._selected(None, void)
        return self._count(classes, hit if mask is None else hit & mask)
