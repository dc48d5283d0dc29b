"""Workers that are processes of this machine, one for each slot, and their executor.

In order: `WorkerProcess` controls one process (starts it, sends it the task and jobs, receives from it, kills it and
its children), `Standby` starts processes before there is a task, `ProcessExecutor` runs jobs on them.
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
import psutil

from autoseg.execution.devices import visible_gpus
from autoseg.execution.job import Attempt, Task
from autoseg.execution.worker_pool import Worker, WorkerPool

LEAVE_S = 3.0  # for a released worker to end, more than the `worker.GRACE_S` after which it kills itself


class WorkerProcess(Worker):
    """A spawned interpreter that receives a task, then does one job of it at a time.

    It is a plain subprocess, not a `multiprocessing.Process`: that would run the user's main script again in every
    worker, and could set neither the environment before the interpreter starts nor a session of its own.

    Args:
        slot: "cpu" or "cuda:<index>"; decides the value of CUDA_VISIBLE_DEVICES in the worker.
        threads: CPU threads for its numerical libraries.
        log: file that its standard output and error are appended to until it has its task; None: they are dropped.
        prepare: a pickled function that the worker calls before there is a task; None: no call.
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
        with contextlib.suppress(OSError):  # it is dead, which the next poll finds
            self.pipe.send(message)

    def has_message(self) -> bool:
        """Return whether there is a message; also true at the end of the pipe, where `receive` raises."""
        return self.pipe.poll()

    def receive(self) -> Attempt | str | None:
        """Return the next message (see `worker.main`), which must be there; raise EOFError if the worker is dead."""
        try:
            message: Attempt | str | None = self.pipe.recv()
        except OSError as error:
            raise EOFError from error
        return message

    def dead(self) -> bool:
        """Return whether the process has ended; it is not reaped yet, so its id still names its children."""
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            try:
                return psutil.Process(self._process.pid).status() == psutil.STATUS_ZOMBIE
            except psutil.NoSuchProcess:
                return True
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def kill(self) -> str:
        """Kill the process and its children, or those that are left. Return in words how it had ended."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self.pipe.close()
        return _in_words(self._process.wait())

    def release(self) -> None:
        """Tell an idle worker to end by itself: its pipe ends."""
        if self.idle:
            self.pipe.close()

    def leave(self) -> None:
        """Wait for a worker that was released; kill it if it stays, or works.

        Processes that a task started and left behind are killed in either case: no later job needs them.
        """
        if self.idle:
            end = time.monotonic() + LEAVE_S
            while not self.dead() and time.monotonic() < end:
                time.sleep(0.01)
        self.kill()


def _environment(slot: str, threads: int) -> dict[str, str]:
    """Return the worker's environment, with the number of threads and the one device that its libraries may use."""
    gpu = "" if slot == "cpu" else visible_gpus()[int(slot.partition(":")[2])]
    return {**os.environ, **thread_variables(threads), "CUDA_VISIBLE_DEVICES": gpu, "PYTHONUNBUFFERED": "1"}


def thread_variables(threads: int) -> dict[str, str]:
    """Return the environment variables that limit the threads of numerical libraries."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))


def _in_words(code: int) -> str:
    if code >= 0:
        return f"exited with status {code}"
    name = signal.Signals(-code).name
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


class Standby:
    """Worker processes that are started before there is a task, so that both sides import at the same time.

    An executor takes them; those that were not taken are killed at the end of the `with` block.

    Args:
        slots: the device of each, the same as the executor's.
        threads: CPU threads per worker, the same as the executor's.
        prepare: called in each worker at once, to import what a task will need; its result and output are dropped, its
            failure ignored.
        start: False: start no process, for an executor that uses none.
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
        """Return the worker of a slot on the first call, if it is alive; otherwise None."""
        worker = self._pool.pop(index, None)
        if worker is not None and worker.dead():
            worker.kill()
            return None
        return worker

    def close(self) -> None:
        """Kill the workers that were not taken."""
        while self._pool:
            self._pool.popitem()[1].kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ProcessExecutor(WorkerPool[WorkerProcess]):
    """Runs jobs on one spawned process per slot. The processes start with the first run and stay until `close`.

    Args:
        task: called in the workers as `task(payload, device)`; sent to each of them once, by cloudpickle.
        slots: the device of each worker, "cpu" or "cuda:<index>" (see `local_devices`).
        standby: workers for the same slots and threads that have been started already; None: there are none.
        options: threads, timeout_s, retries and log, as in `WorkerPool`.

    Raises:
        WorkerError: from `run`, if the task cannot be loaded in the workers.
        InputError: from `run`, if the task raises it.
    """

    def __init__(self, task: Task, slots: Sequence[str], *, standby: Standby | None = None, **options: Any) -> None:
        super().__init__(task, slots, **options)
        self._standby = standby

    def _new(self, index: int) -> WorkerProcess:
        """Return the standby worker of the slot, or a new one."""
        worker = self._standby.take(index) if self._standby is not None else None
        return worker or WorkerProcess(self._slots[index], self._threads, self._log)

    def _wait(self, workers: Sequence[WorkerProcess], seconds: float) -> None:
        """Wait on the pipes: they show a death at once, unless a surviving child holds the pipe open."""
        wait([worker.pipe for worker in workers], seconds)
