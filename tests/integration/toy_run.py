"""One whole search, as a process of its own."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "unit"))
from toy_search import NAMES, ToyController, ToyTask, search, settings

from autoseg.controllers import build_controller
from autoseg.execution import ProcessExecutor
from autoseg.search.observer import Observer


class Announcer(Observer):
    """Says when there is something to interrupt."""

    def __init__(self, killed_after: int | None) -> None:
        self.killed_after = killed_after

    def started(self, plan: Any) -> None:
        print("started", flush=True)

    def trained(self, record: Any, progress: Any) -> None:
        print(progress.done, "of", progress.total, flush=True)
        if self.killed_after is not None and progress.done >= self.killed_after:
            # From another thread: in the middle of anything.
            threading.Timer(random.uniform(0, 0.01), os.kill, (os.getpid(), signal.SIGKILL)).start()

    def finished(self, result: Any) -> None:
        print("winner", result.best, flush=True)


def run(folder: str, rounds: str, name: str, killed_after: str | None = None) -> None:
    """Search in a folder; kill itself a moment after so many results, by a signal that no program can catch."""
    controller = ToyController() if name == "toy" else build_controller(name, len(NAMES), seed=3)
    announcer = Announcer(None if killed_after is None else int(killed_after))
    with ProcessExecutor(ToyTask(seconds=0.01), ["cpu", "cpu"]) as executor:
        plan = settings(int(rounds), 4)
        search(Path(folder), plan, executor=executor, observer=announcer, controller=controller)
