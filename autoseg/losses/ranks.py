"""Losses on several GPUs that count over the batches of all ranks, instead of each over its own."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

from torch import nn

from autoseg.errors import InputError
from autoseg.losses.base import SegLoss
from autoseg.surrogates.ranks import is_distributed

Loss = TypeVar("Loss", bound=nn.Module)


def sync_counts(loss: Loss) -> Loss:
    """Make a loss and all its parts count over all ranks of the default process group; see `surrogates.ranks` for the
    gradient.

    Every rank must call the loss equally often, be its batch empty: for a validation on one rank, build another one.
    Parts that sort the pixels of a batch (`rank_local`) continue to use each rank's own, which is warned of.

    Args:
        loss: a loss of `build_loss`, or the one that `autoseg.search` hands to a training; changed in place. In a
            training with one rank, nothing changes.

    Returns:
        The same loss.

    Raises:
        InputError: a loss that is not of autoseg, and so cannot count over ranks.
    """
    ours: list[Any] = [part for part in loss.modules() if hasattr(part, "sync_counts")]
    if not ours:
        hint = "Others work on each rank's own batch."
        raise InputError("loss of sync_counts", "a loss of autoseg", type(loss).__name__, hint)
    for part in ours:
        if not getattr(part, "rank_local", False):
            part.sync_counts = True
    if (local := rank_local(loss)) and is_distributed():
        text = f"{', '.join(local)} cannot count over several ranks: each works on its own batch"
        warnings.warn(text, stacklevel=2)
    return loss


def rank_local(loss: nn.Module) -> list[str]:
    """Return the names of the parts of a loss that sort the pixels of each rank's own batch, or learn from its
    labels.
    """
    return sorted({part.name for part in loss.modules() if isinstance(part, SegLoss) and part.rank_local})
