"""The executor without processes: for tests, debuggers and environments that are themselves workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from autoseg.execution.job import Executor, Job, Outcome, Task, attempt


class InlineExecutor(Executor):
    """Runs jobs one after the other in this process; cannot survive a crash or stop a task that hangs.

    Args:
        task: called as `task(payload, device)`.
        device: "cpu" or "cuda:<index>".
    """

    workers = 1

    def __init__(self, task: Task, device: str = "cpu") -> None:
        self._task, self._device = task, device

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Yield `(job, outcome)` in the given order; a job starts when the iterator is advanced to it."""
        for job in jobs:
            tried = attempt(self._task, job.payload, self._device)
            if tried.wrong_input is not None:
                raise tried.wrong_input
            yield job, tried.outcome
