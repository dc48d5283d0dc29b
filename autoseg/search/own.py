"""A user's own metrics and losses go with the task into the workers, which have never imported the file they are in."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoseg.errors import InputError
from autoseg.execution import Task
from autoseg.mmconfigs import config_path, shipped
from autoseg.search.older import TEXT

if TYPE_CHECKING:  # the search process holds tasks without torch
    from autoseg.losses import SegLoss
    from autoseg.metrics import Metric


@dataclass(frozen=True)
class Knowing:
    """A task that another process gets together with the metrics and losses registered here that are not ours."""

    task: Task

    def __call__(self, payload: Any, device: str) -> Any:
        """As the task itself."""
        return self.task(payload, device)

    def __reduce__(self) -> tuple[Any, ...]:
        from autoseg.losses import own_losses
        from autoseg.metrics import own_metrics

        return _arrived, (own_metrics(), own_losses(), self.task)


def _arrived(metrics: Sequence[type[Metric]], losses: Sequence[type[SegLoss]], task: Task) -> Task:
    """In the other process: the task alone, once it may name the metrics and losses."""
    if metrics:
        from autoseg.metrics import register_metric

        for metric in metrics:
            register_metric(metric)
    if losses:
        from autoseg.losses import register_loss

        for loss in losses:
            register_loss(loss)
    return task


def formulas(metrics: Collection[str], losses: Collection[str] = ()) -> dict[str, str]:
    """Digests of the source of the own metrics and losses among these, for a run's fingerprint: an edit makes another.

    Args:
        metrics: names.
        losses: names.
    """
    from autoseg.losses import own_losses
    from autoseg.metrics import own_metrics

    own: dict[str, type] = {f"formula of {one.name}": one for one in own_metrics() if one.name in metrics}
    own |= {f"formula of the loss {one.name}": one for one in own_losses() if one.name in losses}
    return {name: hashlib.sha256(inspect.getsource(kind).encode()).hexdigest()[:12] for name, kind in own.items()}


def text_of(config: str) -> dict[str, str]:
    """A digest of the text of a `model.config` that mmsegmentation does not ship, for a run's fingerprint.

    Raises:
        InputError: there is no such config, or it cannot be read.
    """
    if shipped(config) is not None:
        return {}
    file = config_path(config, "model.config")
    try:
        return {TEXT: hashlib.sha256(file.read_bytes()).hexdigest()[:12]}
    except OSError as error:
        raise InputError("model.config", "a file that can be read", f"{file}: {error.strerror}") from error
