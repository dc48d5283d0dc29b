"""The words metrics are written in: AND, OR, boundaries and totals over one map per class.

A metric states its formula once, in these words. What the words mean is decided by the `Logic` that reads it:

* `HardLogic` reads one-hot predictions and counts exactly (int64);
* `autoseg.surrogates.CurveLogic` reads softmax and replaces each AND and OR by a surface built from curves;
* `curves_of` only notes which curves the formula needs.

A `Plane` is such a set of C maps over N images, written down but not yet computed: knowing the whole expression,
a logic can count `p AND y` from the label's own class alone, without C-fold one-hot tensors.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.metrics.bits import reached, square, uniform
from autoseg.metrics.windows import window_max

NO_CLASS = -1  # in a class map: this pixel belongs to no class (void, or removed by the formula)
SPREAD = 256  # rows of bins, see `count_spread`
OUTSIDE = -2  # beyond the image border, where the border counts as an edge


@dataclass(frozen=True)
class Plane:
    """C maps over N images as an expression: prediction, label, or an operation on other planes.

    Two that are written alike are equal: what was computed for one is the other's.

    Attributes:
        op: pred, label, and, or, erode, boundary, dilate.
        args: operands.
        name: how curves name this operand.
        soft: whether the prediction takes part (a soft operand of AND/OR passes through a curve).
        px: radius in pixels of erode, boundary, dilate.
        border: boundary only; whether the image border counts as an edge.
    """

    op: str
    args: tuple[Plane, ...] = ()
    name: str = ""
    soft: bool = False
    px: int = 1
    border: bool = False


@dataclass(frozen=True)
class Region:
    """The pixels within which something is totalled: those where any class of `plane` is set, shape (N, H, W)."""

    plane: Plane
    skip_first: bool = False


@dataclass
class Logic:
    """Builds planes; subclasses say what `total` means. See the module docstring."""

    pred: Plane = field(default_factory=lambda: Plane("pred", name="p", soft=True))
    label: Plane = field(default_factory=lambda: Plane("label", name="y"))

    def and_(self, a: Plane, b: Plane) -> Plane:
        """Pixels in both."""
        return Plane("and", (a, b), name="and", soft=a.soft or b.soft)

    def or_(self, a: Plane, b: Plane) -> Plane:
        """Pixels in either."""
        return Plane("or", (a, b), name="or", soft=a.soft or b.soft)

    def boundary(self, a: Plane, px: int = 1, border: bool = False) -> Plane:
        """Pixels of `a` within `px` of a pixel outside it: OR(a, eroded) minus AND(a, eroded).

        Args:
            a: any plane.
            px: width of the band in pixels, by squares of side 2*px+1.
            border: whether the image border counts as outside.
        """
        eroded = Plane("erode", (a,), name="eroded", soft=a.soft, px=px, border=border)
        return Plane("boundary", (a, eroded), name="edge", soft=a.soft, px=px, border=border)

    def dilate(self, a: Plane, px: int) -> Plane:
        """`a` widened by `px` pixels (squares of side 2*px+1), per class."""
        return Plane("dilate", (a,), name="dilated", soft=a.soft, px=px)

    def anywhere(self, a: Plane, skip_first: bool = False) -> Region:
        """Where any class of the (label's) plane is set; `skip_first` leaves class 0 out."""
        return Region(a, skip_first)

    def total(self, a: Plane, within: Plane | Region | None = None, void: bool = False) -> Tensor:
        """Sum over images and pixels, one per class.

        Args:
            a: what is summed.
            within: a second factor: a plane (class by class) or a region (the same for all classes).
            void: whether pixels labelled `ignore_index` count.

        Returns:
            (C,), or (N, C) where the logic keeps images apart.
        """
        raise NotImplementedError


# ---------------------------------------------------------------------------------------- class maps


def count_bins(bins: Tensor, count: int) -> Tensor:
    """How often each of 0, ..., count - 1 occurs in (P,) int64; (count,) int64. Does not wait for a GPU."""
    return torch.bincount(bins, minlength=count) if bins.device.type == "cpu" else count_spread(bins, count)


def count_spread(bins: Tensor, count: int) -> Tensor:
    """As `count_bins`, in operations that a GPU does without being waited for; `bincount` looks for the largest first.

    Neighbours are counted into different ones of `SPREAD` rows, so that they do not queue for the same few addresses.
    """
    row = torch.arange(len(bins), device=bins.device) % SPREAD
    counts = torch.zeros(SPREAD * count, dtype=torch.int64, device=bins.device)
    return counts.index_add_(0, row * count + bins, bins.new_ones(()).expand_as(bins)).view(SPREAD, count).sum(0)


def one_hot(classes: Tensor, num_classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(N, H, W) class map, `NO_CLASS` allowed, to (N, C, H, W) of 0 and 1."""
    ids = torch.arange(num_classes, device=classes.device).view(1, -1, 1, 1)
    return (classes.unsqueeze(1) == ids).to(dtype)


def erode_map(classes: Tensor, px: int, border: bool) -> Tensor:
    """Keeps a pixel's class where its whole window has that class; `NO_CLASS` elsewhere. (N, H, W) int64.

    Equal to min-pooling every one-hot channel, at the cost of two channels instead of C.
    """
    x = classes.unsqueeze(1).to(torch.float32)
    if border:
        x = F.pad(x, (px, px, px, px), value=OUTSIDE)
    same = window_max(x, px) == -window_max(-x, px)
    if border:
        same = same[..., px:-px, px:-px]
    return torch.where(same.squeeze(1), classes, NO_CLASS)


class MapLogic(Logic):
    """Evaluates planes that are class maps (every pixel in at most one class): all of hard logic but dilation.

    Args:
        labels: (N, H, W) integer; ids outside [0, C) are void.
        num_classes: C.
        per_image: totals are (N, C) instead of (C,).
    """

    def __init__(self, labels: Tensor, num_classes: int, per_image: bool) -> None:
        super().__init__()
        self._labels, self._classes, self._per_image = labels, num_classes, per_image
        self._known: Tensor | None = None
        self._cache: dict[Plane, Tensor] = {}

    @property
    def _valid(self) -> Tensor:
        """(N, H, W) bool, False where the label is void."""
        if self._known is None:  # not `cached_property`, whose lock stops dynamo
            ids = self._labels.long()
            self._known = (ids >= 0) & (ids < self._classes)
        return self._known

    def _map(self, plane: Plane) -> Tensor:
        """(N, H, W) int64 class map of a plane without dilation."""
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
                return erode_map(self._map(plane.args[0]), plane.px, plane.border)
            case "boundary":
                whole, inner = map(self._map, plane.args)
                return torch.where(inner == NO_CLASS, whole, NO_CLASS)
        raise ValueError(f"a plane made by {plane.op!r} is not a class map")

    def _dilated(self, plane: Plane) -> Tensor:
        """(N, C, H, W) float of 0 and 1: a hard plane widened per class."""
        return window_max(one_hot(self._map(plane.args[0]), self._classes), plane.px)

    def _mask(self, region: Region) -> Tensor:
        """(N, H, W) bool."""
        plane = region.plane
        px = plane.px if plane.op == "dilate" else 0
        classes = self._map(plane.args[0] if plane.op == "dilate" else plane)
        # dilation and "any class" commute: one channel is widened instead of C
        any_class = (classes >= int(region.skip_first)).unsqueeze(1).to(torch.float32)
        return window_max(any_class, px).squeeze(1) > 0.5

    def _selected(self, within: Region | None, void: bool) -> Tensor | None:
        """(N, H, W) bool of the pixels that count, None for all."""
        mask = None if void else self._valid
        if within is not None:
            region = self._mask(within)
            mask = region if mask is None else mask & region
        return mask

    def _bins(self, classes: Tensor) -> Tensor:
        """Index of each pixel's total: class, or image and class; pixels without a class fall in one extra bin."""
        c = self._classes
        extra = torch.where(classes == NO_CLASS, c, classes)
        if self._per_image:
            extra = extra + (c + 1) * torch.arange(len(classes), device=classes.device).view(-1, 1, 1)
        return extra.reshape(-1)

    def _shape(self, totals: Tensor) -> Tensor:
        totals = totals.view(-1, self._classes + 1)[:, :-1]
        return totals if self._per_image else totals[0]

    def _n_bins(self) -> int:
        return (self._classes + 1) * (len(self._labels) if self._per_image else 1)

    def _count(self, classes: Tensor, selected: Tensor | None) -> Tensor:
        """Pixels per class, int64."""
        if selected is not None:
            classes = torch.where(selected, classes, NO_CLASS)
        return self._shape(count_bins(self._bins(classes), self._n_bins()))


class HardLogic(MapLogic):
    """One-hot predictions against labels, counted exactly.

    What was counted or made for one formula is kept for the next that asks for the same: see `sharing`.

    Args:
        pred: (N, H, W) int64 predicted classes.
        labels: (N, H, W) int64; ids outside [0, num_classes) are void.
        num_classes: C.
        per_image: totals are (N, C) instead of (C,).
    """

    def __init__(self, pred: Tensor, labels: Tensor, num_classes: int, per_image: bool = False) -> None:
        super().__init__(labels, num_classes, per_image=True)  # counted so; summed where not asked for
        self._cache[self.pred] = pred
        self._map(self.label)  # once for all that share it
        self._apart = per_image
        self._masks: dict[Region, Tensor] = {}
        self._totals: dict[tuple[Plane, Plane | Region | None, bool], Tensor] = {}

    def sharing(self, per_image: bool) -> HardLogic:
        """The same batch for another formula, whose totals are kept per image or not."""
        other = copy.copy(self)
        other._apart = per_image
        return other

    def total(self, a: Plane, within: Plane | Region | None = None, void: bool = False) -> Tensor:
        """int64 counts, see `Logic.total`."""
        key = (a, within, void)
        if key not in self._totals:
            self._totals[key] = self._counted(a, within, void)
        totals = self._totals[key]
        return totals if self._apart else totals.sum(0)

    def _counted(self, a: Plane, within: Plane | Region | None, void: bool) -> Tensor:
        """(N, C) int64."""
        if a.op == "or":
            parts = self.sharing(per_image=True)
            both = parts.total(Plane("and", a.args, name="and", soft=a.soft), within, void)
            return parts.total(a.args[0], within, void) + parts.total(a.args[1], within, void) - both
        if isinstance(within, Plane):
            return self._product(a, within, void)
        if a.op == "dilate":
            raise ValueError("a dilated plane can only be totalled within a plane that is not dilated")
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

    def _make_map(self, plane: Plane) -> Tensor:
        if plane.op != "erode":
            return super()._make_map(plane)
        classes = self._map(plane.args[0])
        return torch.where(uniform(classes, plane.px, plane.border), classes, NO_CLASS)

    def _mask(self, region: Region) -> Tensor:
        if region not in self._masks:
            plane = region.plane
            px = plane.px if plane.op == "dilate" else 0
            classes = self._map(plane.args[0] if plane.op == "dilate" else plane)
            # dilation and "any class" commute: one map is widened instead of C
            self._masks[region] = square(classes >= int(region.skip_first), px)
        return self._masks[region]


# ---------------------------------------------------------------------------------------- which curves


class _CurveNotes(Logic):
    """Notes the soft operands of every AND and OR instead of computing anything."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[tuple[str, str], None] = {}  # (op, operand), in order of appearance

    def _note(self, op: str, *operands: Plane) -> None:
        for operand in operands:
            if operand.soft:
                self.keys[op, operand.name] = None

    def and_(self, a: Plane, b: Plane) -> Plane:
        self._note("and", a, b)
        return super().and_(a, b)

    def or_(self, a: Plane, b: Plane) -> Plane:
        self._note("or", a, b)
        return super().or_(a, b)

    def boundary(self, a: Plane, px: int = 1, border: bool = False) -> Plane:
        plane = super().boundary(a, px, border)
        self._note("and", *plane.args)
        self._note("or", *plane.args)
        return plane

    def total(self, a: Plane, within: Plane | Region | None = None, void: bool = False) -> Tensor:
        return torch.ones(2, dtype=torch.float64)


def curves_of(formula: Callable[[Plane, Plane, Logic], object], shared: bool = False) -> dict[tuple[str, str], str]:
    """Which curves a formula needs, found by reading it.

    Args:
        formula: a metric's `sums`.
        shared: one curve per operation for all its operands.

    Returns:
        {(operation, operand): curve name} in order of appearance. A curve is named after its operation ("and"),
        and after its operand too ("and_p", "and_eroded") where the operation has several.
    """
    notes = _CurveNotes()
    formula(notes.pred, notes.label, notes)
    operands: dict[str, int] = {}
    for op, _ in notes.keys:
        operands[op] = operands.get(op, 0) + 1
    return {(op, operand): op if shared or operands[op] == 1 else f"{op}_{operand}" for op, operand in notes.keys}
