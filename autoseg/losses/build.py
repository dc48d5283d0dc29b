"""From the text a user writes to a loss: every hand-made loss by name, surrogates and cards, and sums."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autoseg.errors import InputError, unknown_name
from autoseg.losses.base import SegLoss, TakesExtra
from autoseg.losses.boundary import Boundary, DistancePenalizedCrossEntropy, UnetCrossEntropy
from autoseg.losses.expression import Term, parse
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

RESERVED = ("identity", "surrogate")  # words that mean something else where a loss is named


def loss_names() -> list[str]:
    """Names of all hand-made losses."""
    return list(LOSSES)


def own_losses() -> tuple[type[SegLoss], ...]:
    """The user's, in the order in which they were registered."""
    return tuple(loss for loss in LOSSES.values() if not is_ours(loss))


def register_loss(cls: type[SegLoss]) -> type[SegLoss]:
    """Class decorator: makes a hand-made loss known by its `name`, to `build_loss` and every command.

    Raises:
        InputError: it is no `SegLoss`, has no name and summary, a name that cannot be typed, or that of one of ours.
    """
    if not (isinstance(cls, type) and issubclass(cls, SegLoss)):
        raise InputError("register_loss", "a subclass of autoseg.SegLoss", repr(cls))
    check_own(cls, "loss", {**LOSSES, **dict.fromkeys(RESERVED, SegLoss)})
    LOSSES[cls.name] = cls
    return cls


def describe() -> list[tuple[str, str, str]]:
    """(name, one line, source) of every hand-made loss, for `autoseg losses`."""
    return [(loss.name, loss.summary, loss.source) for loss in LOSSES.values()]


def build_loss(
    spec: str,
    *,
    num_classes: int,
    ignore_index: int = 255,
    parts: Mapping[str, nn.Module] | None = None,
    identity: Mapping[str, Any] | None = None,
    **options: Any,
) -> nn.Module:
    """Builds a loss from its name, a sum of losses, a published surrogate or a loss card.

    Args:
        spec: a name of `loss_names()`, optionally with options in brackets ("tversky(alpha=0.3,beta=0.7)"); a
            surrogate such as "asl2021/miou" or "identity/biou"; the path of a card (.json) or of the run folder
            with it; or a sum of these, "0.25*ce+0.75*jml".
        num_classes: C.
        ignore_index: id of the pixels that do not count.
        identity: options of "identity/METRIC" where the text gives none: `space`, `tolerance`, `drop_background`.
        parts: losses that the text names beside those there are, e.g. a space's "surrogate".
        options: the loss's own options; in a sum only what every loss takes (`validate`).

    Returns:
        A module called as loss(logits, labels) or loss(logits, labels, extra), with `prepare(labels)` and
        `set_progress(share)`.

    Raises:
        InputError: unknown name or option, or a malformed sum.
    """
    from autoseg.losses.named import identity_of  # a card may hold a sum, which is built here

    if os.path.exists(spec) or identity_of(spec) is not None:  # may hold characters that sums use
        terms = [Term(1.0, spec)]
    else:
        terms = parse(spec)
    own = sorted(set(options) - {"validate"})
    if len(terms) > 1 and own:
        hint = f"Put it into the brackets of one loss, as in {terms[0].name}({own[0]}=...)."
        raise InputError("loss options", "none beside a sum", ", ".join(own), hint)
    given = parts or {}
    losses = [
        given[term.name]
        if term.name in given
        else _build_term(term, num_classes, ignore_index, {**options, **term.options}, identity or {})
        for term in terms
    ]
    if len(terms) == 1 and terms[0].weight == 1:
        return losses[0]
    return LossSum([term.weight for term in terms], losses)


def _build_term(
    term: Term, num_classes: int, ignore_index: int, options: dict[str, Any], identity: Mapping[str, Any]
) -> nn.Module:
    """One loss of a sum, without its weight."""
    if term.name not in LOSSES:
        from autoseg.losses.named import IDENTITY, load_loss

        usual = identity if term.name.startswith(f"{IDENTITY}/") else {}
        return load_loss(term.name, num_classes=num_classes, ignore_index=ignore_index, **{**usual, **options})
    loss = LOSSES[term.name]
    known = option_names(loss)
    for option in options:
        if option not in known:
            raise unknown_name(f"option of {term.name}", option, known)
    return loss(num_classes, ignore_index=ignore_index, **options)


def option_names(loss: type[SegLoss]) -> list[str]:
    """Options that the loss's constructor takes, its base classes' included."""
    named = inspect.Parameter.KEYWORD_ONLY
    owners = [owner for owner in loss.__mro__ if issubclass(owner, SegLoss)]
    parameters = [p for owner in owners for p in inspect.signature(owner.__init__).parameters.values()]
    return sorted({p.name for p in parameters if p.kind is named} - {"ignore_index"})


class LossSum(nn.Module):
    """A weighted sum of losses, itself a loss.

    Args:
        weights: one non-negative number per loss.
        losses: hand-made losses, surrogates or any loss(logits, labels).

    Attributes:
        replayable: as of every `SegLoss`; its losses speak for themselves.
    """

    replayable = True

    def __init__(self, weights: Sequence[float], losses: Sequence[nn.Module]) -> None:
        super().__init__()
        self.weights = tuple(weights)
        self.losses = nn.ModuleList(losses)

    def prepare(self, labels: Tensor) -> dict[str, Tensor]:
        """What its losses need beside the labels; keys carry the place of the loss in the sum."""
        return {
            f"{place}.{key}": value
            for place, loss in enumerate(self.losses)
            if isinstance(loss, TakesExtra)
            for key, value in loss.prepare(labels).items()
        }

    def set_progress(self, progress: float) -> None:
        """Tells its losses how far the training is, 0 to 1."""
        for loss in self.losses:
            if isinstance(loss, TakesExtra):
                loss.set_progress(progress)

    def forward(self, logits: Tensor, labels: Tensor, extra: Mapping[str, Tensor] | None = None) -> Tensor:
        """The weighted sum, a scalar; arguments as in `SegLoss.forward`."""
        values = []
        for place, (weight, loss) in enumerate(zip(self.weights, self.losses, strict=True)):
            if isinstance(loss, TakesExtra):
                values.append(weight * loss(logits, labels, _of_place(extra, place)))
            else:
                values.append(weight * loss(logits, labels))
        return torch.stack(values).sum()


def _of_place(extra: Mapping[str, Tensor] | None, place: int) -> dict[str, Tensor] | None:
    """The extra inputs of the loss at one place of a sum; None if nothing was prepared."""
    if extra is None:
        return None
    head = f"{place}."
    return {key.removeprefix(head): value for key, value in extra.items() if key.startswith(head)}
