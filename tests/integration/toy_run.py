"""One whole search as a process of its own: `toy_run.py FOLDER ROUNDS CONTROLLER [RESULTS]`.

With RESULTS it kills itself a moment after it has so many, by a signal that no program can catch.
"""

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


if __name__ == "__main__":
    folder, rounds, name = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    controller = ToyController() if name == "toy" else build_controller(name, len(NAMES), seed=3)
    announcer = Announcer(int(sys.argv[4]) if len(sys.argv) > 4 else None)
    with ProcessExecutor(ToyTask(seconds=0.01), ["cpu", "cpu"]) as executor:
        search(folder, settings(rounds, 4), executor=executor, observer=announcer, controller=controller)
