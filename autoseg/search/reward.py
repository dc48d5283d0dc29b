"""Computes the reward that the controller maximises: the target metric, reduced if a floor is missed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from autoseg.config import SearchSettings
from autoseg.errors import InputError, unknown_name
from autoseg.imports import NAME
from autoseg.store.records import TrialRecord

NUMBER = r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?"
SCORE = r"\w[\w./-]*"  # a training of the user's own may name its scores as it likes
FLOOR = re.compile(rf"(?P<metric>{SCORE})>=(?:(?P<level>{NUMBER})|(?:(?P<factor>{NUMBER})\*)?(?P<rival>{NAME}))")


@dataclass(frozen=True)
class Floor:
    """The score of another metric that a candidate must reach (`search.floor`)."""

    metric: str  # name of the score that must not fall below the floor
    factor: float  # share of the rival's score, or without a rival the level itself
    rival: str | None  # "identity" or the name of a hand-made loss, trained once under the search's budget and seed

    @classmethod
    def of(cls, settings: SearchSettings) -> Floor | None:
        """Read the floor of a search; None if it has none. Errors as in `parse`."""
        return None if settings.floor is None else cls.parse(settings.floor)

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
        """Return the score that must be reached, given the scores of the rival (None if there is none).

        Raises:
            InputError: the rival lacks that score, or it is NaN, below which every candidate would be.
        """
        if rival_scores is None:
            return self.factor
        score = _score(rival_scores, self.metric, "search.floor")
        if math.isnan(score):
            expected = f"a loss that has a score of {self.metric}"
            hint = "Name another loss or a number, or train longer."
            raise InputError("search.floor", expected, f"{self.rival}, with NaN", hint)
        return self.factor * score


@dataclass(frozen=True)
class Reward:
    """Computes the reward from scores: the target metric, times the share of the floor that was reached if below one.

    The reduction is continuous (zero at the floor) and monotone, so that a controller still learns
    which of two candidates below the floor is better: reward = score - |score| * min(1, (level - watched) / |level|),
    which for positive scores is score * watched / level.
    """

    metric: str  # the target
    floor: Floor | None = None
    level: float = 0.0  # the score that `floor.metric` must reach

    def __call__(self, scores: Mapping[str, float]) -> float:
        """Return the reward of a completed training.

        Raises:
            InputError: the target or the floor's metric is not among the scores.
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
    """Return the record with its score under a metric or a sum as its reward; unchanged, if that was not scored.

    It is also unchanged for sums with a metric of the user's own, whose code is not loaded to look at a run.
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
