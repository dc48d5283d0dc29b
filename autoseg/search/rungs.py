"""Early stop of hopeless candidates: at its rungs, a training is scored and compared with those of earlier rounds.

The rules are published ones, with the options of Optuna's pruners and deciding as these do. "median": the median
stopping rule of Golovin et al., Google Vizier, KDD 2017, section 3.2.2 (stop where the best score so far is below the
median of the complete trainings at that rung). "percentile": the same with another share than one half, by default the
best quarter goes on. What they compare with are complete candidates of earlier rounds and nothing else: what these come
to travels with the job, one number a rung, so that a decision depends neither on the order in which workers finish nor
on where a search was interrupted.

A stopped candidate has no final score. The controller is told what it would have come to if it had gained as much as
the median of those candidates; it is never a finalist.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from autoseg.config import SearchSettings
from autoseg.errors import InputError, unknown_name
from autoseg.search.records import COMPLETE, TrialRecord

if TYPE_CHECKING:
    from optuna.pruners import BasePruner

NONE, PRUNERS = "none", ("none", "median", "percentile")
QUARTER = 25.0  # of the complete trainings, in percent, with which "percentile" lets go on

T = TypeVar("T")


class Stopped(Exception):
    """A training was ended at a rung; told by `Watch`, heard by the candidate's task."""


@dataclass(frozen=True)
class Rungs:
    """Where the candidates of one round are looked at, and what is known there.

    Args:
        pruner: "none" (they are scored and never stopped), "median" or "percentile".
        shares: of the iterations, ascending, each above 0 and below 1.
        options: further keyword arguments of Optuna's pruner.
        earlier: scores at the rungs of every complete candidate of earlier rounds, in the order of the rungs.
        gains: its reward less each of these.
    """

    pruner: str = NONE
    shares: tuple[float, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    earlier: tuple[tuple[float, ...], ...] = ()
    gains: tuple[tuple[float, ...], ...] = ()

    @classmethod
    def before(cls, round: int, history: Sequence[TrialRecord], settings: SearchSettings) -> Self | None:
        """Those of a round; None if the search stops nothing."""
        if settings.pruner == NONE:
            return None
        known = [r for r in history if r.round < round and r.state == COMPLETE and len(r.rungs) == len(settings.rungs)]
        earlier = tuple(tuple(record.rungs.values()) for record in known)
        gains = tuple(tuple(record.reward - score for score in record.rungs.values()) for record in known)
        return cls(settings.pruner, tuple(settings.rungs), dict(settings.pruner_options), earlier, gains)

    def payload(self) -> dict[str, Any]:
        """What the worker needs of it, plain data under "rungs"; the same size after any history."""
        return {"rungs": dataclasses.asdict(self.looks())}

    def iterations(self, iters: int) -> list[int]:
        """How many iterations of a training of `iters` are done at each rung."""
        return self.looks().iterations(iters)

    def expected(self, scores: Sequence[float]) -> float:
        """The reward a training would have come to that was stopped at the last of these scores."""
        rung = len(scores) - 1
        return scores[rung] + median(gains[rung] for gains in self.gains)

    def hopeless(self, scores: Sequence[float]) -> bool:
        """Whether a training with these scores, one per rung so far, is to be stopped."""
        return self.looks().hopeless(scores)

    def looks(self) -> Looks:
        """What is asked of each training of the round."""
        if self.pruner == NONE or not self.earlier:
            return Looks(self.shares, (None,) * len(self.shares))
        rule = _rule(self.pruner, self.options)
        return Looks(self.shares, tuple(self._level(rung, rule) for rung in range(len(self.shares))))

    def _level(self, rung: int, rule: Mapping[str, Any]) -> float | None:
        """What the best score so far must reach to go on; None: nothing is stopped here."""
        warmup, interval = rule["n_warmup_steps"], rule["interval_steps"]
        due = (rung - warmup) // interval * interval + warmup
        if len(self.earlier) < rule["n_startup_trials"] or rung < warmup or rung > due:
            return None
        known = [scores[rung] for scores in self.earlier if not math.isnan(scores[rung])]
        if len(self.earlier) < rule["n_min_trials"] or not known:
            return -math.inf  # all but one without a number
        return float(np.percentile(np.array(known), 100.0 - rule["percentile"]))


@dataclass(frozen=True)
class Looks:
    """Where a training is looked at, and what must have been reached there.

    Args:
        shares: of the iterations, as in `Rungs`.
        levels: at each of them, the least best score so far that goes on; None: whatever it is.
    """

    shares: tuple[float, ...]
    levels: tuple[float | None, ...]

    def iterations(self, iters: int) -> list[int]:
        """As in `Rungs`."""
        return [max(1, round(share * iters)) for share in self.shares]

    def hopeless(self, scores: Sequence[float]) -> bool:
        """As in `Rungs`."""
        level = self.levels[len(scores) - 1]
        best = max((score for score in scores if not math.isnan(score)), default=math.nan)
        return level is not None and not best >= level


def _rule(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a pruner, with Optuna's own values for those not given."""
    kind = type(build_pruner(name, options))
    given = options if name == "median" else {"percentile": QUARTER, **options}
    bound = inspect.signature(kind).bind(**given)
    bound.apply_defaults()
    return {"percentile": 50.0, **bound.arguments}


def build_pruner(name: str, options: Mapping[str, Any]) -> BasePruner:
    """Optuna's pruner of a name other than "none".

    Raises:
        InputError: unknown name, or options that it does not take.
    """
    from optuna.pruners import MedianPruner, PercentilePruner

    if name not in PRUNERS[1:]:
        raise unknown_name("search.pruner", name, PRUNERS)
    try:
        return MedianPruner(**options) if name == "median" else PercentilePruner(**{"percentile": QUARTER, **options})
    except (TypeError, ValueError) as error:
        hint = "For example search.pruner_options.n_startup_trials=8."
        raise InputError("search.pruner_options", f"arguments of Optuna's {name} pruner", error, hint) from error


class Watch:
    """One training at its rungs, in the worker.

    Args:
        rungs: what is asked of it.
        metric: what is scored there.

    Attributes:
        scores: by iteration, so far.
    """

    def __init__(self, rungs: Looks, metric: str) -> None:
        self.rungs, self.metric = rungs, metric
        self.scores: dict[int, float] = {}

    @classmethod
    def of(cls, payload: Mapping[str, Any], metric: str) -> Self | None:
        """The watch a payload asks for; None if it asks for none."""
        return cls(Looks(**payload["rungs"]), metric) if "rungs" in payload else None

    def over(self, train: T) -> T:
        """A training function that is watched.

        Raises:
            InputError: it is not the built-in one, which alone can be looked at on its way.
        """
        if not hasattr(train, "watch"):
            hint = "Only the built-in proxy can be looked at on its way."
            raise InputError("search.pruner", "none, with a training function of your own", "another", hint)
        return dataclasses.replace(train, watch=self)  # type: ignore[type-var]

    def look(self, iteration: int, score: float) -> None:
        """Keep a score.

        Raises:
            Stopped: the training is hopeless.
        """
        self.scores[iteration] = score
        if self.rungs.hopeless(list(self.scores.values())):
            raise Stopped
