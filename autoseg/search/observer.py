"""The events of a search that an `Observer` receives, and the numbers that come with them."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partialmethod
from pathlib import Path
from statistics import fmean

from autoseg.interrupts import held_back
from autoseg.store.records import COMPLETE, SearchResult, TrialRecord

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Amount:
    """The number of trainings of a run.

    Args:
        total: all trainings, confirmation included.
        confirming: number of the confirmation's trainings; they come last.
        longer: how many times as long as the others these are.
        together: the most of the others that can run at the same time: the candidates of a round.
    """

    total: int
    confirming: int = 0
    longer: float = 1.0
    together: float = math.inf

    def up_to(self, done: int) -> float:
        """Return the work in the first `done` trainings, in units of a candidate's training."""
        return done + (self.longer - 1) * max(0, done - max(0, self.total - self.confirming))

    def seconds_left(self, done: int, seconds: float, workers: int) -> float | None:
        """Estimate the seconds for the rest, if the first `done` trainings took `seconds` together.

        None if `done` is 0.
        """
        if not done:
            return None
        known = self.up_to(done)
        of_rounds = max(0, self.total - self.confirming - done)
        later = self.up_to(max(self.total, done)) - known - of_rounds
        return seconds / known * (of_rounds / min(workers, self.together) + later / workers)


@dataclass(frozen=True)
class Plan:
    """The work that a search is about to do.

    Args:
        run_dir: the run folder.
        metric: the target.
        rounds: all rounds, those done included.
        candidates: candidates per round.
        workers: number of trainings that run at the same time.
        amount: all trainings.
        done: number of trainings that the ledger already has (a resumed run).
        first_round: the round it goes on with.
        seconds_per_training: measured just before; None: not measured, or the measurement failed.
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
        """The number of trainings."""
        return self.amount.total


def expected_seconds(plan: Plan, per_training: float) -> float:
    """Estimate the seconds that a plan still takes: each round waits for its slowest training, the rest fills all
    workers.
    """
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
    """The progress of a search.

    Args:
        done: trainings with a result.
        total: all trainings, confirmation included.
        best: the candidate with the highest reward so far.
        seconds_left: estimate for the rest of the run; None before the first training has ended.
    """

    done: int
    total: int
    best: TrialRecord | None
    seconds_left: float | None


@dataclass(frozen=True)
class RoundSummary:
    """One round, after the controller was told its rewards.

    Args:
        round: number of the round, from 0.
        records: its candidates in order.
        mean_reward: mean reward of those that completed; NaN if none did.
        best_reward: highest reward of those that completed; NaN if none did.
    """

    round: int
    records: tuple[TrialRecord, ...]
    mean_reward: float
    best_reward: float

    @classmethod
    def of(cls, round: int, records: Sequence[TrialRecord]) -> RoundSummary:
        """Summarise a round from its candidates, all of which have a result."""
        rewards = [record.reward for record in records if record.state == COMPLETE]
        mean, best = (fmean(rewards), max(rewards)) if rewards else (math.nan, math.nan)
        return cls(round, tuple(records), mean, best)


class Observer:
    """Receives the events of a search, after they are in the ledger. Does nothing: override the methods you need."""

    def started(self, plan: Plan) -> None:
        """The search starts, or goes on."""

    def trained(self, record: TrialRecord, progress: Progress) -> None:
        """A training ended, with or without a score."""

    def round_done(self, summary: RoundSummary, progress: Progress) -> None:
        """All candidates of a round have a result, and the controller was told their rewards."""

    def confirming(self, trainings: int) -> None:
        """The confirmation starts."""

    def warning(self, text: str) -> None:
        """There is a warning for the user."""

    def finished(self, result: SearchResult) -> None:
        """The search is over."""

    def close(self) -> None:
        """No more events will come; also called after an error or an interruption."""


class Observers(Observer):
    """Passes events on to several observers.

    One that raises (no network, no space) is removed, and the search goes on. Ctrl-C waits for them: in the middle of
    what they hand to threads of their own, as TensorBoard's writer does, it would leave a queue that never ends.
    """

    def __init__(self, members: Sequence[Observer] = ()) -> None:
        self._members = list(members)

    def _tell(self, event: str, *values: object) -> None:
        with held_back():
            for member in list(self._members):
                try:
                    getattr(member, event)(*values)
                except Exception:
                    self._members.remove(member)
                    logger.warning("%s failed and is told nothing more", type(member).__name__, exc_info=True)


# Every event of `Observer`, also those added later: a forgotten one would reach no observer, without an error.
for _event in (name for name in vars(Observer) if not name.startswith("_")):
    setattr(Observers, _event, partialmethod(Observers._tell, _event))
