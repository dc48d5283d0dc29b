"""The executor on several machines: a worker is an actor of a running Ray cluster, which chooses the machine.

The job loop is that of the local processes (`worker_pool`); Ray starts the actors, carries the messages and reports
deaths. All machines need the same packages, and the run folder and the data under the same paths.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.errors import InputError
from autoseg.execution.devices import number_of
from autoseg.execution.job import Attempt, Outcome, Task, attempt
from autoseg.execution.processes import thread_variables
from autoseg.execution.worker import load
from autoseg.execution.worker_pool import Worker, WorkerPool

if TYPE_CHECKING:
    from ray import ObjectRef

INSTALL = 'Install it on all machines: pip install "ray>=2.51.2".'
START = "Start one: ray start --head here, ray start --address=THIS_MACHINE:6379 on the others."


def connect(address: str = "auto") -> None:
    """Connect this process to a cluster, unless it is connected already.

    Args:
        address: "HOST:PORT" of its head, or "auto": the one that runs on this machine, or that RAY_ADDRESS names.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
    except ImportError:
        raise InputError("executor", "an installed Ray", "none", INSTALL) from None
    if ray.is_initialized():
        return
    on_term = signal.getsignal(signal.SIGTERM)
    try:
        _knock(address)
        ray.init(address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        first = str(error).strip().partition("\n")[0].rstrip(".")
        raise InputError("executor.address", "a running Ray cluster", f"{address} ({first})", START) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_term)  # Ray puts its own there


def _knock(address: str) -> None:
    """Raise if nothing answers at the cluster's address: Ray itself would go on trying for minutes."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", address)
    if address == "auto":
        latest = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray", "ray_current_cluster")
        if not latest.is_file():
            return  # Ray looks for one among the processes, and says so if there is none
        address = latest.read_text(encoding="utf-8").strip()
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=10).close()


def cluster_devices(
    workers: str | int = "auto", device: str = "auto", per_device: int = 1, threads: int = 1
) -> list[str]:
    """Return one kind of device per worker of the cluster that this process is connected to.

    Args:
        workers: how many, or "auto": `per_device` for each GPU; on CPU, each machine's cores divided by `threads`.
        device: "auto" (GPUs if there are any), "cpu" or "cuda"; which of them is Ray's to choose.
        per_device: workers that share one GPU.
        threads: CPU threads each worker may use.

    Returns:
        "cpu" or "cuda" for each worker.

    Raises:
        InputError: a GPU where there is none, an unknown device, fewer than one worker.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise InputError("device", "auto, cpu or cuda on a cluster", repr(device), "Ray chooses which.")
    there = machines()
    gpus = sum(has["GPU"] for has in there)
    if device == "cuda" and not gpus:
        raise InputError("device", "a device of the cluster (no GPU)", repr(device), "Use device=cpu.")
    kind = "cuda" if gpus and device != "cpu" else "cpu"
    if str(workers) != "auto":
        return [kind] * number_of(workers)
    if kind == "cuda":
        return [kind] * (gpus * per_device)
    return [kind] * max(1, sum(has["CPU"] // threads for has in there))


def machines() -> list[dict[str, int]]:
    """Return the CPU cores and GPUs of each machine of the cluster: {"CPU": …, "GPU": …}."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [{kind: int(has.get(kind, 0)) for kind in ("CPU", "GPU")} for has in alive]


class RayWorker(Worker):
    """A Ray actor, which exchanges the same messages as a `WorkerProcess`.

    Args:
        slot: "cpu" or "cuda".
        share: the part of a GPU that it reserves, or the number of CPU cores.
        threads: CPU threads for its numerical libraries.
    """

    def __init__(self, slot: str, share: float, threads: int) -> None:
        import ray

        super().__init__(slot)
        takes = {"num_cpus": share} if slot == "cpu" else {"num_cpus": 0, "num_gpus": share}
        actor = ray.remote(**takes, max_restarts=0)(_Actor)
        self._actor = actor.remote(sys.path, os.getcwd(), slot, threads)
        self.reply: ObjectRef[Any] | None = None  # the pending answer
        self._end = "was stopped"

    def send_task(self, task: bytes, log: Path | None) -> None:
        """Send the task; the log's path is made absolute, since an actor starts in a folder of Ray's."""
        super().send_task(task, log and log.absolute())

    def _send(self, message: object) -> None:
        self.reply = self._actor.answer.remote(message)

    def has_message(self) -> bool:
        """Return whether there is an answer, or the actor has died."""
        import ray

        return self.reply is not None and bool(ray.wait([self.reply], timeout=0)[0])

    def receive(self) -> Attempt | str | None:
        """Return the answer, which must be there; raise EOFError if the actor is dead."""
        import ray

        reply, self.reply = self.reply, None
        try:
            message: Attempt | str | None = ray.get(reply)
        except ray.exceptions.RayError as error:
            self._end = f"died: {' '.join(str(error).split())}"
            raise EOFError from error
        return message

    def dead(self) -> bool:
        """Return False: the death of an idle actor is only seen when it is given a job."""
        return False

    def kill(self) -> str:
        """Kill the actor and the processes it started. Return in words how it had ended."""
        import ray

        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(self._actor)
        return self._end

    def release(self) -> None:
        """Tell an idle actor to end by itself."""
        if self.idle:
            self._actor.__ray_terminate__.remote()

    def leave(self) -> None:
        """Kill the actor if it is working, or still waits for a machine with room; one that was released ends alone."""
        if not self.idle:
            self.kill()


class RayExecutor(WorkerPool[RayWorker]):
    """Runs jobs on actors of the cluster that this process is connected to.

    If a machine is lost, each job on it loses an attempt. Its workers are started again as soon as there is room; the
    others go on in the meantime.

    The arguments are those of `WorkerPool`, with the slots of `cluster_devices` and a log in a folder that all machines
    see.

    Raises:
        WorkerError: from `run`, if the task cannot be loaded in the workers.
        InputError: from `run`, if the task raises it, or a machine does not see the folders of the run.
    """

    @cached_property
    def _share(self) -> float:
        """The share of one worker, computed once: workers of a lost machine must wait for room, not crowd the
        others.
        """
        return share_of(self._slots, self._threads)

    def _new(self, index: int) -> RayWorker:
        return RayWorker(self._slots[index], self._share, self._threads)

    def _wait(self, workers: Sequence[RayWorker], seconds: float) -> None:
        import ray

        ray.wait([worker.reply for worker in workers if worker.reply is not None], timeout=seconds)

    def _limit(self, worker: RayWorker) -> float:
        """Return the time limit; there is none for a worker that waits for room while others are ready."""
        waits = worker.job is None and not worker.ready
        return float("inf") if waits and any(one.ready for one in self._pool.values()) else super()._limit(worker)


def share_of(slots: Sequence[str], threads: int) -> float:
    """Return the GPUs or cores that one worker reserves of its machine, so that all workers have room."""
    kind, whole = ("CPU", threads) if slots[0] == "cpu" else ("GPU", 1)
    room = [has[kind] for has in machines()]
    if sum(has // whole for has in room) >= len(slots):
        return whole
    return 1 / math.ceil(len(slots) / max(1, sum(room)))


class _Actor:
    """The code that runs on a machine of the cluster, the counterpart of `worker.main`."""

    def __init__(self, path: list[str], folder: str, slot: str, threads: int) -> None:
        sys.path += [entry for entry in path if entry not in sys.path]  # for modules beside the user's script
        os.environ.update(thread_variables(threads))
        if slot == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._device = "cpu" if slot == "cpu" else "cuda:0"  # the only one that Ray lets it see
        self._folder = folder
        self._task: Task | None = None

    def answer(self, message: Any) -> Attempt | str | None:
        """Answer the first message (the task and its log), then each payload, as `worker.main` does.

        If this machine does not see the folders of the run, the answer is an `InputError`.
        """
        if self._task is not None:
            return attempt(self._task, message, self._device)
        task, log = message
        for folder in (self._folder, *(() if log is None else (log.parent,))):
            if not Path(folder).is_dir():
                got = f"{folder}, which {socket.gethostname()} does not"
                hint = "Start the command, and put the run, on a file system that they share."
                wrong = InputError("run_dir", "a folder that all machines of the cluster see", got, hint)
                return Attempt(Outcome("failed"), wrong_input=wrong)
        os.chdir(self._folder)  # paths of the run may be relative to it
        loaded = load(task, log)
        if isinstance(loaded, str):
            return loaded
        self._task = loaded
        return None
