"""What this process may use of the machine: of a container, what that one has."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")  # of the container, in version 2 of control groups


def cpu_cores() -> int:
    """CPU cores: those of its affinity, and the quota of its container if it has one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (CGROUP / "cpu.max").read_text(encoding="ascii").split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no container, or "max"
        return cores


def free_memory() -> int:
    """Bytes of memory that are free, or can be freed at once; of its container's, if that has a limit."""
    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (int((CGROUP / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
        return max(0, min(free, limit - used + int(stat["inactive_file"]) + int(stat["active_file"])))
    except (OSError, ValueError, KeyError):  # no container, or "max"
        return free
