"""One whole search as a process of its own, to be killed at any moment: `toy_run.py FOLDER ROUNDS [CONTROLLER]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "unit"))
from toy_search import NAMES, ToyController, ToyTask, search, settings

from autoseg.controllers import build_controller
from autoseg.execution import ProcessExecutor
from autoseg.search.observer import Observer


class Announcer(Observer):
    """Says when there is something to interrupt."""

    def started(self, plan: Any) -> None:
        print("started", flush=True)

    def finished(self, result: Any) -> None:
        print("winner", result.best, flush=True)


if __name__ == "__main__":
    folder, rounds, name = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    controller = ToyController() if name == "toy" else build_controller(name, len(NAMES), seed=3)
    with ProcessExecutor(ToyTask(seconds=0.01), ["cpu", "cpu"]) as executor:
        search(folder, settings(rounds, 4), executor=executor, observer=Announcer(), controller=controller)
