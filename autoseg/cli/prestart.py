"""Starts workers before their command imports: both sides import at the same time, and Ctrl-C ends both.

Such a command has two modules: a light one, which parses the arguments, and one of the same name in `jobs` with
everything else, which is imported here after the workers have started.
"""

from __future__ import annotations

import importlib
import os
import sys

from autoseg.cli.faults import INTERRUPTED
from autoseg.cli.outlasting import outlasting
from autoseg.config import CompareConfig, SearchConfig, TrustConfig
from autoseg.execution import Standby, worker_devices
from autoseg.imports import make_importable
from autoseg.interrupts import held_back
from autoseg.proxy.task import import_all


def job(name: str, config: SearchConfig | CompareConfig | TrustConfig, threads: int) -> int:
    """Run a command from its checked configuration on; return the exit status.

    Args:
        name: name of the command, of its module in `jobs`, and of the function there.
        config: its configuration.
        threads: CPU threads of each worker.

    Raises:
        InputError: `workers` or `device` are not available, or there is no cluster.
    """
    with outlasting(), standby(config, threads) as workers:
        with held_back(_end_at_once):  # one that is raised in the middle of an import is sometimes dropped by Python
            done = getattr(importlib.import_module(f"autoseg.cli.jobs.{name}"), name)  # torch and Optuna
        status: int = done(config, workers)
        return status


def standby(config: SearchConfig | CompareConfig | TrustConfig, threads: int) -> Standby:
    """Start the workers of a command, unless its executor uses no processes; arguments and errors as in `job`."""
    make_importable(config.imports)
    where = config.executor
    devices = worker_devices(where.name, config.workers, config.device, where.per_device, threads, where.address)
    return Standby(devices, threads, import_all, start=where.name == "processes")


def _end_at_once() -> None:
    """End the process: there is no run yet that could lose anything, and the workers end with it."""
    print("autoseg: interrupted", file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)
