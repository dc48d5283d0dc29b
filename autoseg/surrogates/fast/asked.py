"""Which totals a formula asks for, noted before any is computed, so that one pass over the logits gives them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autoseg.metrics.base import Sums
from autoseg.metrics.logic import Logic, Plane, Region

Formula = Callable[[Plane, Plane, Logic], Sums]


@dataclass(frozen=True, eq=False)
class Asked:
    """One total, the arguments of `Logic.total`."""

    plane: Plane
    within: Plane | Region | None
    void: bool

    @property
    def soft(self) -> bool:
        """Whether the prediction takes part."""
        return self.plane.soft or (isinstance(self.within, Plane) and self.within.soft)


def is_map(plane: Plane) -> bool:
    """Whether the plane is of labels and every pixel in at most one of its classes."""
    return not plane.soft and plane.op not in ("dilate", "or")


class _Notes(Logic):
    """Notes every total and answers with ones, one for each class."""

    def __init__(self, num_classes: int) -> None:
        self._classes = num_classes
        self.asked: list[Asked] = []
        self.given: list[Tensor] = []

    def total(self, a: Plane, within: Plane | Region | None = None, void: bool = False) -> Tensor:
        self.asked.append(Asked(a, within, void))
        self.given.append(torch.ones(self._classes, dtype=torch.float64))
        return self.given[-1]


class _Answers(Logic):
    """Gives the totals in the order in which they were asked for."""

    def __init__(self, totals: Sequence[Tensor]) -> None:
        self._totals = iter(totals)

    def total(self, a: Plane, within: Plane | Region | None = None, void: bool = False) -> Tensor:
        return next(self._totals)


def asked_by(formula: Formula, num_classes: int) -> tuple[list[Asked], dict[str, int] | None]:
    """The totals that `formula` asks for, in order, and which of them each of its results is, None if it computes.

    `metrics.logic.curves_of` reads formulas the same way.
    """
    notes = _Notes(num_classes)
    results = formula(notes.pred, notes.label, notes)
    given = {id(total): at for at, total in enumerate(notes.given)}
    if not all(id(total) in given for total in results.values()):
        return notes.asked, None
    return notes.asked, {name: given[id(total)] for name, total in results.items()}


def answered(formula: Formula, totals: Sequence[Tensor]) -> Sums:
    """What `formula` makes of the totals it asked for."""
    answers = _Answers(totals)
    return formula(answers.pred, answers.label, answers)
