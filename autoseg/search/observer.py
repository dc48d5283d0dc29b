"""Who watches a search: the events it tells, and the numbers that go with them."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partialmethod
from pathlib import Path
from statistics import fmean

from autoseg.store.records import COMPLETE, SearchResult, TrialRecord

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Amount:
    """How much a run has to train.

    Args:
        total: all trainings, confirmation included.
        confirming: how many of them are the confirmation's; they come last.
        longer: how many times as long as the others these are.
    """

    total: int
    confirming: int = 0
    longer: float = 1.0

    def up_to(self, done: int) -> float:
        """The work in the first `done` trainings; that of a candidate's is 1."""
        return done + (self.longer - 1) * max(0, done - max(0, self.total - self.confirming))

    def seconds_left(self, done: int, seconds: float, workers: int) -> float | None:
        """Estimate for the rest, when the first `done` trainings took `seconds` together; None after none."""
        known = self.up_to(done)
        return seconds / known * (self.up_to(max(self.total, done)) - known) / workers if done else None


@dataclass(frozen=True)
class Plan:
    """What a search is about to do.

    Args:
        run_dir: the run folder.
        metric: the target.
        rounds: all rounds, those done included.
        candidates: per round.
        workers: how many trainings run at the same time.
        amount: all trainings.
        done: how many of them the ledger already has (a resumed run).
        first_round: the round it goes on with.
        seconds_per_training: as measured just now; None: nobody measured it, or the measurement failed.
    """

    run_dir: Path
    metric: str
    rounds: int
    candidates: int
    workers: int
    amount: Amount
    done: int
    first_round: int
    seconds_per_training: float | None = None

    @property
    def total(self) -> int:
        """How many trainings there are."""
        return self.amount.total


def expected_seconds(plan: Plan, per_training: float) -> float:
    """Seconds of what a plan still has to do: rounds wait for their slowest, the rest fills all workers."""
    amount, begun, waves = plan.amount, plan.done - plan.first_round * plan.candidates, 0
    left = amount.up_to(amount.total) - amount.up_to(plan.done)
    for _ in range(plan.first_round, plan.rounds):
        of_round = plan.candidates - min(begun, plan.candidates)
        begun -= plan.candidates - of_round
        left -= of_round
        waves += math.ceil(of_round / plan.workers)
    return (waves + math.ceil(left / plan.workers)) * per_training


@dataclass(frozen=True)
class Progress:
    """How far a search is.

    Args:
        done: trainings with a result.
        total: all trainings, confirmation included.
        best: the candidate with the highest reward so far.
        seconds_left: estimate for the rest of the run; None before anything ended.
    """

    done: int
    total: int
    best: TrialRecord | None
    seconds_left: float | None


@dataclass(frozen=True)
class RoundSummary:
    """One round, after the controller was told.

    Args:
        round: which, from 0.
        records: its candidates in order.
        mean_reward: of those that completed; NaN if none did.
        best_reward: likewise.
    """

    round: int
    records: tuple[TrialRecord, ...]
    mean_reward: float
    best_reward: float

    @classmethod
    def of(cls, round: int, records: Sequence[TrialRecord]) -> RoundSummary:
        """Of these candidates, all of which have a result."""
        rewards = [record.reward for record in records if record.state == COMPLETE]
        mean, best = (fmean(rewards), max(rewards)) if rewards else (math.nan, math.nan)
        return cls(round, tuple(records), mean, best)


class Observer:
    """Told what happens, after it is in the ledger. Does nothing: subclass it and override what matters."""

    def started(self, plan: Plan) -> None:
        """The search begins, or goes on."""

    def trained(self, record: TrialRecord, progress: Progress) -> None:
        """A training ended, well or badly."""

    def round_done(self, summary: RoundSummary, progress: Progress) -> None:
        """All candidates of a round have a result and the controller knows them."""

    def confirming(self, trainings: int) -> None:
        """The confirmation begins."""

    def warning(self, text: str) -> None:
        """Something the user should know."""

    def finished(self, result: SearchResult) -> None:
        """The search is over."""

    def close(self) -> None:
        """Nothing more will be told; also called after an error or an interruption."""


class Observers(Observer):
    """Tells several. One that fails (no network, no space) is left out from then on: the search goes on."""

    def __init__(self, members: Sequence[Observer] = ()) -> None:
        self._members = list(members)

    def _tell(self, event: str, *values: object) -> None:
        for member in list(self._members):
            try:
                getattr(member, event)(*values)
            except Exception:
                self._members.remove(member)
                logger.warning("%s failed and is told nothing more", type(member).__name__, exc_info=True)


# Every event of `Observer`, the next one that is added too: one that is forgotten here would reach nobody, unsaid.
for _event in (name for name in vars(Observer) if not name.startswith("_")):
    setattr(Observers, _event, partialmethod(Observers._tell, _event))
