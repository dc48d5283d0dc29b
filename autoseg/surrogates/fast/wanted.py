"""What a formula wants of any batch, sorted by who computes it: read once, not once a batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from autoseg.metrics.base import Metric, Sums
from autoseg.metrics.logic import Logic, Plane, Region
from autoseg.surrogates.fast.asked import Asked, Formula, answered, asked_by, is_map
from autoseg.surrogates.fast.gpu.plans import Layout
from autoseg.surrogates.fast.passes import Pass
from autoseg.surrogates.fast.ratios import Ratio, ratio_of

Key = tuple[str, str]  # of a curve: operation and operand
PLAIN: Key = ("", "")  # g(x) = x


class Where(NamedTuple):
    """Pixels of any batch: `passes.Pixels` with what its tensors are made from.

    A plane of the labels has no class where they are void, so that whether void ones count makes no difference.
    """

    ids: Plane | None
    within: Region | None


@dataclass(frozen=True)
class Made:
    """How a total is made: a result of the pass, less another one, and a count of pixels by class."""

    at: int | None = None
    less: int | None = None
    count: Where | None = None

    def of(self, found: Sequence[Tensor], counted: Callable[[Where], Tensor]) -> Tensor:
        """The total; `found` are the results of the pass."""
        if self.at is None:
            assert self.count is not None
            return counted(self.count)
        if self.less is None or self.count is None:
            return found[self.at]
        return found[self.at] - found[self.less] + counted(self.count)


class Wanted:
    """A formula (a metric's `sums`) read once.

    Args:
        formula: what is read.
        kernels: whether kernels take the pass (`gpu.launches`), which know more kinds of totals.
        num_classes: C.

    Attributes:
        asked: its totals, in order.
        work: the pass, of any batch.
        made: how each total is made; None: it is not pointwise.
        names: the place of each of the formula's results among `asked`; None: it computes with them.
        layout: the pass as kernels compute it, once that is known.
        ratio: what the results come to in kernels too; None: they do not, see `wanted_by`.
    """

    layout: Layout[Key, Where] | None = None
    ratio: Ratio | None = None

    def __init__(self, formula: Formula, kernels: bool, num_classes: int = 2) -> None:
        self.formula, self.kernels = formula, kernels
        self.work = Pass[Key, Where]()
        self.asked, self.names = asked_by(formula, num_classes)
        self._counts: dict[Where, Made] = {}
        self.made = [self._counting(each) or self._pointwise(each) for each in self.asked]

    def answer(self, totals: Sequence[Tensor]) -> Sums:
        """What the formula makes of its totals."""
        if self.names is None:
            return answered(self.formula, totals)
        return {name: totals[at] for name, at in self.names.items()}

    @property
    def places(self) -> dict[str, int] | None:
        """Where the formula's results are among those of the pass; None: they are made of several, or not by it."""
        found = {}
        for name, at in (self.names or {}).items():
            made = self.made[at]
            if made is None or made.at is None or made.less is not None:
                return None
            found[name] = made.at
        return found or None

    def _counting(self, asked: Asked) -> Made | None:
        """A total of labels alone; None: it is not."""
        if asked.soft or isinstance(asked.within, Plane) or asked.plane.op == "dilate":
            return None
        where = Where(asked.plane, asked.within)
        if self.kernels and where not in self._counts:  # kernels count along, each plane once
            self._counts[where] = Made(self.work.add_own(None, where))
        return self._counts[where] if self.kernels else Made(count=where)

    def _pointwise(self, asked: Asked) -> Made | None:
        """Adds what a total needs to the pass. None: it is not pointwise."""
        a, within = asked.plane, asked.within
        if isinstance(within, Plane):
            if {a.op, within.op} <= {"pred"} or "pred" not in (a.op, within.op):
                return None
            hard = within if a.op == "pred" else a
            return Made(self.work.add_own(PLAIN, Where(hard, None))) if is_map(hard) else None
        everyone = Where(None if asked.void else Logic.label, within)
        if a.op == "pred":
            return Made(self.work.add_everywhere(PLAIN, everyone))
        if a.op not in ("and", "or") or a.args[0].soft == a.args[1].soft:
            return None
        soft, hard = a.args if a.args[0].soft else a.args[::-1]
        if soft.op != "pred" or not is_map(hard):
            return None
        curve, own = (a.op, soft.name), Where(hard, within)
        if a.op == "and":
            return Made(self.work.add_own(curve, own))
        if self.kernels:
            return Made(self.work.add_everywhere(curve, everyone, own))
        return Made(less=self.work.add_own(curve, own), at=self.work.add_everywhere(curve, everyone), count=own)


def wanted_by(metric: Metric, kernels: bool) -> Wanted:
    """What a metric's formula wants, and the ratio that its score is."""
    wanted = Wanted(metric.sums, kernels, metric.options.num_classes)
    if kernels and not metric.per_image and wanted.places is not None:
        counts = [at for own in wanted.work.own for curve, at in own.curves if curve is None]
        wanted.ratio = ratio_of(metric, wanted.places, len(wanted.work), counts)
    return wanted
