"""Writes TensorBoard files of a search, without torch."""

from __future__ import annotations

import math
from pathlib import Path

from tensorboard.summary import Writer

from autoseg.search.observer import Observer, Progress, RoundSummary
from autoseg.store.records import TrialRecord
from autoseg.tracking.log import candidate_values


class TensorBoard(Observer):
    """Writes scalars: every candidate's reward, scores and time by training, mean and best by round.

    Args:
        folder: created if missing; `tensorboard --logdir FOLDER` shows it.
    """

    def __init__(self, folder: Path) -> None:
        self._writer = Writer(str(folder))

    def trained(self, record: TrialRecord, progress: Progress) -> None:
        """Write a point for the training; the step is the number of trainings that have ended."""
        if record.round >= 0:
            self._write(candidate_values(record), progress.done)

    def round_done(self, summary: RoundSummary, progress: Progress) -> None:
        """Write a point for the round, and flush the file."""
        self._write(
            {"round/mean_reward": summary.mean_reward, "round/best_reward": summary.best_reward}, summary.round + 1
        )
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _write(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            if math.isfinite(value):
                self._writer.add_scalar(name, value, step)
