"""Plans how the totals of a formula are computed, and by which code; done once per formula, not once per batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from autoseg.metrics.base import Metric, Sums
from autoseg.metrics.logic import Logic, Plane, Region
from autoseg.metrics.trace import Formula, TotalCall, replay, trace
from autoseg.surrogates.fast.gpu.plans import Layout
from autoseg.surrogates.fast.passes import Pass
from autoseg.surrogates.fast.ratios import Ratio, ratio_of

Key = tuple[str, str]  # key of a curve: operation and operand
PLAIN: Key = ("", "")  # g(x) = x


class PixelSet(NamedTuple):
    """Pixels of any batch: `passes.Pixels` as planes and regions, from which its tensors are computed.

    A plane of the labels has no class where they are void, so it does not matter whether void pixels count.
    """

    ids: Plane | None
    within: Region | None


@dataclass(frozen=True)
class Recipe:
    """The computation of a total: a result of the pass, minus another one, plus a count of pixels by class."""

    at: int | None = None
    less: int | None = None
    count: PixelSet | None = None

    def of(self, found: Sequence[Tensor], counted: Callable[[PixelSet], Tensor]) -> Tensor:
        """Return the total; `found` are the results of the pass."""
        if self.at is None:
            assert self.count is not None
            return counted(self.count)
        if self.less is None or self.count is None:
            return found[self.at]
        return found[self.at] - found[self.less] + counted(self.count)


class FormulaPlan:
    """The plan of a formula (a metric's `sums`), which is traced once.

    Args:
        formula: the formula.
        kernels: whether kernels run the pass (`gpu.launches`), which compute more kinds of totals.
        num_classes: C.

    Attributes:
        calls: its totals, in order.
        work: the pass, for any batch.
        recipes: how each total is computed; None: it is not pointwise.
        names: the index in `calls` of each of the formula's results; None: the formula computes with them.
        layout: the pass as kernels compute it, once that is known.
        ratio: the ratio that kernels can compute from the results; None: there is none, see `plan_formula`.
    """

    layout: Layout[Key, PixelSet] | None = None
    ratio: Ratio | None = None

    def __init__(self, formula: Formula, kernels: bool, num_classes: int = 2) -> None:
        self.formula, self.kernels = formula, kernels
        self.work = Pass[Key, PixelSet]()
        found = trace(formula, num_classes)
        self.calls, self.names = found.calls, found.results
        self._counts: dict[PixelSet, Recipe] = {}
        self.recipes = [self._counting(each) or self._pointwise(each) for each in self.calls]

    def answer(self, totals: Sequence[Tensor]) -> Sums:
        """Return the formula's results, given its totals."""
        if self.names is None:
            return replay(self.formula, totals)
        return {name: totals[at] for name, at in self.names.items()}

    @property
    def places(self) -> dict[str, int] | None:
        """The indices of the formula's results among those of the pass.

        None if one combines several or is not computed by it.
        """
        found = {}
        for name, at in (self.names or {}).items():
            recipe = self.recipes[at]
            if recipe is None or recipe.at is None or recipe.less is not None:
                return None
            found[name] = recipe.at
        return found or None

    def _counting(self, call: TotalCall) -> Recipe | None:
        """Return the recipe of a total of labels alone, else None."""
        if call.soft or isinstance(call.within, Plane) or call.plane.op == "dilate":
            return None
        where = PixelSet(call.plane, call.within)
        if self.kernels and where not in self._counts:  # kernels count along, each plane once
            self._counts[where] = Recipe(self.work.add_own(None, where))
        return self._counts[where] if self.kernels else Recipe(count=where)

    def _pointwise(self, call: TotalCall) -> Recipe | None:
        """Add a total to the pass and return its recipe; None if it is not pointwise."""
        a, within = call.plane, call.within
        if isinstance(within, Plane):
            if {a.op, within.op} <= {"pred"} or "pred" not in (a.op, within.op):
                return None
            hard = within if a.op == "pred" else a
            return Recipe(self.work.add_own(PLAIN, PixelSet(hard, None))) if hard.is_map else None
        everyone = PixelSet(None if call.void else Logic.label, within)
        if a.op == "pred":
            return Recipe(self.work.add_everywhere(PLAIN, everyone))
        if a.op not in ("and", "or") or a.args[0].soft == a.args[1].soft:
            return None
        soft, hard = a.args if a.args[0].soft else a.args[::-1]
        if soft.op != "pred" or not hard.is_map:
            return None
        curve, own = (a.op, soft.name), PixelSet(hard, within)
        if a.op == "and":
            return Recipe(self.work.add_own(curve, own))
        if self.kernels:
            return Recipe(self.work.add_everywhere(curve, everyone, own))
        return Recipe(less=self.work.add_own(curve, own), at=self.work.add_everywhere(curve, everyone), count=own)


def plan_formula(metric: Metric, kernels: bool) -> FormulaPlan:
    """Return the plan of a metric's formula, with the ratio that its score is, if it is one."""
    plan = FormulaPlan(metric.sums, kernels, metric.options.num_classes)
    if kernels and not metric.per_image and plan.places is not None:
        counts = [at for own in plan.work.own for curve, at in own.curves if curve is None]
        plan.ratio = ratio_of(metric, plan.places, len(plan.work), counts)
    return plan
