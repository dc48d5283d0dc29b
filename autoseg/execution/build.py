"""From settings to an executor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoseg.execution.inline import InlineExecutor
from autoseg.execution.job import Executor, Task
from autoseg.execution.processes import ProcessExecutor
from autoseg.execution.standby import Standby


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
    """The executor called "inline" (one device, this process) or "processes"; arguments as in their classes."""
    if name == "inline":
        return InlineExecutor(task, devices[0], retries=retries)
    return ProcessExecutor(
        task, devices, threads=threads, timeout_s=timeout_s, retries=retries, log=log, standby=standby
    )
