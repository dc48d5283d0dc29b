"""What a person sees while a search runs: a line per round, and in a terminal a live bar below them.

Elsewhere, in a notebook or a file, a round of hours has a line for each training, at most one a minute.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from autoseg.errors import visible
from autoseg.search.observer import Observer, Plan, RoundSummary, expected_seconds
from autoseg.search.observer import Progress as SearchProgress
from autoseg.store.records import COMPLETE, PRUNED, SearchResult, TrialRecord, counted, duration, percent

SILENT_S = 60.0  # without a bar, nobody is left longer without a line while trainings end
PLAIN: dict[str, Any] = {"highlight": False, "soft_wrap": True, "emoji": False}  # a class may be called a:car:b


class Unread(Console):
    """Goes on when nobody reads it any more (`autoseg search | head`): a search is more than its lines."""

    def on_broken_pipe(self) -> None:
        """Called by rich, whose own would end the process."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def plain_console() -> Console:
    """Stdout, as it is."""
    return Console(**PLAIN)


class Terminal(Observer):
    """Prints progress.

    Args:
        console: where to; default: stdout. The live bar appears only if it is a terminal.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Unread(**PLAIN)
        self._plan: Plan | None = None
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=self.console,
            disable=not self.console.is_terminal,
            refresh_per_second=2,
        )
        self._task: TaskID | None = None
        self._said_at = time.monotonic()

    def started(self, plan: Plan) -> None:
        """Say what will happen; open the bar."""
        self._plan = plan
        goes_on = f", going on after {plan.done} of {plan.total} trainings" if plan.done else ""
        size = f"{counted(plan.rounds, 'round')} of {counted(plan.candidates, 'candidate')}"
        self._say(
            f"Searching a loss for {plan.metric}: {size} on {counted(plan.workers, 'worker')}, "
            f"{plan.total} trainings in all{goes_on}."
        )
        self._say(f"Run folder: {plan.run_dir}")
        if (each := plan.seconds_per_training) is not None:
            whole = duration(expected_seconds(plan, each))
            self._say(f"Expected to take about {whole}: a training takes {duration(each)}, measured just now.")
        self._task = self._bar.add_task("starting", total=plan.total, completed=plan.done, note="")
        self._bar.start()

    def trained(self, record: TrialRecord, progress: SearchProgress) -> None:
        """Move the bar, or say where it would be; say at once if a training went wrong."""
        if record.state not in (COMPLETE, PRUNED):  # of those, the round's line says how many
            self._say(f"  {record.name} (seed {record.seed}) {record.state}: {record.why or 'no reason'}")
        if self._task is not None:
            self._bar.update(self._task, completed=progress.done, description=self._phase(record), note=_note(progress))
        if not self.console.is_terminal and time.monotonic() - self._said_at >= SILENT_S:
            self._say(f"  {progress.done}/{progress.total} trainings   {_note(progress)}")

    def round_done(self, summary: RoundSummary, progress: SearchProgress) -> None:
        """A line for the round."""
        rounds = self._plan.rounds if self._plan else summary.round + 1
        done = f"   ({progress.done}/{progress.total} trainings)   {_note(progress)}"
        self._say(round_text(summary, rounds) + ("" if self.console.is_terminal else done))

    def confirming(self, trainings: int) -> None:
        """Say that the last stage begins."""
        longer = self._plan.amount.longer if self._plan else 1.0
        each = f", each {longer:.3g} times as long" if longer != 1 else ""
        self._say(f"confirming: the best candidates and their rivals with fresh seeds, {trainings} trainings{each}")

    def warning(self, text: str) -> None:
        """Say it."""
        self._say(f"warning: {text}")

    def finished(self, result: SearchResult) -> None:
        """Close the bar; the command says the rest."""
        self.close()

    def close(self) -> None:
        """Take the bar away, so that what is printed next stands below the lines."""
        if self._task is not None:
            self._bar.stop()
            self._task = None

    def _phase(self, record: TrialRecord) -> str:
        if record.round >= 0 and self._plan:
            return f"round {record.round + 1}/{self._plan.rounds}"
        return "confirming" if record.kind == "candidate" or self._plan is None else "rivals"

    def _say(self, text: str) -> None:
        self.console.print(escape(visible(text)))
        self._said_at = time.monotonic()


def _note(progress: SearchProgress) -> str:
    best = f"best {percent(progress.best.reward)}" if progress.best else ""
    left = f"{duration(progress.seconds_left)} left" if progress.seconds_left is not None else ""
    return "   ".join(part for part in (best, left) if part)


def round_text(summary: RoundSummary, rounds: int) -> str:
    """A round in a line; at its end, how many candidates have no score, and why."""
    pruned = sum(record.state == PRUNED for record in summary.records)
    failed = sum(record.state not in (COMPLETE, PRUNED) for record in summary.records)
    lost = (f"   stopped early {pruned}" if pruned else "") + (f"   failed {failed}" if failed else "")
    mean, best = percent(summary.mean_reward), percent(summary.best_reward)
    return f"round {summary.round + 1}/{rounds}   mean {mean}   best {best}{lost}"
