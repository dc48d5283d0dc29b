"""Losses made of true positives, false positives and false negatives of whole regions.

They share one form: 1 - (tp + smooth) / (tp + alpha fp + beta fn + smooth) per class, from sums over a region; alpha =
beta = 1 is Jaccard, 1/2 is Dice. They differ in how tp is counted and over which regions the mean is taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from autoseg.errors import InputError
from autoseg.losses.base import SegLoss, check_range, class_vector
from autoseg.losses.batch import Batch

PRESENT = 0.01  # a class is present where its label exceeds this
Letter = Literal["D", "I", "C"]


class RegionLoss(SegLoss):
    """Tversky loss of probabilities p and labels y, per class, with all its options.

    Args:
        num_classes: C.
        alpha: weight of false positives, 0 or more; None: the first of `prices`.
        beta: weight of false negatives, 0 or more; None: the second of `prices`.
        reduction: weights of three ways to average. "D": sums over the batch, then the mean over classes;
            "I": sums per image, mean over classes, then over images; "C": the same sums, mean over images,
            then over classes. A single letter means only that way.
        classes: "present" averages over classes that the labels have (in the batch, or in the image), "all"
            over all C; "auto" is present for hard labels, all for soft ones.
        class_weight: C numbers, weights of the classes in the mean; only their ratios matter (in JDTLosses also their
            size).
        gamma: power of a class's loss; above 1 it emphasises hard classes. None: `power`.
        log: -log(score) instead of 1 - score: a large gradient for classes whose score is near 0.
        smooth: pixels added to numerator and denominator, above 0.
        common: options of `SegLoss`.
    """

    pointwise = True
    prices: ClassVar[tuple[float, float]] = (1.0, 1.0)  # default alpha and beta
    power: ClassVar[float] = 1.0  # default gamma
    class_weight: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        alpha: float | None = None,
        beta: float | None = None,
        reduction: Letter | Mapping[Letter, float] = "D",
        classes: Literal["auto", "present", "all"] = "auto",
        class_weight: Sequence[float] | None = None,
        gamma: float | None = None,
        log: bool = False,
        smooth: float = 1e-3,
        **common: Any,
    ) -> None:
        super().__init__(num_classes, **common)
        self.alpha = check_range("alpha", self.prices[0] if alpha is None else alpha, 0, math.inf)
        self.beta = check_range("beta", self.prices[1] if beta is None else beta, 0, math.inf)
        self.gamma = check_range("gamma", self.power if gamma is None else gamma, 0, math.inf, open_low=True)
        self.smooth = check_range("smooth", smooth, 0, math.inf, open_low=True)
        self.reduction = _reduction_weights(reduction)
        self.classes, self.log = classes, log
        weights = class_vector(
            [1.0] * num_classes if class_weight is None else class_weight, num_classes, "class_weight"
        )
        self.register_buffer("class_weight", weights, persistent=False)

    def parts(self, p: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return pixelwise tp, fp and fn of probabilities and labels, each (N, C, H, W)."""
        overlap = p * y
        return overlap, p - overlap, y - overlap

    def compute(self, batch: Batch) -> Tensor:
        """Return the mean over classes (and images) according to `reduction`."""
        p, y = batch.probs(), batch.target()
        # Differences before sums: exactly 0, never negative, where p equals y.
        sums = torch.stack([part.sum(dim=(2, 3)) for part in self.parts(p, y)], dim=1)  # (N, 3, C)
        weights = self._weights(y.amax(dim=(2, 3)) > PRESENT, batch)  # (N, C)
        values = []
        if "D" in self.reduction:
            values.append(self.reduction["D"] * self._over_data(sums, weights, batch))
        if self.reduction.keys() != {"D"}:
            rows, weights = batch.rows(sums).transpose(0, 1), batch.rows(weights)
            per_image = {"I": self._over_images, "C": self._over_classes}
            values += [share * per_image[name](rows, weights) for name, share in self.reduction.items() if name != "D"]
        return torch.stack(values).sum()

    def _over_data(self, sums: Tensor, weights: Tensor, batch: Batch) -> Tensor:
        """Return reduction D: one score per class over the batch. Of totals: ranks may have different numbers of
        images.
        """
        anywhere = batch.total((weights > 0).to(weights), (0,)) > 0
        return _mean(self._losses(batch.total(sums, (0,))), anywhere * self.class_weight.to(weights), dim=0)

    def _over_images(self, sums: Tensor, weights: Tensor) -> Tensor:
        """Return reduction I: one score per image and class, mean over classes, then over images."""
        return _mean(_mean(self._losses(sums), weights, dim=1), weights.sum(dim=1) > 0, dim=0)

    def _over_classes(self, sums: Tensor, weights: Tensor) -> Tensor:
        """Return reduction C: one score per image and class, mean over images, then over classes."""
        return _mean(_mean(self._losses(sums), weights > 0, dim=0), weights.amax(dim=0), dim=0)

    def _losses(self, sums: Tensor) -> Tensor:
        """Turn (3, ..., C) sums of tp, fp, fn into (..., C) losses."""
        tp, fp, fn = sums
        wrong = self.alpha * fp + self.beta * fn
        whole = tp + wrong + self.smooth
        losses = -torch.log((tp + self.smooth) / whole) if self.log else wrong / whole
        if self.gamma < 1:
            losses = losses.clamp(min=torch.finfo(losses.dtype).eps)  # at 0 the slope would be infinite
        return losses if self.gamma == 1 else losses**self.gamma

    def _weights(self, present: Tensor, batch: Batch) -> Tensor:
        """Return the (N, C) weight of each class in each image, 0 where it does not count."""
        every = self.classes == "all" or (self.classes == "auto" and batch.soft)
        counted = batch.valid.flatten(1).any(dim=1, keepdim=True).expand_as(present)
        return (counted if every else present) * self.class_weight.to(batch.logits)


def _mean(values: Tensor, weights: Tensor, dim: int) -> Tensor:
    """Return the weighted mean along `dim`; 0 where no weight is above 0."""
    total = weights.sum(dim=dim)
    return (values * weights).sum(dim=dim) / torch.where(total > 0, total, torch.ones_like(total))


def _reduction_weights(reduction: Letter | Mapping[Letter, float]) -> dict[Letter, float]:
    """Return the weights of the reductions that take part.

    Raises:
        InputError: a negative weight, or none above 0.
    """
    given = reduction if isinstance(reduction, Mapping) else {reduction: 1.0}
    for letter, weight in given.items():
        check_range(f"reduction {letter}", weight, 0, math.inf)
    taking_part = {letter: float(weight) for letter, weight in given.items() if weight}
    if not taking_part:
        raise InputError("reduction", "at least one weight above 0", given)
    return taking_part


class Jaccard(RegionLoss):
    """Soft Jaccard: 1 - S(py) / (S p + S y - S(py)) per class.

    Hard labels only: on soft ones its minimum is not at p = y (use jml). Options as in `RegionLoss`.
    """

    name = "jaccard"
    summary = "soft IoU with products, the mIoU surrogate at identity curves"
    source = "Rahman and Wang, ISVC 2016"


class Dice(RegionLoss):
    """Soft Dice, L1 form: 1 - 2 S(py) / (S p + S y) per class.

    Hard labels only: on soft ones its minimum is not at p = y (use dml, or dice_squared). Options as in
    `RegionLoss`, alpha = beta = 1/2 by default.
    """

    name = "dice"
    summary = "soft Dice with sums in the denominator, the common form"
    source = "Milletari et al., 3DV 2016, arXiv 1606.04797; Sudre et al., arXiv 1707.03237"
    prices = (0.5, 0.5)


class DiceSquared(RegionLoss):
    """V-Net's Dice: 1 - 2 S(py) / (S p^2 + S y^2) per class.

    As a member of the scheme: fp + fn = S p^2 + S y^2 - 2 S(py) = S (p - y)^2, so the loss is 0 exactly at
    p = y, with soft labels too. Options as in `RegionLoss`, without alpha and beta: an error has no sign here.
    """

    name = "dice_squared"
    summary = "V-Net's Dice with squares in the denominator; minimal at p = y, soft labels too"
    source = "Milletari et al., 3DV 2016, arXiv 1606.04797"
    soft_labels = True
    prices = (0.5, 0.5)

    def __init__(self, num_classes: int, **common: Any) -> None:
        for option in {"alpha", "beta"} & common.keys():
            hint = "Losses with prices for false positives and negatives: tversky, ctl."
            raise InputError("option of dice_squared", "no alpha and no beta", option, hint)
        super().__init__(num_classes, **common)

    def parts(self, p: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return p y, the squared error in place of both false positives and false negatives, and zeros."""
        error = (p - y).square()
        return p * y, error, torch.zeros_like(error)


class Tversky(RegionLoss):
    """Tversky loss: 1 - S(py) / (S(py) + alpha fp + beta fn) per class.

    alpha = 0.3 and beta = 0.7 by default, the paper's best: a missed pixel costs more than a false one. Hard
    labels only (use ctl). Options as in `RegionLoss`.
    """

    name = "tversky"
    summary = "Jaccard with separate prices for false positives (alpha) and false negatives (beta)"
    source = "Salehi et al., MLMI 2017, arXiv 1706.05721"
    prices = (0.3, 0.7)


class FocalTversky(RegionLoss):
    """Focal Tversky loss: (1 - Tversky index)^gamma per class.

    gamma = 3/4 by default: the paper writes the power as 1/gamma with gamma = 4/3, and calls alpha the price
    of false negatives, which is beta here. Hard labels only. Options as in `RegionLoss`.
    """

    name = "focal_tversky"
    summary = "Tversky loss to a power, which turns between easy and hard classes"
    source = "Abraham and Khan, ISBI 2019, arXiv 1810.07842"
    prices = (0.3, 0.7)
    power = 0.75
