"""The operations that metrics are written in: AND, OR, boundaries and totals over one map per class.

A metric states its formula once, with these operations. The `Logic` that evaluates it decides what they mean:

* `maps.HardLogic` takes one-hot predictions and counts exactly (int64);
* `autoseg.surrogates.logic.CurveLogic` takes softmax and replaces each AND and OR by a surface built from curves;
* `trace` only records the totals that the formula needs.

A `Plane` is such a set of C maps over N images, as an expression that is not yet computed: knowing the whole
expression, a logic can count `p AND y` from the label's own class alone, without C-fold one-hot tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NoReturn

from torch import Tensor

from autoseg.errors import InputError

NO_TENSOR = (
    "p and y are no tensors but expressions: combine them by logic.and_, logic.or_, logic.boundary, count them by "
    "logic.total; to leave a class out of the mean, give weights()"
)

OPERATIONS = (
    "It has and_, or_, boundary, dilate, anywhere and total. What these cannot say is scored only, by an update() of "
    "its own, and searched for with another metric's curves: space=default-miou"
)


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
        border: of boundary, and of what it erodes; whether the image border counts as an edge.
    """

    op: str
    args: tuple[Plane, ...] = ()
    name: str = ""
    soft: bool = False
    px: int = 1
    border: bool = False

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError(NO_TENSOR)

    # What a formula would do with tensors. Python's own message would name a class that its author has never seen.
    __getitem__ = __neg__ = __invert__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = _refuse
    __and__ = __rand__ = __or__ = __ror__ = _refuse

    @classmethod
    def __torch_function__(cls, *_: object) -> NoReturn:
        """What torch's functions call, torch.clamp(p) say."""
        raise TypeError(NO_TENSOR)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(NO_TENSOR if not name.startswith("__") else name)

    @property
    def is_map(self) -> bool:
        """Whether the plane is of labels, with at most one of its classes at every pixel."""
        return not self.soft and self.op not in ("dilate", "or")


def _check_px(operation: str, px: object, least: int) -> None:
    if isinstance(px, bool) or not isinstance(px, int) or px < least:
        raise InputError(f"px of logic.{operation}", f"a whole number of pixels, {least} or more", repr(px))


@dataclass(frozen=True)
class Region:
    """Pixels within which a total is taken: those where any class of `plane` is set, shape (N, H, W)."""

    plane: Plane
    skip_first: bool = False


class Logic:
    """Builds planes; subclasses define `total`. See the module docstring."""

    pred: ClassVar[Plane] = Plane("pred", name="p", soft=True)
    label: ClassVar[Plane] = Plane("label", name="y")

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(name if name.startswith("_") else f"logic has no {name}. {OPERATIONS}")

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

        Raises:
            InputError: `px` is no whole number of 1 or more.
        """
        _check_px("boundary", px, least=1)
        eroded = Plane("erode", (a,), name="eroded", soft=a.soft, px=px, border=border)
        return Plane("boundary", (a, eroded), name="edge", soft=a.soft, px=px, border=border)

    def dilate(self, a: Plane, px: int) -> Plane:
        """Return `a` widened by `px` pixels (squares of side 2*px+1), per class.

        Raises:
            InputError: `px` is no whole number of 0 or more.
        """
        _check_px("dilate", px, least=0)
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
