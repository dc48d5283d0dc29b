"""Shared by the commands that train: workers, one line per training, and what to type after Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from autoseg.cli import faults
from autoseg.cli.configuration.overrides import typed
from autoseg.config import CompareConfig, SearchConfig, TrustConfig
from autoseg.execution import Executor, Standby, Task, build_executor
from autoseg.search.observer import Observers
from autoseg.store.run_folder import RunFolder
from autoseg.store.user_code import WithUserCode
from autoseg.tracking.lines import Lines, Quieter

T = TypeVar("T")


@contextmanager
def executor(
    config: CompareConfig | TrustConfig, standby: Standby, task: Task, metric: str, folder: RunFolder
) -> Iterator[tuple[Executor, Observers]]:
    """Yield the executor and the observers of the trainings; both are closed after the context.

    Args:
        config: settings of the executor.
        standby: the workers.
        task: the task they run.
        metric: name of the score that is shown.
        folder: the run folder with the log that they write.
    """
    observers = Observers([Quieter(folder.log), Lines(metric)])
    with closing(observers), build(config, standby, task, folder) as built:
        yield built, observers


def build(
    config: SearchConfig | CompareConfig | TrustConfig, standby: Standby, task: Task, folder: RunFolder
) -> Executor:
    """Build the executor that a configuration names, for a task and the user's own code; arguments as in `executor`."""
    limits = config.search if isinstance(config, SearchConfig) else config
    return build_executor(
        config.executor.name,
        WithUserCode(task),
        standby.slots,
        threads=standby.threads,
        timeout_s=limits.timeout_s,
        retries=limits.retries,
        log=folder.log,
        standby=standby,
    )


def resumable(command: str, path: Path, work: Callable[[], T], code: str) -> T | None:
    """Call `work` on the run in `path`; if the user interrupts it, print how to go on and return None.

    After an error, the run's log gets the traceback: `faults.report` appends it when the run is already closed.

    Args:
        command: the command to type to go on.
        path: the run.
        work: the function that may be interrupted.
        code: from `named_code.resume_arguments`.
    """
    try:
        return work()
    except KeyboardInterrupt:
        words = typed("resume", str(path)) + code
        print(f"\nInterrupted; nothing finished is lost. Go on with: autoseg {command} {words}")
        return None
    except Exception as error:
        faults.came_in(error, path / "log.txt")
        raise
