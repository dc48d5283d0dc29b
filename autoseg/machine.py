"""The CPU cores and memory that this process may use: those of its container, or of its batch system's job."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")  # the control groups of version 2; of version 1 one folder for each controller
OWN = Path("/proc/self/cgroup")  # the groups of this process


def cpu_cores() -> int:
    """Return the number of CPU cores: those of its affinity, limited by the quota of its control groups."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([cores, *map(_quota, _groups("cpu"))])))


def free_memory() -> int:
    """Return the bytes of memory that are free, or can be freed at once, within the limits of its control groups."""
    free = int(psutil.virtual_memory().available)
    return max(0, int(min([free, *map(_left, _groups("memory"))])))


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control groups: its own, and those around it, whose limits hold too."""
    try:
        lines = OWN.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        root = CGROUP / controller if controllers else CGROUP
        own = root / path.lstrip("/")
        yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(root))


def _quota(group: Path) -> float:
    """Return the number of cores that a control group may use; infinity without a limit."""
    try:
        if (group / "cpu.max").exists():
            quota, period = _text(group / "cpu.max").split()
        else:
            quota, period = (_text(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):  # no such file, or "max"
        return math.inf


def _left(group: Path) -> float:
    """Return the bytes that a control group may still take, with what can be freed; infinity without a limit."""
    second = (group / "memory.max").exists()
    names = ("max", "current") if second else ("limit_in_bytes", "usage_in_bytes")
    total = "" if second else "total_"
    try:
        limit, used = (int(_text(group / f"memory.{name}")) for name in names)
        stat = dict(line.split() for line in _text(group / "memory.stat").splitlines())
        return limit - used + int(stat[f"{total}inactive_file"]) + int(stat[f"{total}active_file"])
    except (OSError, ValueError, KeyError):  # no such file, or "max"
        return math.inf


def _text(file: Path) -> str:
    return file.read_text(encoding="ascii")
