"""Traces a formula for the totals it needs, before any is computed, so that one pass over the logits computes them
all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autoseg.metrics.base import Sums
from autoseg.metrics.logic import Logic, Plane, Region

Formula = Callable[[Plane, Plane, Logic], Sums]


@dataclass(frozen=True, eq=False)
class TotalCall:
    """The arguments of one call of `Logic.total`."""

    plane: Plane
    within: Plane | Region | None
    void: bool

    @property
    def soft(self) -> bool:
        """Whether the prediction takes part."""
        return self.plane.soft or (isinstance(self.within, Plane) and self.within.soft)


def is_map(plane: Plane) -> bool:
    """Return whether the plane is of labels, with at most one of its classes at every pixel."""
    return not plane.soft and plane.op not in ("dilate", "or")


class _Recorder(Logic):
    """Records every total and returns ones for it, one for each class."""

    def __init__(self, num_classes: int) -> None:
        self._classes = num_classes
        self.calls: list[TotalCall] = []
        self.given: list[Tensor] = []

    def total(self, a: Plane, within: Plane | Region | None = None, void: bool = False) -> Tensor:
        self.calls.append(TotalCall(a, within, void))
        self.given.append(torch.ones(self._classes, dtype=torch.float64))
        return self.given[-1]


class _Replay(Logic):
    """Returns the totals in the order in which they were traced."""

    def __init__(self, totals: Sequence[Tensor]) -> None:
        self._totals = iter(totals)

    def total(self, a: Plane, within: Plane | Region | None = None, void: bool = False) -> Tensor:
        return next(self._totals)


def trace(formula: Formula, num_classes: int) -> tuple[list[TotalCall], dict[str, int] | None]:
    """Return the totals that `formula` needs, in order, and the index of each result among them, None if it computes.

    `metrics.logic.curves_of` traces formulas the same way.
    """
    recorder = _Recorder(num_classes)
    results = formula(recorder.pred, recorder.label, recorder)
    given = {id(total): at for at, total in enumerate(recorder.given)}
    if not all(id(total) in given for total in results.values()):
        return recorder.calls, None
    return recorder.calls, {name: given[id(total)] for name, total in results.items()}


def replay(formula: Formula, totals: Sequence[Tensor]) -> Sums:
    """Return the results of `formula`, given its totals."""
    replayed = _Replay(totals)
    return formula(replayed.pred, replayed.label, replayed)
