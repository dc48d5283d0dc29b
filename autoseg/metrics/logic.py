"""The operations that metrics are written in: AND, OR, boundaries and totals over one map per class.

A metric states its formula once, with these operations. The `Logic` that evaluates it decides what they mean:

* `maps.HardLogic` takes one-hot predictions and counts exactly (int64);
* `autoseg.surrogates.logic.CurveLogic` takes softmax and replaces each AND and OR by a surface built from curves;
* `curves_of` only records which curves the formula needs.

A `Plane` is such a set of C maps over N images, as an expression that is not yet computed: knowing the whole
expression, a logic can count `p AND y` from the label's own class alone, without C-fold one-hot tensors.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from autoseg.errors import InputError


@dataclass(frozen=True)
class Plane:
    """C maps over N images as an expression: prediction, label, or an operation on other planes.

    Two equal expressions are equal planes, so that results can be cached by plane.

    Attributes:
        op: pred, label, and, or, erode, boundary, dilate.
        args: operands.
        name: name of this operand in the names of curves.
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
    """Pixels within which a total is taken: those where any class of `plane` is set, shape (N, H, W)."""

    plane: Plane
    skip_first: bool = False


class Logic:
    """Builds planes; subclasses define `total`. See the module docstring."""

    pred: ClassVar[Plane] = Plane("pred", name="p", soft=True)
    label: ClassVar[Plane] = Plane("label", name="y")

    def and_(self, a: Plane, b: Plane) -> Plane:
        """Return the pixels in both."""
        return Plane("and", (a, b), name="and", soft=a.soft or b.soft)

    def or_(self, a: Plane, b: Plane) -> Plane:
        """Return the pixels in either."""
        return Plane("or", (a, b), name="or", soft=a.soft or b.soft)

    def boundary(self, a: Plane, px: int = 1, border: bool = False) -> Plane:
        """Return the pixels of `a` within `px` of a pixel outside it: OR(a, eroded) minus AND(a, eroded).

        Args:
            a: any plane.
            px: width of the band in pixels, by squares of side 2*px+1.
            border: whether the image border counts as outside.
        """
        eroded = Plane("erode", (a,), name="eroded", soft=a.soft, px=px, border=border)
        return Plane("boundary", (a, eroded), name="edge", soft=a.soft, px=px, border=border)

    def dilate(self, a: Plane, px: int) -> Plane:
        """Return `a` widened by `px` pixels (squares of side 2*px+1), per class."""
        return Plane("dilate", (a,), name="dilated", soft=a.soft, px=px)

    def anywhere(self, a: Plane, skip_first: bool = False) -> Region:
        """Return the region where any class of the (label's) plane is set; `skip_first` leaves class 0 out."""
        return Region(a, skip_first)

    def total(self, a: Plane, within: Plane | Region | None = None, void: bool = False) -> Tensor:
        """Return the sum over images and pixels, one per class.

        Args:
            a: the plane to sum.
            within: a second factor: a plane (class by class) or a region (the same for all classes).
            void: whether pixels labelled `ignore_index` count.

        Returns:
            (C,), or (N, C) if the logic computes totals per image.
        """
        raise NotImplementedError


class _CurveNotes(Logic):
    """Records the soft operands of every AND and OR instead of computing anything."""

    def __init__(self, num_classes: int) -> None:
        self._classes = num_classes
        self.keys: dict[tuple[str, str], None] = {}  # (op, operand), in order of appearance
        self.around = False  # whether a plane looks at neighbours

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
        planes = [a, within.plane if isinstance(within, Region) else within]
        self.around |= any(_looks_around(plane) for plane in planes if plane is not None)
        return torch.ones(self._classes, dtype=torch.float64)


def _looks_around(plane: Plane) -> bool:
    return plane.op in ("erode", "boundary", "dilate") or any(map(_looks_around, plane.args))


def curves_of(
    formula: Callable[[Plane, Plane, Logic], object], shared: bool = False, num_classes: int = 2
) -> dict[tuple[str, str], str]:
    """Return the curves that a formula needs, found by calling it.

    Args:
        formula: a metric's `sums`.
        shared: one curve per operation for all its operands.
        num_classes: C of that metric.

    Returns:
        {(operation, operand): curve name} in order of appearance. A curve is named after its operation ("and"),
        and after its operand too ("and_p", "and_eroded") if the operation has several.

    Raises:
        InputError: a formula of the user's that fails.
    """
    notes = _read(formula, num_classes)
    operands: dict[str, int] = {}
    for op, _ in notes.keys:
        operands[op] = operands.get(op, 0) + 1
    return {(op, operand): op if shared or operands[op] == 1 else f"{op}_{operand}" for op, operand in notes.keys}


def looks_around(formula: Callable[[Plane, Plane, Logic], object], num_classes: int) -> bool:
    """Whether a formula erodes, dilates or takes boundaries, so that it matters which pixels are neighbours.

    Arguments and errors as of `curves_of`.
    """
    return _read(formula, num_classes).around


def _read(formula: Callable[[Plane, Plane, Logic], object], num_classes: int) -> _CurveNotes:
    notes = _CurveNotes(num_classes)
    try:
        formula(notes.pred, notes.label, notes)
    except Exception as error:
        if isinstance(error, InputError) or formula.__module__.startswith("autoseg."):
            raise
        at = traceback.extract_tb(error.__traceback__)[-1]
        got = f"{type(error).__name__}: {error} ({at.filename}, line {at.lineno})"
        raise InputError(formula.__qualname__, "a formula of prediction, label and their logic", got) from error
    return notes
