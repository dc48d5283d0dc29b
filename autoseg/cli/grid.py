"""What `compare` and `trust` share: workers for a list of trainings, a line for each, and how to go on after Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TypeVar

from autoseg.cli.typed import and_imports, typed
from autoseg.config import CompareConfig, TrustConfig
from autoseg.execution import Executor, Standby, Task
from autoseg.execution.build import build_executor
from autoseg.search.observer import Observers
from autoseg.search.own import Knowing
from autoseg.search.run_folder import RunFolder
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
    built = build_executor(
        config.executor.name,
        Knowing(task),
        standby.slots,
        threads=standby.threads,
        timeout_s=config.timeout_s,
        retries=config.retries,
        log=folder.log,
        standby=standby,
    )
    with closing(observers), built:
        yield built, observers


def resumable(command: str, path: Path, work: Callable[[], T], imports: list[str]) -> T | None:
    """Do `work` on the run in `path`; None if the user interrupts it, who is then told how to go on."""
    try:
        return work()
    except KeyboardInterrupt:
        again = typed("resume", str(path)) + and_imports(imports)
        print(f"\nInterrupted; nothing finished is lost. Go on with: autoseg {command} {again}")
        return None
