"""Runs a picklable task on workers: in this process, or one spawned process per device slot.

The room's promise: a worker that dies, hangs, diverges or raises is an `Outcome` with its reason, never an
exception in the search; torch is imported by the workers only, after their device has been chosen.
"""

from autoseg.execution.devices import slots
from autoseg.execution.inline import InlineExecutor
from autoseg.execution.job import Executor, Job, Outcome, Task, Watched
from autoseg.execution.processes import ProcessExecutor
from autoseg.execution.standby import Standby

__all__ = ["Executor", "InlineExecutor", "Job", "Outcome", "ProcessExecutor", "Standby", "Task", "Watched", "slots"]
