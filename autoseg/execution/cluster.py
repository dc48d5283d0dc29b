"""The executor on several machines: a worker is an actor of a running Ray cluster, which chooses the machine.

The job loop is that of the local processes (`worker_pool`); Ray starts the actors, carries the messages and reports
deaths. All machines need the same packages, and the run folder and the data under the same paths.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
import sys
import textwrap
import threading
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoseg.errors import InputError
from autoseg.execution.devices import WORKER_BYTES, number_of
from autoseg.execution.job import Attempt, Job, Outcome, Task, attempt
from autoseg.execution.processes import thread_variables
from autoseg.execution.worker import load
from autoseg.execution.worker_pool import Worker, WorkerPool

if TYPE_CHECKING:
    from ray import ObjectRef

INSTALL = 'Install it on all machines: pip install "ray>=2.51.2".'
SAME = "It needs the same Ray and the same Python on all machines."
SAID = 300  # most characters of an error of Ray's
ROOM_S, AGAIN_S = 20.0, 600.0  # until it is said that workers wait for room, and until it is said again
START = "Start one: ray start --head here, ray start --address=THIS_MACHINE:6379 on the others."

log = logging.getLogger(__name__)


def connect(address: str = "auto") -> None:
    """Connect this process to a cluster, unless it is connected already.

    Args:
        address: "HOST:PORT" of its head, or "auto": the one that runs on this machine, or that RAY_ADDRESS names.

    Raises:
        InputError: Ray is not installed, there is no such cluster, or this process is connected to another one.
    """
    try:
        import ray
    except ImportError:
        raise InputError("executor", "an installed Ray", "none", INSTALL) from None
    if ray.is_initialized():
        there = ray.get_runtime_context().gcs_address
        if address not in ("auto", there):
            hint = "ray.shutdown() leaves it."
            raise InputError("executor.address", f"{there}, to which this process is connected", address, hint)
        return
    on_term = signal.getsignal(signal.SIGTERM)
    try:
        _knock(address)
        ray.init(address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        lines = [line.strip() for line in str(error).strip().splitlines()]
        other = lines[:1] == ["Version mismatch: The cluster was started with:"]
        said = (" ".join(lines) if other else "".join(lines[:1])).rstrip(".")
        by_name = os.environ.get("RAY_ADDRESS") if address == "auto" else None
        got = f"{by_name}, as RAY_ADDRESS says" if by_name else address
        hint = SAME if other else START
        raise InputError("executor.address", "a running Ray cluster", f"{got} ({said})", hint) from error
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
        workers: how many, or "auto": `per_device` for each GPU; on CPU, each machine's cores divided by `threads`, or
            as many as its memory has room for.
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
    room = (has["memory"] // WORKER_BYTES if has["memory"] else has["CPU"] for has in there)  # 0: not told
    return [kind] * max(1, sum(min(has["CPU"] // threads, most) for has, most in zip(there, room, strict=True)))


def machines() -> list[dict[str, int]]:
    """Return what each machine of the cluster has, {"CPU": cores, "GPU": …, "memory": bytes}."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [{kind: int(has.get(kind, 0)) for kind in ("CPU", "GPU", "memory")} for has in alive]


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
        self._here = self._actor.here.remote()
        self._placed = False
        self.reply: ObjectRef[Any] | None = None  # the pending answer
        self._unsent: Any = None  # the payload of a job, until the actor has answered that it lives
        self._end = "was stopped"

    def send_task(self, task: bytes, log: Path | None) -> None:
        """Send the task; the log's path is made absolute, since an actor starts in a folder of Ray's."""
        super().send_task(task, log and log.absolute())

    def start(self, job: Job, attempts: int) -> None:
        """Take a job; it is sent once the actor has answered that it lives: its death before costs no attempt."""
        self._placed = True
        super().start(job, attempts)

    def placed(self) -> bool:
        """Return whether a machine had room for the actor. Its time to start counts from then on."""
        if not self._placed and _answered(self._here):
            self._placed, self.since = True, time.monotonic()
        return self._placed

    def _send(self, message: object) -> None:
        if self.job is None:
            self.reply = self._actor.answer.remote(message)
        else:
            self.reply, self._unsent = self._actor.here.remote(), message

    def has_message(self) -> bool:
        """Return whether there is an answer, or the actor has died; send a job to an actor that is known to live."""
        import ray

        if self.reply is None or not ray.wait([self.reply], timeout=0)[0]:
            return False
        if self._unsent is None or not _answered(self.reply):
            return True
        self.reply, self._unsent = self._actor.answer.remote(self._unsent), None
        return False

    def receive(self) -> Attempt | str | None:
        """Return the answer, which must be there; raise EOFError if the actor is dead."""
        import ray

        reply, self.reply = self.reply, None
        try:
            message: Attempt | str | None = ray.get(reply)
        except ray.exceptions.RayError as error:
            if self._unsent is not None:
                self.attempts -= 1  # it died before, with its machine: the job never began
            self._end = f"died: {textwrap.shorten(str(error), SAID)}"
            raise EOFError from error
        return message

    def dead(self) -> bool:
        """Return False: the death of an idle actor is seen when it is given a job, which loses no attempt by it."""
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

    If a machine is lost, each job that it was working on loses an attempt. Its workers are started again as soon as
    there is room, for which they wait as long as it takes; the others go on in the meantime.

    The arguments are those of `WorkerPool`, with the slots of `cluster_devices` and a log in a folder that all machines
    see.

    Raises:
        WorkerError: from `run`, if the task cannot be loaded in the workers.
        InputError: from `run`, if the task raises it, or a machine does not see the folders of the run.
    """

    _silent_until = 0.0

    @cached_property
    def _shares(self) -> list[float]:
        """The share of each worker, computed once: workers of a lost machine must wait for room, not crowd the
        others.
        """
        return shares_of(self._slots, self._threads)

    def _new(self, index: int) -> RayWorker:
        return RayWorker(self._slots[index], self._shares[index], self._threads)

    def _wait(self, workers: Sequence[RayWorker], seconds: float) -> None:
        import ray

        ray.wait([worker.reply for worker in workers if worker.reply is not None], timeout=seconds)
        outside = [worker for worker in workers if not worker.placed()]
        now = time.monotonic()
        if outside and now - min(worker.since for worker in outside) > ROOM_S and now > self._silent_until:
            self._silent_until = now + AGAIN_S
            kind = "cores" if outside[0].slot == "cpu" else "GPUs"
            free = ray.available_resources().get("CPU" if kind == "cores" else "GPU", 0)
            log.warning(
                "%d of %d workers have not started: %g of the cluster's %s are free, or their machines are slow",
                len(outside), len(workers), free, kind,
            )  # fmt: skip

    def _limit(self, worker: RayWorker) -> float:
        """Return the time limit; there is none for a worker that waits for room."""
        return super()._limit(worker) if worker.placed() else math.inf


def _answered(reply: ObjectRef[Any]) -> bool:
    """Return whether an actor has answered; not if it is dead, or has not yet."""
    import ray

    try:
        ray.get(reply, timeout=0)
    except ray.exceptions.RayError:
        return False
    return True


def shares_of(slots: Sequence[str], threads: int) -> list[float]:
    """Return the GPUs or cores that each worker reserves of its machine, so that all have room and none is left idle.

    Ray fills one machine or GPU before the next.
    """
    count, there = len(slots), machines()
    if slots[0] == "cpu":
        most = (cores for cores in range(threads, 0, -1) if sum(has["CPU"] // cores for has in there) >= count)
        return [next(most, 1 / math.ceil(count / max(1, sum(has["CPU"] for has in there))))] * count
    gpus = max(1, sum(has["GPU"] for has in there))
    on_each, more = divmod(count, gpus)
    if not on_each:
        return [1.0] * count
    return [1 / on_each] * (on_each * (gpus - more)) + [1 / (on_each + 1)] * ((on_each + 1) * more)


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

    def here(self) -> None:
        """Answer that the actor is alive."""

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
        if isinstance(loaded, str | Attempt):
            return loaded
        self._task = loaded
        return None
