"""Workers that are processes of this machine, one for each slot, and the executor of them.

From below: the hold on one process (start it, give it task and jobs, hear from it, kill it and its children), those
that are started before there is a task, the executor.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Pipe, wait
from pathlib import Path
from typing import Any, Self

import cloudpickle

from autoseg.execution.devices import visible_gpus
from autoseg.execution.job import Attempt, Task
from autoseg.execution.worker_pool import Worker, WorkerPool

LEAVE_S = 3.0


class WorkerProcess(Worker):
    """One spawned interpreter that is given a task, then does one job of it at a time.

    A plain subprocess, not `multiprocessing.Process`: that would run the user's main script again in every
    worker, and could set neither the environment before the interpreter starts nor a session of its own.

    Args:
        slot: "cpu" or "cuda:<index>"; decides what CUDA_VISIBLE_DEVICES says in the worker.
        threads: CPU threads for its numerical libraries.
        log: file that its standard output and error are appended to until it has its task; None: nowhere.
        prepare: pickled; called in it before there is a task; None: nothing is.
    """

    def __init__(self, slot: str, threads: int, log: Path | None = None, prepare: bytes | None = None) -> None:
        super().__init__(slot)
        self.pipe, theirs = Pipe()
        device = "cpu" if slot == "cpu" else "cuda:0"  # the only one it sees
        code = f"import sys; sys.path[:] = {sys.path!r}; from autoseg.execution.worker import main; "
        with open(log or os.devnull, "ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code + f"main({theirs.fileno()}, {device!r})"],
                pass_fds=[theirs.fileno()],
                env=_environment(slot, threads),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        theirs.close()
        self._send(prepare)

    def _send(self, message: object) -> None:
        try:
            self.pipe.send(message)
        except OSError:  # it is dead; the next look at it tells
            self.ready = False

    def has_message(self) -> bool:
        """Whether there is a message; at the end of the pipe too, which `receive` raises."""
        return self.pipe.poll()

    def receive(self) -> Attempt | str | None:
        """The next message (see `worker.main`), which must be there; EOFError if the worker is dead."""
        try:
            message: Attempt | str | None = self.pipe.recv()
        except OSError as error:
            raise EOFError from error
        return message

    def dead(self) -> bool:
        """Whether the process has ended; it is not reaped yet, so its id still names its children."""
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def kill(self) -> str:
        """Kill the process and its children, or what is left of them. Returns how it had ended, in words."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self.pipe.close()
        return _in_words(self._process.wait())

    def leave(self) -> None:
        """Let an idle worker end by itself, so that its task closes what it opened; kill it if it stays.

        Processes that a task began and left behind are killed in either case: no later job can want them.
        """
        if self.idle:
            self.pipe.close()
            end = time.monotonic() + LEAVE_S
            while not self.dead() and time.monotonic() < end:
                time.sleep(0.01)
        self.kill()


def _environment(slot: str, threads: int) -> dict[str, str]:
    """What the worker's libraries read when they wake up: threads, and the one device it may see."""
    gpu = "" if slot == "cpu" else visible_gpus()[int(slot.partition(":")[2])]
    return {**os.environ, **thread_variables(threads), "CUDA_VISIBLE_DEVICES": gpu, "PYTHONUNBUFFERED": "1"}


def thread_variables(threads: int) -> dict[str, str]:
    """What numerical libraries read to know how many threads they may start."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))


def _in_words(code: int) -> str:
    if code >= 0:
        return f"exited with status {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


class Standby:
    """Worker processes that wait for an executor to take them; what none took is killed at the end of the `with`.

    They are started before there is a task, so that both sides import at the same time.

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
        self._pool: dict[int, WorkerProcess] = {}  # by the index of the slot
        pickled = cloudpickle.dumps(prepare)
        for index, slot in enumerate(slots if start else ()):
            self._pool[index] = WorkerProcess(slot, threads, prepare=pickled)

    def take(self, index: int) -> WorkerProcess | None:
        """The worker of a slot, the first time; None if it has died."""
        worker = self._pool.pop(index, None)
        if worker is not None and worker.dead():
            worker.kill()
            return None
        return worker

    def close(self) -> None:
        """Kill those that were not taken."""
        while self._pool:
            self._pool.popitem()[1].kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ProcessExecutor(WorkerPool[WorkerProcess]):
    """Runs jobs on one spawned process per slot. They start with the first run and stay until `close`.

    Args:
        task: called in the workers as `task(payload, device)`; sent to each of them once, by cloudpickle.
        slots: the device of each worker, "cpu" or "cuda:<index>" (see `slots()`).
        standby: workers for the same slots and threads that have been started already; None: there are none.
        options: threads, timeout_s, retries and log, as in `WorkerPool`.

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
