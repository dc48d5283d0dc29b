"""The CPU cores and memory that this process may use; in a container, those of the container."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")  # the container's control group, version 2


def cpu_cores() -> int:
    """Return the number of CPU cores: those of its affinity, limited by the quota of its container if it has one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (CGROUP / "cpu.max").read_text(encoding="ascii").split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no container, or "max"
        return cores


def free_memory() -> int:
    """Return the bytes of memory that are free, or can be freed at once.

    Within its container's limit, if it has one.
    """
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (int((CGROUP / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
        return max(0, min(free, limit - used + int(stat["inactive_file"]) + int(stat["active_file"])))
    except (OSError, ValueError, KeyError):  # no container, or "max"
        return free
