"""(logits, labels) to one finite scalar, for every hand-made loss; one registry for all losses."""

from __future__ import annotations

from autoseg.losses.base import SegLoss, TakesExtra
from autoseg.losses.build import LossSum, build_loss, describe, loss_names, own_losses, register_loss
from autoseg.losses.card import LossCard, save_loss
from autoseg.losses.compiling import compiled_loss
from autoseg.losses.frequency import class_weights
from autoseg.losses.named import load_loss
from autoseg.losses.searched import SearchedLoss, searched_loss

__all__ = [
    "LossCard", "LossSum", "SearchedLoss", "SegLoss", "TakesExtra", "build_loss", "class_weights", "compiled_loss",
    "describe", "load_loss", "loss_names", "own_losses", "register_loss", "save_loss", "searched_loss",
]  # fmt: skip
