"""Chooses the devices of the workers, without importing torch, so that workers can still choose theirs."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

from autoseg.errors import InputError
from autoseg.machine import cpu_cores, free_memory

WORKER_BYTES = 1_300_000_000  # the most memory a CPU worker takes with CamVid loaded


def local_devices(
    workers: str | int = "auto", device: str = "auto", per_device: int = 1, threads: int = 1
) -> list[str]:
    """Return one device name per worker.

    Args:
        workers: how many, or "auto": `per_device` for each GPU; on CPU, cores divided by `threads`, or as many as the
            memory has room for.
        device: "auto" (GPUs if there are any), "cpu", "cuda" (all GPUs) or "cuda:<index>".
        per_device: workers that share one GPU.
        threads: CPU threads each worker may use.

    Returns:
        "cpu" or "cuda:<index>" for each worker; workers in excess share the GPUs in turn.

    Raises:
        InputError: a GPU that is not there, an unknown device, fewer than one worker.
    """
    devices = _devices(device)
    if str(workers) == "auto":
        most = min(cpu_cores() // max(1, threads), free_memory() // WORKER_BYTES)
        return devices * per_device if devices else ["cpu"] * max(1, most)
    count = number_of(workers)
    return [devices[i % len(devices)] for i in range(count)] if devices else ["cpu"] * count


def number_of(workers: str | int) -> int:
    """Return the number of workers as an int.

    Raises:
        InputError: no number, or fewer than one.
    """
    count = int(workers) if isinstance(workers, str) and workers.isdecimal() else workers
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise InputError("workers", '"auto" or a number from 1 on', repr(workers))
    return count


def _devices(device: str) -> list[str]:
    """Return the GPUs that `device` names; an empty list means the CPU."""
    kind, _, index = device.partition(":")
    if device == "cpu":
        return []
    if device not in ("auto", "cuda") and not (kind == "cuda" and index.isdecimal()):
        raise InputError("device", "auto, cpu, cuda or cuda:<index>", repr(device))
    found = [f"cuda:{i}" for i in range(len(visible_gpus()))]
    if device == "auto" or (device == "cuda" and found):
        return found
    if device not in found:
        there = ", ".join(found) or "no GPU"
        raise InputError("device", f"a device of this machine ({there})", repr(device), "Use device=cpu.")
    return [device]


def visible_gpus() -> list[str]:
    """Return the identifiers of the NVIDIA GPUs this process may use, as CUDA_VISIBLE_DEVICES writes them."""
    present = _present_gpus()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [str(i) for i in range(present)]
    usable = []
    for name in (part.strip() for part in chosen.split(",")):
        if not (int(name) < present if name.isdecimal() else present and name.startswith(("GPU-", "MIG-"))):
            break  # CUDA ignores everything from the first invalid name on
        usable.append(name)
    return usable


@cache  # nvidia-smi takes seconds where no other process holds the driver
def _present_gpus() -> int:
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True)
        return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())
    except (OSError, subprocess.SubprocessError):
        proc = Path("/proc/driver/nvidia/gpus")
        return len(list(proc.iterdir())) if proc.is_dir() else 0
