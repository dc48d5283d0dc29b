"""Observers of a running search: terminal, log file, TensorBoard, W&B."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from autoseg.config import TrackerConfig
from autoseg.search.observer import Observer, Observers
from autoseg.tracking.log import Log
from autoseg.tracking.terminal import Terminal

__all__ = ["Log", "Terminal", "build_observers"]


def build_observers(tracker: TrackerConfig, folder: Path, log: Path, config: dict[str, Any]) -> Observers:
    """Build all observers of one run.

    Args:
        tracker: the services to use.
        folder: the run folder.
        log: the run's log file.
        config: plain data shown by W&B.

    Raises:
        InputError: W&B online without an account, or values that W&B does not accept.
    """
    members: list[Observer] = [Log(log), Terminal()]
    with ExitStack() as opened:
        opened.callback(lambda: Observers(members).close())
        if tracker.tensorboard:
            from autoseg.tracking.tensorboard import TensorBoard

            members.append(TensorBoard(folder / "tensorboard"))
        if tracker.wandb != "disabled":
            from autoseg.tracking.wandb import WandB

            members.append(WandB(folder, tracker.wandb_project, tracker.wandb, config))
        opened.pop_all()  # none was refused: they stay
    return Observers(members)
