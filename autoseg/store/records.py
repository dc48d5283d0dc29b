"""The values that travel through a search: frozen, plain, and without heavy imports, so that all use them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoseg.store.paired import Paired, Summary

RUNNING = "running"
COMPLETE = "complete"
FAILED = "failed"
TIMEOUT = "timeout"
PRUNED = "pruned"

RETRYABLE = (FAILED, TIMEOUT)  # may go better the next time, where the others would come out the same


def usable(score: float) -> bool:
    """Whether it is a number that means and deviations can be taken of: finite, and so is the square of many."""
    return abs(score) < 1e100


def percent(share: float, digits: int = 1) -> str:
    """A score as people write it: 0.4312 is 43.1, NaN a dash."""
    return "–" if math.isnan(share) else f"{100 * share:.{digits}f}"


def duration(seconds: float) -> str:
    """Rounded to what an estimate is worth: "40 s", "3 min", "1 h 20 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def counted(number: int, what: str) -> str:
    """A number of things: "1 round", "2 rounds"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class TrialRecord:
    """One training in the ledger: planned before it runs, with its result afterwards.

    Args:
        round: the controller's round it was asked in, from 0; -1 outside the rounds. People are shown it from 1.
        index: its place in the round, or among the entries of the confirmation.
        kind: "candidate" (a θ of the search) or "rival" (identity curves, a hand-made loss).
        name: what is trained: "candidate 3.5" (`round` 3, `index` 5: the sixth of the fourth), "mean 8" (the
            controller's after 8 rounds), "identity", or the name of a hand-made loss. With the seed, it is unique in a
            study.
        theta: raw θ in [0, 1]^d; None for a hand-made loss.
        seed: seed of the training.
        state: "running" (no result yet), "complete", "pruned" (stopped early), "diverged", "failed" or "timeout".
        scores: every score the training returned; empty unless complete.
        reward: what the controller is told; of a pruned one, what it would have come to (`rungs.Rungs.expected`); NaN
            of all others that are not complete.
        seconds: wall-clock time of the last attempt.
        attempts: how often it was started.
        error: why it is not complete.
        number: its number in the Optuna study; -1 before it is recorded.
        ended: Unix time of its result; 0 before.
        rungs: the target's scores on the way, by iteration, in that order; empty unless they were asked for.
    """

    round: int
    index: int
    kind: str
    name: str
    theta: tuple[float, ...] | None
    seed: int
    state: str = RUNNING
    scores: dict[str, float] = field(default_factory=dict)
    reward: float = math.nan
    seconds: float = 0.0
    attempts: int = 0
    error: str = ""
    number: int = -1
    ended: float = field(default=0.0, compare=False)
    rungs: dict[int, float] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, int]:
        """What identifies a training within a study, in every process that plans it."""
        return self.name, self.seed

    @property
    def why(self) -> str:
        """The last line of `error`, which says what happened; empty if nothing did."""
        return (self.error.strip().splitlines() or [""])[-1]

    @property
    def payload(self) -> dict[str, Any]:
        """What the worker is sent."""
        what = {"loss": self.name} if self.theta is None else {"theta": list(self.theta)}
        return {**what, "seed": self.seed}


def by_round(records: Iterable[TrialRecord]) -> list[list[TrialRecord]]:
    """The candidates of each round, both in their order."""
    rounds: dict[int, list[TrialRecord]] = {}
    for record in sorted(records, key=lambda record: (record.round, record.index)):
        rounds.setdefault(record.round, []).append(record)
    return list(rounds.values())


@dataclass(frozen=True)
class Finding:
    """A θ worth a loss card.

    Args:
        name: as in `TrialRecord`.
        theta: raw θ.
        reward: mean reward over the seeds.
        scores: mean of every score over the seeds.
        seeds: what it was trained with.
        confirmed: whether these are the fresh seeds of the confirmation.
        iters: of each of these trainings, where the confirmation's are longer than the search's; None elsewhere.
    """

    name: str
    theta: tuple[float, ...]
    reward: float
    scores: dict[str, float]
    seeds: tuple[int, ...]
    confirmed: bool
    iters: int | None = None


@dataclass(frozen=True)
class Row(Summary):
    """One line of the confirmation's table: an entry's target metric over the fresh seeds.

    Args:
        name: as in `TrialRecord`.
        kind: "candidate" or "rival".
        theta: raw θ; None for a hand-made loss.
        reward: mean reward of the completed ones (the target metric unless a floor cuts it).
        scores: mean of every score over the completed ones.
    """

    name: str
    kind: str
    theta: tuple[float, ...] | None
    reward: float
    scores: dict[str, float]

    @property
    def cut(self) -> bool:
        """Whether a floor took something of its reward, which rows are ordered by."""
        return self.n > 0 and self.mean - self.reward > 1e-9


@dataclass(frozen=True)
class Comparison(Paired):
    """The winner against the rival of this name, seed by seed."""

    rival: str


@dataclass(frozen=True)
class SearchResult:
    """What a search ends with.

    Args:
        run_dir: the run folder.
        metric: the target.
        best: the winner of the confirmation, or without one the best candidate of the search.
        rows: the confirmation's table, best first; empty without a confirmation.
        comparisons: the winner against every rival.
        warnings: what the user should know before using the loss.
    """

    run_dir: Path
    metric: str
    best: Finding
    rows: tuple[Row, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    warnings: tuple[str, ...] = ()
