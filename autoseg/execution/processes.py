"""The executor with processes: one worker per slot of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path

from autoseg.execution.crew import Crew
from autoseg.execution.job import Task
from autoseg.execution.process import WorkerProcess
from autoseg.execution.standby import Standby


class ProcessExecutor(Crew[WorkerProcess]):
    """Runs jobs on one spawned process per slot. They start with the first run and stay until `close`.

    Args:
        task: called in the workers as `task(payload, device)`; sent to each of them once, by cloudpickle.
        slots: the device of each worker, "cpu" or "cuda:<index>" (see `slots()`).
        threads: CPU threads per worker; part of what makes a score reproducible.
        timeout_s: time limit of one attempt; None: ten times the longest completed job of its kind, at least 600 s.
        retries: fresh attempts after a worker died, hung or ran out of memory; an exception is not retried.
        log: file for the workers' output; None: dropped.
        standby: workers for the same slots and threads that have been started already; None: there are none.

    Raises:
        WorkerError: from `run`, if the task does not arrive in the workers.
        InputError: from `run`, if the task raises it.
    """

    def __init__(
        self,
        task: Task,
        slots: Sequence[str],
        *,
        threads: int = 1,
        timeout_s: float | None = None,
        retries: int = 1,
        log: Path | None = None,
        standby: Standby | None = None,
    ) -> None:
        super().__init__(task, slots, timeout_s=timeout_s, retries=retries, log=log)
        self._threads, self._standby = threads, standby

    def _new(self, index: int) -> WorkerProcess:
        """One that stands by, or a new one."""
        worker = self._standby.take(index) if self._standby is not None else None
        return worker or WorkerProcess(self._slots[index], self._threads, self._log)

    def _wait(self, workers: Sequence[WorkerProcess], seconds: float) -> None:
        """A death is seen at once on the pipe, unless a surviving child holds it open."""
        wait([worker.pipe for worker in workers], seconds)
