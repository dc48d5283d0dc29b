"""Runs a picklable task on workers: in this process, one spawned process per device slot, or actors of a Ray cluster.

The room's promise: a worker that dies, hangs, diverges or raises is an `Outcome` with its reason, never an
exception in the search; torch is imported by the workers only, after their device has been chosen.
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
    """The device of each worker of an executor: `local_devices`, or `cluster_devices` of the cluster at an address.

    Raises:
        InputError: they cannot be had, or there is no such cluster, to which this process is connected then.
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
    """The executor called "inline" (one device, this process), "processes" or "ray".

    Args:
        name: which.
        task: what it runs.
        devices: of its `worker_devices`.
        threads: per worker; this process keeps its own.
        timeout_s: as in `ProcessExecutor`; without effect in this process.
        retries: fresh attempts after a worker died, hung or ran out of memory; none in this process.
        log: file for the workers' output.
        standby: processes that have been started already.
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
