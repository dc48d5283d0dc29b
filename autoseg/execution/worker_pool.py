"""The job loop that all executors with workers share: hand out jobs, find workers that died or hang, replace them."""

from __future__ import annotations

import dataclasses
import logging
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from pickle import PicklingError
from typing import Generic, TypeVar

import cloudpickle

from autoseg.errors import AutosegError, InputError, first_line
from autoseg.execution.job import Attempt, Executor, Job, Outcome, State, Task

LEAST_LIMIT_S = 600.0  # automatic time limit: ten times the longest job of its kind so far, at least this ...
FIRST_LIMIT_S = 4 * 3600.0  # ... and this while no job of its kind has ended
START_LIMIT_S = 300.0  # for a worker to import and unpickle the task
START_TRIES = 3  # of one slot, before the others go on without it
POLL_S = 1.0

Result = tuple[Job, Outcome]
log = logging.getLogger(__name__)


class WorkerError(AutosegError):
    """The workers cannot run the task at all: it cannot be unpickled there, or they die before they have it."""


class Worker(ABC):
    """The search's handle of one worker, which receives a task and then does one job of it at a time.

    Args:
        slot: the device it computes on: "cpu", "cuda:<index>" or, on a cluster, "cuda".
    """

    def __init__(self, slot: str) -> None:
        self.slot = slot
        self.ready = False  # it has its task
        self.job: Job | None = None
        self.attempts = 0
        self.since = time.monotonic()

    def send_task(self, task: bytes, log: Path | None) -> None:
        """Send the pickled task and the file that its output is appended to; the worker is ready once it has both."""
        self.since = time.monotonic()
        self._send((task, log))

    def start(self, job: Job, attempts: int) -> None:
        """Send a job; `attempts` is the number of this attempt, from 1."""
        self.job, self.attempts, self.since = job, attempts, time.monotonic()
        self._send(job.payload)

    @property
    def idle(self) -> bool:
        """Whether the worker is alive, has its task and runs no job."""
        return self.ready and self.job is None and not self.dead()

    @abstractmethod
    def _send(self, message: object) -> None:
        """Send the task with its log, later a payload. Do not raise if the worker is dead: the next poll finds that."""

    @abstractmethod
    def has_message(self) -> bool:
        """Return whether `receive` has something to return or raise."""

    @abstractmethod
    def receive(self) -> Attempt | str | None:
        """Return the next message (see `worker.main`), which must be there; raise EOFError if the worker is dead."""

    @abstractmethod
    def dead(self) -> bool:
        """Return whether the worker has ended, as far as that is known without sending to it."""

    @abstractmethod
    def kill(self) -> str:
        """Kill the worker and the processes it started. Return in words how it had ended."""

    @abstractmethod
    def release(self) -> None:
        """Tell an idle worker to end by itself, so that its task closes what it opened; do not wait for it."""

    @abstractmethod
    def leave(self) -> None:
        """Wait for a worker that `release` told to end; kill it if it stays, or works."""


W = TypeVar("W", bound=Worker)


class WorkerPool(Executor, Generic[W]):
    """Runs jobs on one worker per slot. The workers start with the first run and stay until `close`.

    Args:
        task: called in the workers as `task(payload, device)`; sent to each of them once, by cloudpickle.
        slots: the device of each worker.
        threads: CPU threads per worker; part of what makes a score reproducible.
        timeout_s: time limit of one attempt; None: 4 h until the first job of its kind has completed, then ten times
            the longest of them so far, at least 600 s.
        retries: fresh attempts after a worker died, hung or ran out of memory; an exception is not retried.
        log: file for the workers' output; None: dropped.

    Raises:
        WorkerError: from `run`, if the task cannot be loaded in the workers.
        InputError: the task, which holds the user's `train`, cannot be pickled; from `run`, if the task raises it.
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
    ) -> None:
        try:
            self._task: bytes = cloudpickle.dumps(task)
        except (TypeError, PicklingError) as error:
            hint = "Make inside it what stays with one process, as a lock or an open file."
            raise InputError("task", "what can be sent to a worker", first_line(error), hint) from error
        self._slots, self._threads, self._log = list(slots), threads, log
        self._timeout_s, self._retries = timeout_s, retries
        self._longest_s: dict[str, float] = {}  # by kind of job
        self._pool: dict[int, W] = {}  # by the index of the slot
        self._false_starts: Counter[int] = Counter()  # in a row, by the index of the slot

    @abstractmethod
    def _new(self, index: int) -> W:
        """Return a worker for a slot, without a task yet."""

    @abstractmethod
    def _wait(self, workers: Sequence[W], seconds: float) -> None:
        """Wait until one of the workers sent a message or died, at most `seconds`."""

    @property
    def workers(self) -> int:
        """The number of jobs that run at the same time."""
        return len(self._slots)

    def run(self, jobs: Sequence[Job]) -> Iterator[Result]:
        """Yield every job once with its outcome, as they end.

        Closing the iterator early kills the workers that still run.
        """
        waiting = deque((job, 1) for job in jobs)
        self._fill(len(jobs))
        try:
            while waiting or any(worker.job for worker in self._pool.values()):
                for worker in self._pool.values():
                    if waiting and worker.idle:
                        worker.start(*waiting.popleft())
                self._wait(list(self._pool.values()), self._poll_seconds())
                for index in list(self._pool):
                    yield from self._poll(index, waiting)
        finally:
            self._dismiss([index for index, worker in self._pool.items() if worker.job])

    def close(self) -> None:
        """Stop all workers: idle ones leave by themselves, the others are killed."""
        self._dismiss(list(self._pool))

    def _fill(self, wanted: int) -> None:
        """Start workers until there are `wanted`, or one on each slot that has not been given up."""
        for index in range(len(self._slots)):
            if len(self._pool) < wanted and index not in self._pool and self._false_starts[index] < START_TRIES:
                self._spawn(index)

    def _spawn(self, index: int) -> None:
        """Start a worker on a slot, in place of the one that was there."""
        self._pool[index] = self._new(index)
        self._pool[index].send_task(self._task, self._log)

    def _dismiss(self, indices: list[int]) -> None:
        for index in indices:  # all at once: each may take seconds to end
            self._pool[index].release()
        for index in indices:
            self._pool.pop(index).leave()

    def _poll(self, index: int, waiting: deque[tuple[Job, int]]) -> Iterator[Result]:
        """Read a worker's message or enforce its time limit; replace it if it cannot go on."""
        worker = self._pool[index]
        try:
            if worker.has_message():
                yield from self._on_message(index, worker.receive(), waiting)
            elif worker.dead():
                raise EOFError
            elif time.monotonic() - worker.since > self._limit(worker):
                limit = f"took longer than {round(self._limit(worker), 1):.10g} s"
                worker.kill()
                yield from self._on_death(index, "timeout", limit, waiting)
        except EOFError:
            yield from self._on_death(index, "failed", f"the worker {worker.kill()}", waiting)

    def _on_message(
        self, index: int, message: Attempt | str | None, waiting: deque[tuple[Job, int]]
    ) -> Iterator[Result]:
        worker = self._pool[index]
        if isinstance(message, str):
            raise WorkerError(f"The task cannot be loaded in a worker process:\n{message}")
        if message is None:
            worker.ready, self._false_starts[index] = True, 0
            return
        if message.wrong_input is not None:
            raise message.wrong_input
        job, attempts = worker.job, worker.attempts
        assert job is not None  # a worker only sends answers
        worker.job = None
        outcome = dataclasses.replace(message.outcome, attempts=attempts, device=worker.slot)
        if outcome.state == "complete":
            self._longest_s[job.kind] = max(outcome.seconds / job.longer, self._longest_s.get(job.kind, 0.0))
        if outcome.state == "failed" and (message.out_of_memory or worker.slot != "cpu"):
            worker.kill()  # an error on a GPU can leave its context unusable for the next job
            self._spawn(index)
        if message.out_of_memory and attempts <= self._retries:
            waiting.appendleft((job, attempts + 1))
        else:
            yield job, outcome

    def _on_death(self, index: int, state: State, reason: str, waiting: deque[tuple[Job, int]]) -> Iterator[Result]:
        """Replace a worker that is gone; put its job back into the queue, or yield it as a failure.

        A slot on which none starts is given up, for this run and later ones.

        Raises:
            WorkerError: it was the last slot.
        """
        worker = self._pool[index]
        if not worker.ready and worker.job is None:
            self._false_starts[index] += 1
            if self._false_starts[index] >= START_TRIES:
                del self._pool[index]
                self._fill(len(waiting) + sum(one.job is not None for one in self._pool.values()))
                output = f"Its output: {self._log or 'not kept'}."
                if not self._pool:
                    self._false_starts.clear()  # another run may try again
                    raise WorkerError(f"No worker process could start: {reason}. {output}")
                log.warning("no worker process could start on %s: %s; others go on. %s", worker.slot, reason, output)
                return
        self._spawn(index)
        if worker.job is None:
            return
        if worker.attempts <= self._retries:
            waiting.appendleft((worker.job, worker.attempts + 1))
        else:
            seconds = time.monotonic() - worker.since
            yield worker.job, Outcome(state, {}, seconds, worker.attempts, reason, worker.slot)

    def _limit(self, worker: W) -> float:
        if worker.job is None:
            return START_LIMIT_S if not worker.ready else float("inf")
        if self._timeout_s is not None:
            return self._timeout_s * worker.job.longer
        longest_s = self._longest_s.get(worker.job.kind)
        limit_s = FIRST_LIMIT_S if longest_s is None else max(LEAST_LIMIT_S, 10 * longest_s)
        return limit_s * worker.job.longer

    def _poll_seconds(self) -> float:
        """Return the seconds until the next poll of the workers, at the latest."""
        now = time.monotonic()
        left = [self._limit(worker) - (now - worker.since) for worker in self._pool.values()]
        return max(0.0, min([POLL_S, *left]))
