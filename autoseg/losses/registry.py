"""The hand-made losses by name, with those that a user registers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from autoseg.errors import InputError, unknown_name
from autoseg.kinds import check_kinds
from autoseg.losses.base import SegLoss
from autoseg.losses.boundary import Boundary, DistancePenalizedCrossEntropy, UnetCrossEntropy
from autoseg.losses.jdt import CompatibleTverskyLoss, DiceSemimetricLoss, JaccardMetricLoss
from autoseg.losses.lmp import LossMaxPooling
from autoseg.losses.lovasz import Lovasz
from autoseg.losses.pixelwise import (
    CrossEntropy,
    Focal,
    MeanSquaredError,
    Ohem,
    WeightedCrossEntropy,
    WeightedMeanSquaredError,
)
from autoseg.losses.region import Dice, DiceSquared, FocalTversky, Jaccard, Tversky
from autoseg.losses.shape import ShapePrior
from autoseg.losses.smoothing import BoundarySmoothCrossEntropy, SmoothCrossEntropy
from autoseg.losses.ssim import Ssim
from autoseg.metrics.base import check_own, is_ours

ALL: tuple[type[SegLoss], ...] = (
    CrossEntropy, WeightedCrossEntropy, UnetCrossEntropy, Focal, Ohem, SmoothCrossEntropy,
    BoundarySmoothCrossEntropy, Dice, DiceSquared, Jaccard, Tversky, FocalTversky, Lovasz,
    MeanSquaredError, WeightedMeanSquaredError, Boundary, DistancePenalizedCrossEntropy, Ssim, ShapePrior,
    JaccardMetricLoss, DiceSemimetricLoss, CompatibleTverskyLoss, LossMaxPooling,
)  # fmt: skip
LOSSES: dict[str, type[SegLoss]] = {loss.name: loss for loss in ALL}

FIRST = ("num_classes", "ignore_index", "validate")  # what every loss is given
RESERVED = ("identity", "surrogate")  # words with another meaning in the text of a loss


def loss_names() -> list[str]:
    """Return the names of all hand-made losses."""
    return list(LOSSES)


def own_losses() -> tuple[type[SegLoss], ...]:
    """Return the user's losses, in the order in which they were registered."""
    return tuple(loss for loss in LOSSES.values() if not is_ours(loss))


def register_loss(cls: type[SegLoss]) -> type[SegLoss]:
    """Register a hand-made loss, as a class decorator, under its `name` for `build_loss` and every command.

    Raises:
        InputError: it is no `SegLoss`, has no `compute`, no name and summary, a name that cannot be typed, or that of
            one of ours; or it does not take the arguments that all losses do, or its own by keyword alone.
    """
    if not (isinstance(cls, type) and issubclass(cls, SegLoss)):
        raise InputError("register_loss", "a subclass of autoseg.SegLoss", repr(cls))
    check_own(cls, "loss", {**LOSSES, **dict.fromkeys(RESERVED, SegLoss)})
    taken = inspect.signature(cls).parameters
    if inspect.isabstract(cls):
        raise InputError(f"loss {cls.name}", "a class with compute(self, batch)", "one without")
    by_place = [p.name for p in taken.values() if p.kind is p.POSITIONAL_OR_KEYWORD and p.name not in FIRST]
    if by_place:
        hint = f"Put a * before it: def __init__(self, num_classes, *, {by_place[0]}=..., **shared)."
        raise InputError(f"loss {cls.name}", "options that are given by keyword alone", by_place[0], hint)
    shared = "ignore_index" in taken and "validate" in taken
    if not shared and not any(one.kind is one.VAR_KEYWORD for one in taken.values()):
        hint = "Pass them on: super().__init__(num_classes, **shared)."
        raise InputError(f"loss {cls.name}", "an __init__ that takes **shared", str(inspect.signature(cls)), hint)
    LOSSES[cls.name] = cls
    return cls


def hand_made(name: str, num_classes: int, ignore_index: int, options: Mapping[str, Any]) -> SegLoss:
    """Build one of `LOSSES`.

    Raises:
        InputError: an unknown option, a value out of range, or one class under a softmax.
    """
    check_options(name, options)
    loss = LOSSES[name](num_classes, ignore_index=ignore_index, **options)
    loss.check_classes()
    return loss


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise for options that one of `LOSSES` does not have, or that have another type.

    Raises:
        InputError: the first of them.
    """
    known = option_names(LOSSES[name])
    for option in options:
        if option not in known:
            weighs = name == "ce" and "weight" in option
            hint = "wce(class_weight=[…]) is cross-entropy with a weight for each class." if weighs else ""
            raise unknown_name(f"option of {name}", option, known, hint)
    check_kinds(LOSSES[name], options)


def option_names(loss: type[SegLoss]) -> list[str]:
    """Return the options that the loss's constructor takes, including those of its base classes."""
    named = inspect.Parameter.KEYWORD_ONLY
    owners = [owner for owner in loss.__mro__ if issubclass(owner, SegLoss)]
    parameters = [p for owner in owners for p in inspect.signature(owner.__init__).parameters.values()]
    return sorted({p.name for p in parameters if p.kind is named} - {"ignore_index"})
