"""The executor with processes: one worker per slot of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.connection import wait
from typing import Any

from autoseg.execution.crew import Crew
from autoseg.execution.job import Task
from autoseg.execution.process import WorkerProcess
from autoseg.execution.standby import Standby


class ProcessExecutor(Crew[WorkerProcess]):
    """Runs jobs on one spawned process per slot. They start with the first run and stay until `close`.

    Args:
        task: called in the workers as `task(payload, device)`; sent to each of them once, by cloudpickle.
        slots: the device of each worker, "cpu" or "cuda:<index>" (see `slots()`).
        standby: workers for the same slots and threads that have been started already; None: there are none.
        options: threads, timeout_s, retries and log, as in `Crew`.

    Raises:
        WorkerError: from `run`, if the task does not arrive in the workers.
        InputError: from `run`, if the task raises it.
    """

    def __init__(self, task: Task, slots: Sequence[str], *, standby: Standby | None = None, **options: Any) -> None:
        super().__init__(task, slots, **options)
        self._standby = standby

    def _new(self, index: int) -> WorkerProcess:
        """One that stands by, or a new one."""
        worker = self._standby.take(index) if self._standby is not None else None
        return worker or WorkerProcess(self._slots[index], self._threads, self._log)

    def _wait(self, workers: Sequence[WorkerProcess], seconds: float) -> None:
        """A death is seen at once on the pipe, unless a surviving child holds it open."""
        wait([worker.pipe for worker in workers], seconds)
