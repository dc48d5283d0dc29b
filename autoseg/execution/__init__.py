"""Runs a picklable task on workers: in this process, in one spawned process per device slot, or in Ray actors.

A worker that dies, hangs, diverges or raises gives an `Outcome` with the reason, never an exception in the search.
Only the workers import torch, after their device has been chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoseg.execution.devices import local_devices
from autoseg.execution.inline import InlineExecutor
from autoseg.execution.job import Executor, Job, Outcome, Task, Watched
from autoseg.execution.processes import ProcessExecutor, Standby

__all__ = [
    "Executor", "InlineExecutor", "Job", "Outcome", "ProcessExecutor", "Standby", "Task", "Watched", "build_executor",
    "local_devices", "worker_devices",
]  # fmt: skip


def worker_devices(
    name: str,
    workers: str | int = "auto",
    device: str = "auto",
    per_device: int = 1,
    threads: int = 1,
    address: str = "auto",
) -> list[str]:
    """Return the device of each worker of an executor: `local_devices`, or for Ray `cluster_devices`.

    For Ray, this process is connected to the cluster at `address` first.

    Raises:
        InputError: the devices are not available, or there is no such cluster.
    """
    if name != "ray":
        return local_devices(workers, device, per_device, threads)
    from autoseg.execution.cluster import cluster_devices, connect

    connect(address)
    return cluster_devices(workers, device, per_device, threads)


def build_executor(
    name: str,
    task: Task,
    devices: Sequence[str],
    *,
    threads: int = 1,
    timeout_s: float | None = None,
    retries: int = 1,
    log: Path | None = None,
    standby: Standby | None = None,
) -> Executor:
    """Build the executor called "inline" (one device, this process), "processes" or "ray".

    Args:
        name: name of the executor.
        task: the task it runs.
        devices: device of each worker, from `worker_devices`.
        threads: CPU threads per worker; ignored by "inline", where this process keeps its own number.
        timeout_s: as in `ProcessExecutor`; ignored by "inline".
        retries: fresh attempts after a worker died, hung or ran out of memory; ignored by "inline".
        log: file for the workers' output.
        standby: worker processes that have been started already.
    """
    if name == "inline":
        return InlineExecutor(task, devices[0])
    if name == "ray":
        from autoseg.execution.cluster import RayExecutor

        return RayExecutor(task, devices, threads=threads, timeout_s=timeout_s, retries=retries, log=log)
    if name == "processes":
        return ProcessExecutor(
            task, devices, threads=threads, timeout_s=timeout_s, retries=retries, log=log, standby=standby
        )
    raise NotImplementedError(name)
