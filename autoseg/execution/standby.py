"""Workers that are started before there is a task for them, so that both sides import at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import cloudpickle

from autoseg.execution.process import WorkerProcess


class Standby:
    """Worker processes that wait for an executor to take them; what none took is killed at the end of the `with`.

    Args:
        slots: the device of each, as the executor will be given them.
        threads: CPU threads per worker, likewise.
        prepare: called in each at once, to import what a task will need; its result is dropped and its failure ignored.
            What it prints is dropped too.
        start: False: no process is started, for an executor without any.
    """

    def __init__(
        self, slots: Sequence[str], threads: int, prepare: Callable[[], object], *, start: bool = True
    ) -> None:
        self.slots, self.threads = list(slots), threads
        self._crew: dict[int, WorkerProcess] = {}  # by the index of the slot
        pickled = cloudpickle.dumps(prepare)
        for index, slot in enumerate(slots if start else ()):
            self._crew[index] = WorkerProcess(slot, threads, prepare=pickled)

    def take(self, index: int) -> WorkerProcess | None:
        """The worker of a slot, the first time; None if it has died."""
        worker = self._crew.pop(index, None)
        if worker is not None and worker.dead():
            worker.kill()
            return None
        return worker

    def close(self) -> None:
        """Kill those that were not taken."""
        while self._crew:
            self._crew.popitem()[1].kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
