"""The result of a comparison as numbers: losses by metrics by seeds, and how sure their differences are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median

from autoseg.errors import unknown_name
from autoseg.evidence.comparison.bootstrap import Bootstrap
from autoseg.evidence.comparison.contenders import Contender
from autoseg.metrics import higher_is_better, parse, score_of
from autoseg.store.paired import Paired, Summary, holm, p_value, paired, summary
from autoseg.store.records import COMPLETE, RUNNING, TrialRecord

REFERENCE, HAND_MADE = "reference", "best hand-made"  # the roles of losses that others are compared with


class Matrix:
    """Losses by metrics by seeds.

    Args:
        among: the losses, in the order of the tables.
        metrics: names or sums, in that order too.
        seeds: the seeds, in that order too.
        reference: name of the loss all others are compared with.
        records: records of all trainings, in any order.
        classes: names of the classes.
        bootstrap: None: intervals are over seeds; else over seeds and images, for the metrics that it covers.

    Raises:
        InputError: a metric that was not scored.
    """

    def __init__(
        self,
        among: Sequence[Contender],
        metrics: Sequence[str],
        seeds: Sequence[int],
        reference: str,
        records: Sequence[TrialRecord],
        classes: Sequence[str],
        bootstrap: Bootstrap | None = None,
    ) -> None:
        self.among, self.metrics, self.seeds = tuple(among), tuple(metrics), tuple(seeds)
        self.reference, self.classes = reference, tuple(classes)
        self._records = {record.key: record for record in records}
        self._check_scored()
        self._bootstrap = bootstrap
        complete = [key for key, record in self._records.items() if record.state == COMPLETE]
        # metrics whose intervals had to stay those over seeds, and why
        self.without_images = (
            {metric: reason for metric in self.metrics if (reason := bootstrap.missing(metric, complete))}
            if bootstrap is not None
            else {}
        )
        self._differences: dict[tuple[str, str, str], Paired] = {}

    def _check_scored(self) -> None:
        scores = next((record.scores for record in self._records.values() if record.state == COMPLETE), None)
        for name in (term for metric in self.metrics for _, term in parse(metric)):
            if scores is not None and name not in scores:
                raise unknown_name("metrics", name, [scored for scored in scores if "/" not in scored])

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the losses."""
        return tuple(loss.name for loss in self.among)

    def row(self, name: str) -> list[TrialRecord]:
        """Return the trainings of a loss, by seed."""
        return [self._records[name, seed] for seed in self.seeds]

    def cell(self, name: str, metric: str) -> Summary:
        """Return the scores of a loss under a metric."""
        return summary([score_of(record.scores, metric) for record in self.row(name)])

    def of_class(self, name: str, metric: str, label: str) -> Summary:
        """Return the scores of a loss under a metric for one class; empty for metrics that pool the classes."""
        return summary([score_of(record.scores, metric, f"/{label}") for record in self.row(name)])

    def seconds(self, name: str) -> float:
        """Return the median time of a training (a worker's first one includes its start); NaN if none completed."""
        times = [record.seconds for record in self.row(name) if record.state == COMPLETE]
        return median(times) if times else math.nan

    def best(self, metric: str, among: Callable[[Contender], bool] = lambda loss: True) -> str | None:
        """Return the loss with the best mean (for errors the lowest) among those that failed with the fewest seeds.

        A loss that diverges with most seeds is not the best because of the one that went well. None if none has a
        score.
        """
        ranks = {loss.name: self._rank(loss.name, metric) for loss in self.among if among(loss)}
        known = {name: rank for name, rank in ranks.items() if not math.isnan(rank[1])}
        return max(known, key=lambda name: known[name], default=None)

    def _rank(self, name: str, metric: str) -> tuple[int, float]:
        """Return a sort key of a loss; higher is better."""
        failed = sum(record.state not in (COMPLETE, RUNNING) for record in self.row(name))
        return -failed, self.cell(name, metric).mean * (1 if higher_is_better(metric) else -1)

    def leaders(self, metric: str) -> tuple[str, ...]:
        """Return every loss that is as good as the `best`: several if they are exactly equal, none without a score."""
        best = self.best(metric)
        if best is None:
            return ()
        top = self._rank(best, metric)
        return tuple(name for name in self.names if self._rank(name, metric) == top)

    def best_hand_made(self, metric: str) -> str | None:
        """Return the best loss that was not found by a search.

        It is chosen by the same scores that it is then compared with, so luck may favour it: comparisons with it err
        on its side.
        """
        return self.best(metric, lambda loss: not loss.searched)

    def opponents(self, name: str, metric: str) -> list[tuple[str, str]]:
        """Return the (role, loss) pairs that a loss is compared with, without itself; one loss may have both roles."""
        roles = [(REFERENCE, self.reference), (HAND_MADE, self.best_hand_made(metric))]
        return [(role, other) for role, other in roles if other is not None and other != name]

    def difference(self, name: str, other: str, metric: str) -> Paired:
        """Compare a loss with another, paired by seed."""
        key = (name, other, metric)
        if key not in self._differences:
            found = paired(self.cell(name, metric).values, self.cell(other, metric).values)
            if self._bootstrap is not None and self._over_images(metric):
                found = self._bootstrap.widen(found, name, other, self.seeds, metric)
            self._differences[key] = found
        return self._differences[key]

    def _over_images(self, metric: str) -> bool:
        """Return whether the intervals of a metric are over seeds and images."""
        return self._bootstrap is not None and metric not in self.without_images

    def p_values(self, other: str, metric: str) -> dict[str, float]:
        """Return the p value of the paired t test of every other loss against `other`; NaN where there is none.

        The bootstrap has its own spread, to which that test does not belong: all are NaN.
        """
        names = [name for name in self.names if name != other]
        if self._over_images(metric):
            return dict.fromkeys(names, math.nan)
        return {name: p_value(self.difference(name, other, metric).differences) for name in names}

    def holm(self, other: str, metric: str) -> dict[str, float]:
        """Return the `p_values` adjusted for their number, which is that of the losses compared with `other`."""
        found = self.p_values(other, metric)
        return dict(zip(found, holm(list(found.values())), strict=True))

    @property
    def interval(self) -> str:
        """The name of the differences' interval, in words."""
        if self._bootstrap is None or len(self.without_images) == len(self.metrics):
            return "95 % paired t interval over seeds"
        return "95 % bootstrap interval over seeds and images"
