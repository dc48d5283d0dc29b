"""Weights & Biases: offline or online, off unless asked for, and never a prompt."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import wandb

from autoseg.errors import InputError
from autoseg.search.observer import Observer, Progress, RoundSummary
from autoseg.search.records import COMPLETE, SearchResult, TrialRecord


class WandB(Observer):
    """Sends what TensorBoard gets, with the configuration; a resumed run goes on in the same W&B run.

    Args:
        folder: the run folder; its name is the run's name and id.
        project: W&B project.
        mode: "offline" or "online".
        config: plain data shown with the run.

    Raises:
        InputError: online, and this machine has no W&B account set up.
    """

    def __init__(self, folder: Path, project: str, mode: str, config: dict[str, Any]) -> None:
        if mode == "online" and not wandb.login(prompt=False):
            raise InputError("tracker.wandb", "an account", "none", "Run wandb login, or use tracker.wandb=offline.")
        self._run = wandb.init(
            project=project,
            name=folder.name,
            id=folder.name,
            dir=str(folder),
            mode="online" if mode == "online" else "offline",
            resume="allow",
            config=config,
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("round/*", step_metric="round/number")

    def trained(self, record: TrialRecord, progress: Progress) -> None:
        """A point per candidate."""
        if record.round >= 0:
            values = {
                "candidate/reward": record.reward if record.state == COMPLETE else math.nan,
                "candidate/seconds": record.seconds,
            }
            self._log(values | {f"score/{name}": score for name, score in record.scores.items()})

    def round_done(self, summary: RoundSummary, progress: Progress) -> None:
        """A point per round."""
        self._log(
            {
                "round/number": float(summary.round + 1),
                "round/mean_reward": summary.mean_reward,
                "round/best_reward": summary.best_reward,
            }
        )

    def finished(self, result: SearchResult) -> None:
        """The confirmation's means."""
        self._run.summary.update({f"confirmed/{row.name}": row.mean for row in result.rows})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish(quiet=True)

    def _log(self, values: dict[str, float]) -> None:
        self._run.log({name: value for name, value in values.items() if math.isfinite(value)})
