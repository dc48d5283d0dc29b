"""Runs a picklable task on workers: in this process, or one spawned process per device slot.

The room's promise: a worker that dies, hangs, diverges or raises is an `Outcome` with its reason, never an
exception in the search; torch is imported by the workers only, after their device has been chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autoseg.execution.devices import slots
from autoseg.execution.inline import InlineExecutor
from autoseg.execution.job import Executor, Job, Outcome, Task, Watched
from autoseg.execution.processes import ProcessExecutor
from autoseg.execution.standby import Standby

__all__ = [
    "Executor", "InlineExecutor", "Job", "Outcome", "ProcessExecutor", "Standby", "Task", "Watched", "build_executor",
    "slots",
]  # fmt: skip


def build_executor(name: str, task: Task, devices: Sequence[str], *, retries: int = 1, **options: Any) -> Executor:
    """The executor called "inline" (one device, this process) or "processes"; `options` are those of the latter."""
    if name == "inline":
        return InlineExecutor(task, devices[0], retries=retries)
    return ProcessExecutor(task, devices, retries=retries, **options)
