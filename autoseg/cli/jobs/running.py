"""What commands that train share: workers, a line for each of a list of trainings, and how to go on after Ctrl-C."""

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
    """What trains, and who is told of every training that ends; both are gone after the context.

    Args:
        config: how the workers are run.
        standby: the workers.
        task: what they run.
        metric: whose score is shown.
        folder: whose log they write.
    """
    observers = Observers([Quieter(folder.log), Lines(metric)])
    with closing(observers), build(config, standby, task, folder) as built:
        yield built, observers


def build(
    config: SearchConfig | CompareConfig | TrustConfig, standby: Standby, task: Task, folder: RunFolder
) -> Executor:
    """The executor that a configuration asks for, of a task and the user's own code; arguments as in `executor`."""
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
    """Do `work` on the run in `path`; None if the user interrupts it, who is then told how to go on.

    The log of the run gets the traceback of a fault, which `faults.report` sees when the run is closed already.

    Args:
        command: that is to be typed.
        path: the run.
        work: what may be interrupted.
        code: of `named_code.resume_arguments`.
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
