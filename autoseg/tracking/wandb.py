"""Sends a search to Weights & Biases, offline or online; off by default, and never with a prompt."""

from __future__ import annotations

import logging
import math
import uuid
from pathlib import Path
from typing import Any, Literal

import wandb

from autoseg.errors import InputError, first_line
from autoseg.files import write_atomic
from autoseg.search.observer import Observer, Progress, RoundSummary
from autoseg.store.records import SearchResult, TrialRecord
from autoseg.tracking.log import candidate_values

FINISH_S = 60.0  # how long the end of a run waits for its last points to arrive; they are in its folder in any case

Mode = Literal["online", "offline"]
logger = logging.getLogger(__name__)


def reachable(mode: str) -> Mode:
    """Return the mode that works: "offline" if "online" is set and W&B does not answer, which is logged.

    Raises:
        InputError: online, and this machine has no W&B account set up.
    """
    if mode != "online":
        return "offline"
    try:
        known = wandb.login(prompt=False)
    except wandb.errors.CommError as error:
        return _kept_offline(error)
    if not known:
        raise InputError("tracker.wandb", "an account", "none", "Run wandb login, or use tracker.wandb=offline.")
    return "online"


def _kept_offline(error: Exception) -> Mode:
    reason = first_line(error)
    logger.warning("W&B cannot be reached, `wandb sync` can send later what is kept in the run's folder: %s", reason)
    return "offline"


def _id(folder: Path) -> str:
    """Return the run's id in W&B, stored in its folder, since several runs may have folders of one name."""
    file = folder / "wandb" / "id"
    known = file.read_text(encoding="utf-8").strip() if file.is_file() else ""
    if not known:  # empty: a killed process of an earlier version was writing it
        known = uuid.uuid4().hex[:8]
        file.parent.mkdir(exist_ok=True)
        write_atomic(file, known)
    return known


class WandB(Observer):
    """Sends the same values as `TensorBoard`, with the configuration; a resumed run goes on in the same W&B run.

    If W&B cannot be reached, they are stored in the folder: no search waits for a network. Steps are counted here,
    by the trainings: of a resumed run that is offline, W&B would begin at 0 again and replace the points of before.

    Args:
        folder: the run folder; its name is the run's name.
        project: W&B project.
        mode: "offline" or "online".
        config: plain data shown with the run.

    Raises:
        InputError: online, and this machine has no W&B account set up; or W&B does not accept the project's name.
    """

    def __init__(self, folder: Path, project: str, mode: str, config: dict[str, Any]) -> None:
        limit = {"finish_timeout": FINISH_S} if "finish_timeout" in wandb.Settings.model_fields else {}  # new in 0.31
        start = {
            "project": project,
            "name": folder.name,
            "id": _id(folder),
            "dir": str(folder),
            "resume": "allow",
            "config": config,
            "settings": wandb.Settings(silent=True, console="off", **limit),
        }
        able = reachable(mode)
        try:
            self._run = wandb.init(mode=able, **start)
        except wandb.errors.CommError as error:
            self._run = wandb.init(mode=_kept_offline(error), **start)
        except wandb.errors.UsageError as error:
            raise InputError("tracker", "what W&B takes", first_line(error)) from error
        self._run.define_metric("round/*", step_metric="round/number")

    def trained(self, record: TrialRecord, progress: Progress) -> None:
        """Send a point for the candidate."""
        if record.round >= 0:
            self._log(candidate_values(record), progress.done + record.round)

    def round_done(self, summary: RoundSummary, progress: Progress) -> None:
        """Send a point for the round."""
        self._log(
            {
                "round/number": float(summary.round + 1),
                "round/mean_reward": summary.mean_reward,
                "round/best_reward": summary.best_reward,
            },
            progress.done + summary.round + 1,  # between those of the candidates before and after it
        )

    def finished(self, result: SearchResult) -> None:
        """Set the confirmation's means, in one value, so that those of an earlier confirmation are replaced."""
        self._run.summary["confirmed"] = {row.name: row.mean for row in result.rows}

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()

    def _log(self, values: dict[str, float], step: int) -> None:
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        self._run.log(finite, step=max(step, self._run.step), commit=True)  # a round that is repeated has new points
