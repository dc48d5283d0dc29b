"""A user's own metrics go with the task into the workers, which have never imported the file they are in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoseg.execution import Task

if TYPE_CHECKING:  # the search process holds tasks without torch
    from autoseg.metrics import Metric


@dataclass(frozen=True)
class Knowing:
    """A task that another process gets together with the metrics that are registered here and are not ours."""

    task: Task

    def __call__(self, payload: Any, device: str) -> Any:
        """As the task itself."""
        return self.task(payload, device)

    def __reduce__(self) -> tuple[Any, ...]:
        from autoseg.metrics.base import registry

        ours = __name__.partition(".")[0] + "."
        own = tuple(metric for metric in registry().values() if not metric.__module__.startswith(ours))
        return _arrived, (own, self.task)


def _arrived(own: Sequence[type[Metric]], task: Task) -> Task:
    """In the other process: the task alone, once it may name the metrics."""
    if own:
        from autoseg.metrics import register_metric

        for metric in own:
            register_metric(metric)
    return task
