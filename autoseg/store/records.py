"""The records of a search: frozen, plain, and without heavy imports, so that all parts can use them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoseg.config import PAPER_METRICS
from autoseg.store.paired import Paired, Summary, paired

RUNNING = "running"
COMPLETE = "complete"
FAILED = "failed"
TIMEOUT = "timeout"
PRUNED = "pruned"

RETRYABLE = (FAILED, TIMEOUT)  # may complete the next time; the others would end the same way


def usable(score: float) -> bool:
    """Return whether a score is finite and small enough for means and variances of many to be finite."""
    return abs(score) < 1e100


def percent(share: float, digits: int = 1) -> str:
    """Format a score for people: 0.4312 is 43.1, NaN a dash."""
    return "–" if math.isnan(share) else f"{100 * share:.{digits}f}"


def duration(seconds: float) -> str:
    """Format a duration, rounded to the precision of an estimate: "40 s", "3 min", "1 h 20 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def counted(number: int, what: str) -> str:
    """Format a number of things: "1 round", "2 rounds"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class TrialRecord:
    """One training in the ledger: planned before it runs, with its result afterwards.

    Args:
        round: round in which the controller proposed it, from 0; -1 outside the rounds. Messages count from 1.
        index: its place in the round, or among the entries of the confirmation.
        kind: "candidate" (a θ of the search) or "rival" (identity curves, a hand-made loss).
        name: what is trained: "candidate 3.5" (`round` 3, `index` 5: the sixth of the fourth), "mean 8" (the
            controller's after 8 rounds), "identity", or the name of a hand-made loss. Unique in a study together with
            the seed.
        theta: raw θ in [0, 1]^d; None for a hand-made loss.
        seed: seed of the training.
        state: "running" (no result yet), "complete", "pruned" (stopped early), "diverged", "failed" or "timeout".
        scores: every score the training returned; empty unless complete.
        reward: the reward given to the controller; for a pruned training an estimate (`rungs.Rungs.expected`), NaN for
            all others that are not complete.
        seconds: wall-clock time of the last attempt.
        attempts: how often it was started.
        error: why it is not complete.
        number: its number in the Optuna study; -1 before it is recorded.
        ended: Unix time of its result; 0 before.
        rungs: intermediate scores of the target by iteration, ascending; empty unless the search has rungs.
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
        """The name and the seed, which identify a training within a study in every process that plans it."""
        return self.name, self.seed

    @property
    def why(self) -> str:
        """The last line of `error`, which says what happened; empty if there was no error."""
        return (self.error.strip().splitlines() or [""])[-1]

    @property
    def payload(self) -> dict[str, Any]:
        """The plain data that the worker is sent."""
        what = {"loss": self.name} if self.theta is None else {"theta": list(self.theta)}
        return {**what, "seed": self.seed}


def by_round(records: Iterable[TrialRecord]) -> list[list[TrialRecord]]:
    """Return the candidates of each round, rounds and candidates in order."""
    rounds: dict[int, list[TrialRecord]] = {}
    for record in sorted(records, key=lambda record: (record.round, record.index)):
        rounds.setdefault(record.round, []).append(record)
    return list(rounds.values())


@dataclass(frozen=True)
class Finding:
    """A θ for which a loss card is written.

    Args:
        name: as in `TrialRecord`.
        theta: raw θ.
        reward: mean reward over the seeds.
        scores: mean of every score over the seeds.
        seeds: the seeds it was trained with.
        confirmed: whether these are the fresh seeds of the confirmation.
        iters: iterations of each training, if the confirmation's are longer than the search's; None otherwise.
        behind: names of the rivals that are ahead of it, the best first; none without a confirmation.
    """

    name: str
    theta: tuple[float, ...]
    reward: float
    scores: dict[str, float]
    seeds: tuple[int, ...]
    confirmed: bool
    iters: int | None = None
    behind: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row(Summary):
    """One line of the confirmation's table: an entry's target metric over the fresh seeds.

    Args:
        name: as in `TrialRecord`.
        kind: "candidate" or "rival".
        theta: raw θ; None for a hand-made loss.
        reward: mean reward of the completed trainings (the target metric unless a floor reduces it).
        scores: mean of every score over the completed trainings.
    """

    name: str
    kind: str
    theta: tuple[float, ...] | None
    reward: float
    scores: dict[str, float]

    @property
    def cut(self) -> bool:
        """Whether a floor has reduced the reward, by which rows are ordered."""
        return self.n > 0 and self.mean - self.reward > 1e-9


@dataclass(frozen=True)
class Comparison(Paired):
    """The winner compared with the rival of this name, seed by seed."""

    rival: str


@dataclass(frozen=True)
class SearchResult:
    """The result of a search.

    Args:
        run_dir: the run folder.
        metric: the target.
        best: the winner of the confirmation, or without one the best candidate of the search.
        rows: the confirmation's table, best first; empty without a confirmation.
        comparisons: the winner compared with every rival.
        warnings: what the user should know before using the loss.
    """

    run_dir: Path
    metric: str
    best: Finding
    rows: tuple[Row, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As a command ends: the table, a sentence, where the loss is and what to know of it."""
        warned = [f"warning: {text}" for text in self.warnings]
        return "\n".join([*table(self), sentence(self), f"The loss: {self.run_dir / 'loss.json'}", *warned])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What a notebook shows of it."""
        printer.text(str(self))


def table(result: SearchResult) -> list[str]:
    """Return the confirmation as lines of text, best first: the target with its spread, then the paper's metrics.

    If a floor reduces a reward, the reward is a column too.
    """
    if not result.rows:
        return []
    from autoseg.metrics import names

    others = [name for name in (*PAPER_METRICS, *names()) if name != result.metric and name in result.best.scores]
    others = list(dict.fromkeys(others))[:6]
    width = max(len(row.name) for row in result.rows) + 2
    columns = ["reward", *others] if any(row.cut for row in result.rows) else others
    head = f"{'loss':<{width}}{result.metric:>13}  " + "".join(f"{name:>8}" for name in columns)
    lines = [_line(row, width, columns, row.name == result.best.name) for row in result.rows]
    seeds, iters = len(result.rows[0].values), result.best.iters
    budget = f"Same budget of {iters} iterations" if iters else "Same budget"
    return [
        f"{budget}, {counted(seeds, 'fresh seed')}, held-out images, percent (mean ± std; * the loss found):",
        head,
        *lines,
    ]


def ahead_of(found: Row, rows: Iterable[Row]) -> list[Row]:
    """Return the rivals that are ahead of the loss found, seed by seed, the best first.

    Those that a floor cuts below it, or that failed more often, are not among them.
    """
    rivals = [row for row in rows if row.kind == "rival" and row.n >= found.n and row.reward > found.reward]
    return sorted((row for row in rivals if paired(row.values, found.values).mean > 0), key=lambda row: -row.mean)


def below_floor(rival: Row, found: Row) -> bool:
    """Return whether a rival's mean is higher than that of the loss found, but not its reward, which a floor cuts."""
    return rival.cut and rival.mean > found.mean and rival.reward <= found.reward


def _line(row: Row, width: int, columns: list[str], won: bool) -> str:
    spread = f"{percent(row.mean)} ± {percent(row.std)}" + ("*" if won else " ")
    failed = f"   ({len(row.values) - row.n} failed)" if row.n < len(row.values) else ""
    shown = {**row.scores, "reward": row.reward}
    scores = "".join(f"{percent(shown.get(name, math.nan)):>8}" for name in columns)
    return f"{row.name:<{width}}{spread:>14} {scores}{failed}"


def lead(found: Row, rival: Row) -> tuple[float, str]:
    """Return by how many points a loss is ahead of another, seed by seed, also in words: some seeds may have failed.

    It is rounded as it is printed: at 0 they are level.
    """
    difference = paired(found.values, rival.values)
    points = round(100 * difference.mean, 1)
    over = f" over {counted(difference.n, 'seed')}" if difference.n < len(found.values) else ""
    return points, f"{f'{points:+.1f}' if points else '0.0'}{over}" if difference.n else "no seed in common"


def sentence(result: SearchResult) -> str:
    """Describe the loss that was found in a sentence, compared with losses that need no search."""
    best = result.best
    if not best.confirmed:
        return (
            f"Found a loss for {result.metric}: {percent(best.reward)} with the search's own seed, not confirmed with"
            " fresh ones, so part of it may be luck."
        )
    rivals = [row for row in result.rows if row.kind == "rival" and row.n]
    own = next(row for row in result.rows if row.name == best.name)
    leads = {row.name: lead(own, row) for row in rivals}
    behind = [row.name for row in ahead_of(own, result.rows) if leads[row.name][0]]
    cut = {row.name for row in rivals if below_floor(row, own)}
    floored = {row.name: ", below the floor" if row.name in cut else "" for row in rivals}
    beside = ", ".join(f"{r.name} {percent(r.mean)} ({leads[r.name][1]}{floored[r.name]})" for r in rivals)
    against = f"; under the same budget: {beside}" if beside else ""
    if behind:
        found = f"The best loss found is behind {', '.join(behind)} for"
    else:
        others = [row.name for row in rivals if row.name not in cut and not leads[row.name][0] > 0]
        level = all(leads[name][0] == 0 for name in others)
        found = f"The best loss found is level with {', '.join(others)} for" if others else "Found a loss for"
        found = found if level else "The best loss found is not ahead of every rival for"
    over = counted(len(best.seeds), "fresh seed") + (f" and {best.iters} iterations" if best.iters else "")
    return f"{found} {result.metric}: {percent(own.mean)} over {over}{against}.{_doubt(result)}"


def _doubt(result: SearchResult) -> str:
    """Name the rivals against which the difference may still be luck, and the luck of the choice itself.

    Significance needs five seeds and an interval without 0.
    """
    unsure = [comparison.rival for comparison in result.comparisons if not comparison.significant]
    rule = "that takes five seeds and a clear lead"
    doubt = f" Not statistically certain against {', '.join(unsure)}: {rule}." if unsure else ""
    among = sum(row.kind == "candidate" and row.n > 0 for row in result.rows)
    if among > 1:
        doubt += f" Chosen as the best of {among} with these seeds, so a little optimistic: compare it with fresh ones."
    return doubt
