"""Progress of runs that are a list of trainings without rounds: one line each, and a log without scores of classes."""

from __future__ import annotations

import dataclasses

from autoseg.errors import visible
from autoseg.search.observer import Observer, Progress
from autoseg.store.records import COMPLETE, TrialRecord, duration, percent
from autoseg.tracking.log import Log


class Lines(Observer):
    """Prints a line per training.

    Args:
        metric: name of the score that is shown.
    """

    def __init__(self, metric: str) -> None:
        self._metric = metric

    def trained(self, record: TrialRecord, progress: Progress) -> None:
        """Print the loss, its score or state, and the time left."""
        print(
            f"  {progress.done:>3}/{progress.total}  {training_line(record, self._metric)}{_left(progress)}", flush=True
        )


def training_line(record: TrialRecord, metric: str) -> str:
    """Describe one training in a line: its loss, its score or state, its duration."""
    came = f"{metric} {percent(record.reward)}" if record.state == COMPLETE else f"{record.state} {record.why}".strip()
    return visible(f"{record.name}  seed {record.seed}  {came}  ({duration(record.seconds)})")


def _left(progress: Progress) -> str:
    if progress.seconds_left is None or progress.done == progress.total:
        return ""
    return f"   about {duration(progress.seconds_left)} left"


class Quieter(Log):
    """The log without the scores of every class, which are in the table."""

    def trained(self, record: TrialRecord, progress: Progress) -> None:
        """See `Log`."""
        scores = {name: score for name, score in record.scores.items() if "/" not in name}
        super().trained(dataclasses.replace(record, scores=scores), progress)
