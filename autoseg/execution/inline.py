"""The executor without processes: for tests, debuggers and environments that are themselves workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Self

from autoseg.execution.job import Job, Outcome, Task, attempt


class InlineExecutor:
    """Runs jobs one after the other in this process; cannot survive a crash or stop a task that hangs.

    Args:
        task: called as `task(payload, device)`.
        device: "cpu" or "cuda:<index>".
        retries: fresh attempts after a task ran out of memory.
    """

    workers = 1

    def __init__(self, task: Task, device: str = "cpu", *, retries: int = 1) -> None:
        self._task, self._device, self._retries = task, device, retries

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Yield `(job, outcome)` in the order given; a job starts when its outcome is asked for."""
        for job in jobs:
            yield job, self._outcome(job)

    def _outcome(self, job: Job) -> Outcome:
        attempts = 1
        while (tried := attempt(self._task, job.payload, self._device)).out_of_memory:
            if attempts > self._retries:
                break
            attempts += 1
        if tried.wrong_input is not None:
            raise tried.wrong_input
        return dataclasses.replace(tried.outcome, attempts=attempts)

    def close(self) -> None:
        """Nothing to stop."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
