"""Losses that are a mean over pixels."""

from __future__ import annotations

from torch import Tensor

from autoseg.losses.base import SegLoss
from autoseg.losses.batch import Batch


class CrossEntropy(SegLoss):
    """Cross-entropy: mean over the valid pixels of -log p_y; -sum_c y_c log p_c with soft labels.

    Args:
        num_classes: C.
        common: options of `SegLoss`.
    """

    name = "ce"
    summary = "cross-entropy, the mean over pixels of -log p of the true class"
    source = "maximum likelihood"
    soft_labels = True

    def compute(self, batch: Batch) -> Tensor:
        """Mean over the valid pixels, in nats."""
        return batch.mean(batch.cross_entropy())
