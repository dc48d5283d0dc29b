"""From scores to the reward the controller maximises: the target metric, cut where a floor is missed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from autoseg.errors import InputError, unknown_name
from autoseg.imports import NAME
from autoseg.store.records import TrialRecord

NUMBER = r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?"
FLOOR = re.compile(rf"(?P<metric>{NAME})>=(?:(?P<level>{NUMBER})|(?:(?P<factor>{NUMBER})\*)?(?P<rival>{NAME}))")


@dataclass(frozen=True)
class Floor:
    """What a candidate must keep of another metric (`search.floor`)."""

    metric: str  # the score to watch
    factor: float  # share of the rival's score, or without a rival the level itself
    rival: str | None  # "identity" or the name of a hand-made loss, trained once under the search's budget and seed

    @classmethod
    def parse(cls, text: str) -> Floor:
        """Read "miou>=0.9*ce", "miou>=ce" or "miou>=0.4".

        Raises:
            InputError: it is none of these, or the number is not positive.
        """
        match = FLOOR.fullmatch("".join(text.split()))
        number = float((match["level"] or match["factor"] or 1.0) if match else 0.0)
        if match is None or not 0.0 < number < math.inf:
            expected = "metric>=factor*loss, metric>=loss or metric>=level, the number positive"
            raise InputError("search.floor", expected, repr(text), 'For example "miou>=0.9*ce".')
        return cls(match["metric"], number, match["rival"])

    def level(self, rival_scores: Mapping[str, float] | None) -> float:
        """The score that must be reached, given those of the rival (None if there is none)."""
        if rival_scores is None:
            return self.factor
        return self.factor * _score(rival_scores, self.metric, "search.floor")


@dataclass(frozen=True)
class Reward:
    """Scores to reward: the target metric, times the share of the floor that was reached if below one.

    The cut is continuous (at the floor nothing is taken away) and monotone, so that a controller still learns
    which of two candidates below it is better: reward = score - |score| * min(1, (level - watched) / |level|),
    which for positive scores is score * watched / level.
    """

    metric: str  # the target
    floor: Floor | None = None
    level: float = 0.0  # what `floor.metric` must reach

    def __call__(self, scores: Mapping[str, float]) -> float:
        """The reward of a completed training.

        Raises:
            InputError: the target or the watched metric is not among the scores.
        """
        score = _score(scores, self.metric, "metric")
        if self.floor is None:
            return score
        watched = _score(scores, self.floor.metric, "search.floor")
        if watched >= self.level:
            return score
        missing = (self.level - watched) / (abs(self.level) or 1.0)
        return score - abs(score) * (1.0 if math.isnan(missing) else min(1.0, missing))


def scored_by(record: TrialRecord, metric: str) -> TrialRecord:
    """With its score under a metric or a sum for its reward; as it is, where that was not scored.

    So are scores under a sum with a metric of the user's own, whose code is not loaded to look at a run.
    """
    score = record.scores.get(metric, math.nan)
    if record.scores and metric not in record.scores:
        from autoseg.metrics import is_known, score_of  # torch, for sums alone

        score = score_of(record.scores, metric) if is_known(metric) else math.nan
    return record if math.isnan(score) else replace(record, reward=score)


def _score(scores: Mapping[str, float], name: str, field: str) -> float:
    if name not in scores:
        raise unknown_name(field, name, scores)
    return scores[name]
