"""A loss for a training whose number of classes is not known yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from autoseg.errors import InputError
from autoseg.losses.ranks import sync_counts
from autoseg.metrics.labels import ONE_LOGIT


class LateLoss(nn.Module):
    """Builds its loss at the first batch, for as many classes as the logits have channels.

    Args:
        build: number of classes to a loss.

    Attributes:
        sync_counts: the built loss counts over all ranks, see `ranks.sync_counts`.
    """

    sync_counts: bool = False

    def __init__(self, build: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self._build = build
        self.loss: nn.Module | None = None
        self._progress = 0.0

    def forward(self, logits: Tensor, labels: Tensor, extra: Mapping[str, Tensor] | None = None) -> Tensor:
        """The loss of (N, C, H, W) or (N, C, D, H, W) logits and their labels, a scalar.

        Raises:
            InputError: logits without a channel dimension, or of one channel, over which a softmax is always 1.
        """
        if logits.dim() not in (4, 5):
            raise InputError("logits", "(N, C, H, W)", tuple(logits.shape))
        if logits.shape[1] == 1:
            raise InputError("logits", "(N, C, H, W) of two classes or more", tuple(logits.shape), ONE_LOGIT)
        if self.loss is None:
            with torch.inference_mode(False):  # else one that is first called while validating could never train
                self.loss = self._build(logits.shape[1]).to(logits.device)
            self.set_progress(self._progress)
            if self.sync_counts:
                sync_counts(self.loss)
        value: Tensor = self.loss(logits, labels, extra or None)
        return value

    def prepare(self, labels: Tensor) -> dict[str, Tensor]:
        """Nothing: what the loss needs is not known before its first batch, of which it is then prepared.

        With num_classes=C, `autoseg.search` hands the loss itself to a training, which prepares of all labels.
        """
        del labels
        return {}

    def set_progress(self, progress: float) -> None:
        """Tells a loss that changes over training how far it is, 0 at the start and 1 at the end."""
        self._progress = progress
        tell = getattr(self.loss, "set_progress", None)
        if tell is not None:
            tell(progress)
