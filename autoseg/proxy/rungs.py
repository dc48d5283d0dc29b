"""Stops hopeless candidates early: at its rungs, a training is scored and compared with those of earlier rounds.

The rules are published ones, applied by Optuna's pruners. "median": the median stopping rule of Golovin et al., Google
Vizier, KDD 2017, section 3.2.2 (stop where the best score so far is below the median of the complete trainings at that
rung). "percentile": the same with another share than one half, by default the best quarter goes on. A training is
compared only with complete candidates of earlier rounds: their scores travel with the job, so that a decision depends
neither on the order in which workers finish nor on where a search was interrupted.

A stopped candidate has no final score. The controller is given the reward that it would have reached if it had gained
as much as the median of those candidates; it is never a finalist.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Self

from autoseg.config import SearchSettings
from autoseg.errors import InputError
from autoseg.quiet import quiet_optuna
from autoseg.store.records import COMPLETE, TrialRecord

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

NONE = "none"
QUARTER = 25.0  # per cent: "percentile" lets the best quarter go on


class Stopped(Exception):
    """A training was stopped at a rung; raised by `Watch`, caught by the candidate's task."""


@dataclass(frozen=True)
class Rungs:
    """The rungs of the candidates of one round, and the earlier scores they are compared with."""

    pruner: str = NONE  # "none" (they are scored and never stopped), "median" or "percentile"
    shares: tuple[float, ...] = ()  # shares of the iterations, ascending, each above 0 and below 1
    options: dict[str, Any] = field(default_factory=dict)  # further keyword arguments of Optuna's pruner
    # scores at the rungs of every complete candidate of earlier rounds, by iteration, ascending
    earlier: tuple[dict[int, float], ...] = ()
    gains: tuple[tuple[float, ...], ...] = ()  # the reward of each of these candidates minus its score at each rung

    @classmethod
    def before(cls, round: int, history: Sequence[TrialRecord], settings: SearchSettings) -> Self | None:
        """Return the rungs of a round; None if the search stops no candidates."""
        if settings.pruner == NONE:
            return None
        known = [r for r in history if r.round < round and r.state == COMPLETE and len(r.rungs) == len(settings.rungs)]
        earlier = tuple(dict(record.rungs) for record in known)
        gains = tuple(tuple(record.reward - score for score in record.rungs.values()) for record in known)
        return cls(settings.pruner, tuple(settings.rungs), dict(settings.pruner_options), earlier, gains)

    def payload(self) -> dict[str, Any]:
        """Return the part that the worker needs, plain data under "rungs"."""
        return {"rungs": {**dataclasses.asdict(self), "gains": ()}}

    def iterations(self, iters: int) -> list[int]:
        """Return how many iterations of a training of `iters` are done at each rung."""
        return [max(1, round(share * iters)) for share in self.shares]

    def expected(self, scores: Sequence[float]) -> float:
        """Return the reward that a training stopped at the last of these scores would have reached; NaN if no gain is
        known, since a metric may not be finite before a class is found.
        """
        rung = len(scores) - 1
        known = [gains[rung] for gains in self.gains if math.isfinite(gains[rung])]
        return scores[rung] + (median(known) if known else math.nan)

    def hopeless(self, scores: Mapping[int, float]) -> bool:
        """Return whether to stop a training with these scores, by iteration, one for each rung so far.

        Optuna's steps are iterations, as in the ledger: so are those that options of its pruners count. A score that is
        not finite decides nothing: a class may not have been found yet.
        """
        if self.pruner == NONE or not self.earlier or not math.isfinite([*scores.values()][-1]):
            return False
        import optuna
        from optuna.trial import TrialState, create_trial

        with quiet_optuna():
            study = optuna.create_study(direction="maximize")
        finite = [{step: score for step, score in known.items() if math.isfinite(score)} for known in self.earlier]
        study.add_trials([create_trial(value=0.0, intermediate_values=known) for known in finite])
        running = create_trial(state=TrialState.RUNNING, intermediate_values=dict(scores))
        return bool(build_pruner(self.pruner, self.options).prune(study, running))


def build_pruner(name: str, options: Mapping[str, Any]) -> BasePruner:
    """Build Optuna's pruner called "median" or "percentile".

    Raises:
        InputError: the pruner does not accept the options.
    """
    from optuna.pruners import MedianPruner, PercentilePruner

    try:
        return MedianPruner(**options) if name == "median" else PercentilePruner(**{"percentile": QUARTER, **options})
    except (TypeError, ValueError) as error:
        hint = "For example search.pruner_options.n_startup_trials=8."
        raise InputError("search.pruner_options", f"arguments of Optuna's {name} pruner", error, hint) from error


class Watch:
    """Scores one training at its rungs, in the worker.

    Args:
        rungs: the rungs of its round.
        metric: name of the metric that is scored there.

    Attributes:
        scores: the scores so far, by iteration.
    """

    def __init__(self, rungs: Rungs, metric: str) -> None:
        self.rungs, self.metric = rungs, metric
        self.scores: dict[int, float] = {}

    @classmethod
    def of(cls, payload: Mapping[str, Any], metric: str) -> Self | None:
        """Build the watch that a payload describes; None if it has none."""
        return cls(Rungs(**payload["rungs"]), metric) if "rungs" in payload else None

    def look(self, iteration: int, score: float) -> None:
        """Record a score.

        Raises:
            Stopped: the training is hopeless.
        """
        self.scores[iteration] = score
        if self.rungs.hopeless(self.scores):
            raise Stopped
