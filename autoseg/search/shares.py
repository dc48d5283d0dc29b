"""Scores are shares of 1: a training of the user's own that returns 43 for 43 % is told so, once."""

from __future__ import annotations

import warnings

from autoseg.metrics import is_known, own_metrics, parse
from autoseg.search.observer import Observer, Progress
from autoseg.search.records import COMPLETE, TrialRecord, percent

SLACK = 1e-6  # a mean of scores that are 1 may be a little more


class Shares(Observer):
    """Warns of the first score of the target that lies outside what its metric can be. The search goes on.

    A score of the user's own may have any range, and so nothing is said of it, nor of scores beside the target.

    Args:
        metric: the target, a name or a sum.
    """

    def __init__(self, metric: str) -> None:
        terms = parse(metric) if is_known(metric) else []
        own = {one.name for one in own_metrics()}
        self._metric, self._top = metric, sum(weight for weight, _ in terms)
        self._told = not terms or any(name in own for _, name in terms)

    def trained(self, record: TrialRecord, progress: Progress) -> None:
        """Look at its score."""
        score = record.scores.get(self._metric, 0.0)
        if self._told or record.state != COMPLETE or -SLACK <= score <= self._top + SLACK:
            return
        self._told = True
        said = (
            f"train() returned {score:g} for {self._metric}, which lies between 0 and {self._top:g}: scores are read "
            f"as shares of 1, and this one is shown as {percent(score, 0)} %. The search goes on with it as it is."
        )
        warnings.warn(said, stacklevel=2)
