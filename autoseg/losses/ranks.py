"""Losses on several GPUs that count over the batches of all ranks, instead of each over its own."""

from __future__ import annotations

from torch import nn

from autoseg.losses.base import SegLoss
from autoseg.surrogates import SurrogateLoss


def sync_counts(loss: nn.Module) -> None:
    """Make a loss and all its parts count over all ranks; see `surrogates.ranks` for the gradient.

    Every rank must call the loss equally often, on equally many images. Parts that are `rank_local` continue to use
    each rank's own batch.

    Args:
        loss: a loss of `build_loss`; changed in place. In a training with one rank, nothing changes.
    """
    for part in loss.modules():
        if isinstance(part, SurrogateLoss) or (isinstance(part, SegLoss) and not part.rank_local):
            part.sync_counts = True


def rank_local(loss: nn.Module) -> list[str]:
    """Return the names of the parts of a loss that sort the pixels of each rank's own batch, or learn from its
    labels.
    """
    return sorted({part.name for part in loss.modules() if isinstance(part, SegLoss) and part.rank_local})
