"""Traces a formula: which totals it needs, hence which curves and planes, before any of them is computed."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autoseg.errors import InputError, in_a_line
from autoseg.metrics.logic import Logic, Plane, Region

Formula = Callable[[Plane, Plane, Logic], dict[str, Tensor]]


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


@dataclass(frozen=True)
class Trace:
    """What a formula asks for.

    Attributes:
        calls: its totals, in order.
        results: the index in `calls` of each of its results; None if it computes with totals.
        operands: (operation, name) of every soft operand of an AND or OR, in order of appearance.
    """

    calls: list[TotalCall]
    results: dict[str, int] | None
    operands: list[tuple[str, str]]


class _Recorder(Logic):
    """Records the soft operands of every AND and OR, and every total, of which it returns ones, one for each class."""

    def __init__(self, num_classes: int) -> None:
        self._classes = num_classes
        self.calls: list[TotalCall] = []
        self.given: list[Tensor] = []
        self.operands: dict[tuple[str, str], None] = {}

    def _note(self, op: str, *operands: Plane) -> None:
        self.operands |= {(op, operand.name): None for operand in operands if operand.soft}

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
        if not isinstance(a, Plane):
            raise TypeError(f"logic.total counts p, y or what logic makes of them, not a {type(a).__name__}")
        self.calls.append(TotalCall(a, within, void))
        self.given.append(torch.ones(self._classes, dtype=torch.float64, device="cpu"))
        return self.given[-1]


def trace(formula: Formula, num_classes: int) -> Trace:
    """Call a metric's `sums` with a logic that computes nothing.

    Raises:
        InputError: a formula of the user's that fails.
    """
    recorder = _Recorder(num_classes)
    try:
        results = dict(formula(recorder.pred, recorder.label, recorder))
    except Exception as error:
        if isinstance(error, InputError) or formula.__module__.startswith("autoseg."):
            raise
        got = f"{in_a_line(error)}{own_line(error)}"
        raise InputError(formula.__qualname__, "a formula of prediction, label and their logic", got) from error
    given = {id(total): at for at, total in enumerate(recorder.given)}
    places = {name: given.get(id(total)) for name, total in results.items()}
    known = {name: at for name, at in places.items() if at is not None}
    return Trace(recorder.calls, known if len(known) == len(places) else None, list(recorder.operands))


def own_line(error: BaseException) -> str:
    """Return the line of the user's at which a formula failed, as " (FILE, line 3)"; empty if there is none."""
    frames = [
        (frame.f_code.co_filename, line, frame.f_globals) for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    own = [at for *at, names in frames if str(names.get("__name__")).partition(".")[0] not in ("autoseg", "torch")]
    return f" ({own[-1][0]}, line {own[-1][1]})" if own else ""


class _Replay(Logic):
    """Returns the totals in the order in which they were traced."""

    def __init__(self, totals: Sequence[Tensor]) -> None:
        self._totals = iter(totals)

    def total(self, a: Plane, within: Plane | Region | None = None, void: bool = False) -> Tensor:
        return next(self._totals)


def replay(formula: Formula, totals: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the results of `formula`, given its totals."""
    replayed = _Replay(totals)
    return formula(replayed.pred, replayed.label, replayed)


def curves_of(formula: Formula, shared: bool = False, num_classes: int = 2) -> dict[tuple[str, str], str]:
    """Return the curves that a formula needs.

    Args:
        formula: a metric's `sums`.
        shared: one curve per operation for all its operands.
        num_classes: C of that metric.

    Returns:
        {(operation, operand): curve name} in order of appearance. A curve is named after its operation ("and"),
        and after its operand too ("and_p", "and_eroded") if the operation has several.

    Raises:
        InputError: as of `trace`.
    """
    found = trace(formula, num_classes).operands
    counts = Counter(op for op, _ in found)
    return {(op, operand): op if shared or counts[op] == 1 else f"{op}_{operand}" for op, operand in found}


def looks_around(formula: Formula, num_classes: int) -> bool:
    """Whether a formula erodes, dilates or takes boundaries, so that it matters which pixels are neighbours.

    Arguments and errors as of `curves_of`.
    """

    def around(plane: Plane) -> bool:
        return plane.op in ("erode", "boundary", "dilate") or any(map(around, plane.args))

    calls = trace(formula, num_classes).calls
    within = [call.within.plane if isinstance(call.within, Region) else call.within for call in calls]
    return any(around(plane) for plane in (*(call.plane for call in calls), *within) if plane is not None)
