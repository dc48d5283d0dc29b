"""Weighted sums of losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from autoseg.errors import InputError
from autoseg.losses.base import SegLoss


class LossSum(nn.Module):
    """A weighted sum of losses, itself a loss.

    Args:
        weights: one non-negative number per loss.
        losses: hand-made losses and surrogates.

    Attributes:
        replayable: as in every `SegLoss`; True here, since each loss in the sum has its own.
    """

    replayable = True

    def __init__(self, weights: Sequence[float], losses: Sequence[nn.Module]) -> None:
        super().__init__()
        self.weights = tuple(weights)
        self.losses = nn.ModuleList(losses)

    def prepare(self, labels: Tensor) -> dict[str, Tensor]:
        """Return the extra inputs of its losses; keys begin with the index of the loss in the sum."""
        return {
            f"{place}.{key}": value
            for place, loss in enumerate(self.losses)
            if isinstance(loss, SegLoss | LossSum)
            for key, value in loss.prepare(labels).items()
        }

    def set_progress(self, progress: float) -> None:
        """Set the progress of the training, from 0 to 1, in its losses."""
        for loss in self.losses:
            if isinstance(loss, SegLoss | LossSum):
                loss.set_progress(progress)

    def forward(self, logits: Tensor, labels: Tensor, extra: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the weighted sum, a scalar; arguments as in `SegLoss.forward`."""
        given: object = extra
        if not isinstance(given, Mapping | None):
            hint = "Pass what loss.prepare(labels) returned, cropped and flipped like the image."
            raise InputError("extra of a sum of losses", "a mapping", type(given).__name__, hint)
        values = []
        for place, (weight, loss) in enumerate(zip(self.weights, self.losses, strict=True)):
            if weight or not any(self.weights):  # a search may set a weight to 0; 0 times infinity is NaN
                values.append(weight * loss(logits, labels, _of_place(extra, place)))
        return torch.stack(values).sum()


def _of_place(extra: Mapping[str, Tensor] | None, place: int) -> dict[str, Tensor] | None:
    """Return the extra inputs of the loss at one index of a sum; None if nothing was prepared."""
    if extra is None:
        return None
    head = f"{place}."
    return {key.removeprefix(head): value for key, value in extra.items() if key.startswith(head)}
