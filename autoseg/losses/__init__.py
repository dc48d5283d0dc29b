"""(logits, labels) to one finite scalar, for every hand-made loss; one registry for all losses."""

from __future__ import annotations

from autoseg.losses.base import SegLoss
from autoseg.losses.build import LossSum, build_loss, describe, loss_names
from autoseg.losses.frequency import class_weights

__all__ = ["LossSum", "SegLoss", "build_loss", "class_weights", "describe", "loss_names"]
