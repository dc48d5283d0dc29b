"""The executor with processes: one worker per slot, each replaced when it dies or hangs."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Self

import cloudpickle

from autoseg.errors import AutosegError
from autoseg.execution.job import Attempt, Job, Outcome, State, Task
from autoseg.execution.process import WorkerProcess
from autoseg.execution.standby import Standby

LEAST_LIMIT_S = 600.0  # automatic time limit: ten times the longest job of its kind so far, at least this ...
FIRST_LIMIT_S = 4 * 3600.0  # ... and this while none of its kind has ended, to tell how long one takes
START_LIMIT_S = 300.0  # for a worker to import and unpickle the task
START_TRIES = 3
POLL_S = 1.0  # a death is seen at once on the pipe, unless a surviving child holds it open

Result = tuple[Job, Outcome]


class WorkerError(AutosegError):
    """The workers cannot run the task at all: it does not unpickle there, or they die before they have it."""


class ProcessExecutor:
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
        self._task: bytes = cloudpickle.dumps(task)
        self._slots, self._threads, self._log = list(slots), threads, log
        self._timeout_s, self._retries = timeout_s, retries
        self._standby = standby
        self._longest_s: dict[str, float] = {}  # by kind of job
        self._crew: dict[int, WorkerProcess] = {}  # by the index of the slot
        self._false_starts = 0

    @property
    def workers(self) -> int:
        """How many jobs run at the same time."""
        return len(self._slots)

    def run(self, jobs: Sequence[Job]) -> Iterator[Result]:
        """Yield every job once with its outcome, as they end. Left early, it kills workers still at work."""
        waiting = deque((job, 1) for job in jobs)
        for index in range(min(len(self._slots), len(jobs))):
            if index not in self._crew:
                self._hire(index)
        try:
            while waiting or any(worker.job for worker in self._crew.values()):
                for worker in self._crew.values():
                    if waiting and worker.idle:
                        worker.start(*waiting.popleft())
                wait([worker.pipe for worker in self._crew.values()], self._patience())
                for index in list(self._crew):
                    yield from self._look(index, waiting)
        finally:
            self._dismiss([index for index, worker in self._crew.items() if worker.job])

    def close(self) -> None:
        """Stop all workers: idle ones leave by themselves, the others are killed."""
        self._dismiss(list(self._crew))

    def _hire(self, index: int) -> None:
        """Put a worker on a slot, in the place of the one that was there: one that stands by, or a new one."""
        worker = self._standby.take(index) if self._standby is not None else None
        self._crew[index] = worker or WorkerProcess(self._slots[index], self._threads, self._log)
        self._crew[index].give(self._task, self._log)

    def _dismiss(self, indices: list[int]) -> None:
        for index in indices:
            self._crew.pop(index).leave()

    def _look(self, index: int, waiting: deque[tuple[Job, int]]) -> Iterator[Result]:
        """See what one worker has to say; replace it if it cannot go on."""
        worker = self._crew[index]
        try:
            if worker.pipe.poll():
                yield from self._heard(index, worker.hear(), waiting)
            elif worker.dead():
                raise EOFError
            elif time.monotonic() - worker.since > self._limit(worker):
                limit = f"took longer than {self._limit(worker):.0f} s"
                worker.kill()
                yield from self._lost(index, "timeout", limit, waiting)
        except EOFError:
            yield from self._lost(index, "failed", f"the worker {worker.kill()}", waiting)

    def _heard(self, index: int, message: Attempt | str | None, waiting: deque[tuple[Job, int]]) -> Iterator[Result]:
        worker = self._crew[index]
        if isinstance(message, str):
            raise WorkerError(f"The task cannot be loaded in a worker process:\n{message}")
        if message is None:
            worker.ready, self._false_starts = True, 0
            return
        if message.wrong_input is not None:
            raise message.wrong_input
        job, attempts = worker.job, worker.attempts
        assert job is not None  # a worker speaks when spoken to
        worker.job = None
        outcome = dataclasses.replace(message.outcome, attempts=attempts, device=worker.slot)
        if outcome.state == "complete":
            self._longest_s[job.kind] = max(outcome.seconds, self._longest_s.get(job.kind, 0.0))
        if outcome.state == "failed" and (message.out_of_memory or worker.slot != "cpu"):
            worker.kill()  # an error on a GPU can leave its context unusable for the next job
            self._hire(index)
        if message.out_of_memory and attempts <= self._retries:
            waiting.appendleft((job, attempts + 1))
        else:
            yield job, outcome

    def _lost(self, index: int, state: State, reason: str, waiting: deque[tuple[Job, int]]) -> Iterator[Result]:
        """A worker is gone: put another in its place, and its job back into the queue or out as a failure."""
        worker = self._crew[index]
        if not worker.ready and worker.job is None:
            self._false_starts += 1
            if self._false_starts >= START_TRIES:
                del self._crew[index]
                raise WorkerError(f"No worker process could start: {reason}. Its output: {self._log or 'not kept'}.")
        self._hire(index)
        if worker.job is None:
            return
        if worker.attempts <= self._retries:
            waiting.appendleft((worker.job, worker.attempts + 1))
        else:
            seconds = time.monotonic() - worker.since
            yield worker.job, Outcome(state, {}, seconds, worker.attempts, reason, worker.slot)

    def _limit(self, worker: WorkerProcess) -> float:
        if worker.job is None:
            return START_LIMIT_S if not worker.ready else float("inf")
        if self._timeout_s is not None:
            return self._timeout_s
        longest_s = self._longest_s.get(worker.job.kind)
        return FIRST_LIMIT_S if longest_s is None else max(LEAST_LIMIT_S, 10 * longest_s)

    def _patience(self) -> float:
        """Seconds until the next look at the workers, at the latest."""
        now = time.monotonic()
        left = [self._limit(worker) - (now - worker.since) for worker in self._crew.values()]
        return max(0.0, min([POLL_S, *left]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
