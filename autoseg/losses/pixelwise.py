"""Losses that are a mean over pixels: cross-entropy and its weighted, focal and hard-mining forms, MSE."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.errors import InputError
from autoseg.losses.base import SegLoss, check_range, class_vector
from autoseg.losses.batch import Batch
from autoseg.losses.frequency import Scheme, class_weights, weights_of


class CrossEntropy(SegLoss):
    """Cross-entropy: mean over the valid pixels of -log p_y; of -sum_c y_c log p_c with soft labels.

    Args:
        num_classes: C.
        common: options of `SegLoss`.
    """

    name = "ce"
    summary = "cross-entropy, the mean over pixels of -log p of the true class"
    source = "maximum likelihood"
    pointwise = True
    soft_labels = True

    def compute(self, batch: Batch) -> Tensor:
        """Return the mean over the valid pixels, in nats."""
        return batch.mean(batch.cross_entropy())


class WeightedCrossEntropy(SegLoss):
    """Class-weighted cross-entropy: S_ic w_c y_ic (-log p_ic) / S_ic w_c y_ic, sums over valid pixels.

    Dividing by the weights keeps the loss's scale, as torch does for hard labels (for soft ones it divides by
    the number of pixels).

    Args:
        num_classes: C.
        class_weight: C numbers; or "inverse" or "median", counted from the labels given to `prepare` (the
            training set), or from each batch if nothing is prepared.
        common: options of `SegLoss`.
    """

    name = "wce"
    summary = "cross-entropy weighted by class, by list or by inverse or median frequency"
    source = "median frequency: Eigen and Fergus, ICCV 2015, arXiv 1411.4734"
    pointwise = True
    soft_labels = True
    fixed: Tensor | None

    def __init__(self, num_classes: int, *, class_weight: Scheme | Sequence[float] = "median", **common: Any) -> None:
        super().__init__(num_classes, **common)
        self.scheme: Scheme | None = None
        self.register_buffer("fixed", None, persistent=False)
        if not isinstance(class_weight, str):
            self.fixed = class_vector(class_weight, num_classes, "class_weight")
        else:
            self.scheme, self.extra_keys = class_weight, ("class_weight",)
            self.rank_local = True  # if each batch is counted, every rank has its own weights

    def prepare(self, labels: Tensor) -> dict[str, Tensor]:
        """Count the classes and return `class_weight` (C,). Soft labels are counted by their largest entry."""
        if self.scheme is None:
            return {}
        if labels.is_floating_point():
            void = -1  # of soft labels, the class with the id of `ignore_index` is one like any other
            labels = labels.argmax(dim=1).masked_fill(labels.sum(dim=1) == 0, void)
            return {"class_weight": class_weights(labels, self.scheme, self.num_classes, void)}
        return {"class_weight": class_weights(labels, self.scheme, self.num_classes, self.ignore_index)}

    def take_counts(self, pixels: Sequence[int], around: Sequence[int]) -> None:
        """Take the weights from counts of a whole data set (see `frequency.weights_of`) instead of from batches."""
        if self.scheme is not None:
            counts = [torch.tensor(listed, device="cpu") for listed in (pixels, around)]
            self.fixed = weights_of(counts[0], counts[1], self.scheme)
            self.scheme, self.extra_keys, self.rank_local = None, (), False

    def extra_shapes(self, batch: Batch) -> dict[str, tuple[int, ...]]:
        """Return the shape of one weight per class, if they are counted."""
        return {} if self.scheme is None else {"class_weight": (self.num_classes,)}

    def compute(self, batch: Batch) -> Tensor:
        """Return the weighted mean over the valid pixels, in nats."""
        weight = (batch.extra["class_weight"] if self.fixed is None else self.fixed).to(batch.logits)
        if batch.soft:
            weighted = batch.target() * weight[:, None, None]
            total = batch.total(-weighted * batch.log_p())
        else:
            weighted = weight[batch.labels] * batch.valid
            total = batch.total(weighted * batch.cross_entropy())
        return total / batch.total(weighted).clamp(min=torch.finfo(weighted.dtype).tiny)


class Focal(SegLoss):
    """Focal loss: mean over pixels of -alpha (1 - p_y)^gamma log p_y (Lin et al. 2017, eq. 4 and 5).

    Args:
        num_classes: C; with "sigmoid" 1 is a binary task with labels 0 and 1.
        mode: "softmax", one class per pixel; "sigmoid", C independent masks, mean over pixels and classes.
        gamma: focusing power, 0 or more; 0 is cross-entropy.
        alpha: "sigmoid": weight of positives, 1 - alpha that of negatives. "softmax": a factor, or one per
            class. None: no weight.
        common: options of `SegLoss`.
    """

    name = "focal"
    summary = "cross-entropy that fades for well classified pixels, softmax or sigmoid"
    source = "Lin et al., ICCV 2017, arXiv 1708.02002"
    pointwise = True
    soft_labels = True
    alpha: Tensor | None

    def __init__(
        self,
        num_classes: int,
        *,
        mode: Literal["softmax", "sigmoid"] = "softmax",
        gamma: float = 2.0,
        alpha: float | Sequence[float] | None = None,
        **common: Any,
    ) -> None:
        super().__init__(num_classes, **common)
        self.multilabel = mode == "sigmoid"
        self.gamma = check_range("gamma", gamma, 0, math.inf)
        self.register_buffer("alpha", None, persistent=False)
        if alpha is not None and self.multilabel:
            self.alpha = torch.tensor(check_range("alpha", alpha, 0, 1), device="cpu")
        elif alpha is not None:
            per_class = [float(alpha)] * num_classes if isinstance(alpha, float | Real) else alpha
            self.alpha = class_vector(per_class, num_classes, "alpha")

    def compute(self, batch: Batch) -> Tensor:
        """Return the mean over the valid pixels, in nats."""
        return batch.mean(self._sigmoid(batch) if self.multilabel else self._softmax(batch))

    def _softmax(self, batch: Batch) -> Tensor:
        logits, alpha = batch.logits, self.alpha
        weight = logits.new_ones(self.num_classes) if alpha is None else alpha.to(logits)
        if not batch.soft:
            entropy = batch.cross_entropy()
            return weight[batch.labels] * _fade(-torch.expm1(-entropy), self.gamma) * entropy
        log_p = batch.log_p()
        faded = batch.target() * _fade(-torch.expm1(log_p), self.gamma) * -log_p
        return (faded * weight[:, None, None]).sum(dim=1)

    def _sigmoid(self, batch: Batch) -> Tensor:
        target, p = batch.target(), batch.logits.sigmoid()
        entropy = F.binary_cross_entropy_with_logits(batch.logits, target, reduction="none")
        faded = _fade(p * (1 - target) + (1 - p) * target, self.gamma) * entropy
        if self.alpha is not None:
            alpha = self.alpha.to(batch.logits)
            faded = faded * (alpha * target + (1 - alpha) * (1 - target))
        return faded.mean(dim=1)


class Ohem(SegLoss):
    """Online hard example mining: mean cross-entropy of the pixels with p_y < thresh.

    If fewer than a share `min_kept` of the valid pixels are that hard, the hardest ones up to that share
    count, and all pixels that tie with the last of them.

    Args:
        num_classes: C.
        thresh: probability of the true class below which a pixel is hard, in (0, 1].
        min_kept: least share of the valid pixels that count, in [0, 1].
        common: options of `SegLoss`.
    """

    name = "ohem"
    summary = "cross-entropy of the hardest pixels only"
    source = "Shrivastava et al., CVPR 2016, arXiv 1604.03540"
    pointwise = True
    rank_local = True  # sorts the pixels of the batch

    def __init__(self, num_classes: int, *, thresh: float = 0.7, min_kept: float = 1 / 16, **common: Any) -> None:
        super().__init__(num_classes, **common)
        self.thresh = check_range("thresh", thresh, 0, 1, open_low=True)
        self.min_kept = check_range("min_kept", min_kept, 0, 1)

    def compute(self, batch: Batch) -> Tensor:
        """Return the mean over the hard pixels, in nats."""
        losses = batch.cross_entropy().flatten()
        valid = batch.valid.flatten()
        ranked = losses.detach().masked_fill(~valid, -1.0).sort(descending=True).values
        last = torch.minimum((self.min_kept * batch.count).ceil().long(), batch.count).clamp(min=1) - 1
        hardest = ranked.gather(0, last.view(1)) if self.min_kept else math.inf  # by index, a 0-d place would wait
        kept = valid & ((losses > -math.log(self.thresh)) | (losses >= hardest))
        return (losses * kept).sum() / kept.sum().clamp(min=1)


class MeanSquaredError(SegLoss):
    """Brier score: mean over valid pixels and classes of (p_c - y_c)^2.

    Args:
        num_classes: C.
        common: options of `SegLoss`.
    """

    name = "mse"
    summary = "squared error of the probabilities"
    source = "Brier, Monthly Weather Review 1950"
    pointwise = True
    soft_labels = True

    def compute(self, batch: Batch) -> Tensor:
        """Return the mean over the valid pixels and the classes."""
        return batch.mean((batch.probs() - batch.target()).square().mean(dim=1))


class WeightedMeanSquaredError(SegLoss):
    """Squared error in which a foreground pixel weighs `weight` times a background one.

    S_i w_i mean_c (p_ic - y_ic)^2 / S_i w_i with w_i = 1 + (weight - 1) (1 - y_i,background): for thin
    foreground such as cracks, 8:1.

    Args:
        num_classes: C.
        weight: weight of a foreground pixel; background has 1.
        background: id of the background class.
        common: options of `SegLoss`.
    """

    name = "wmse"
    summary = "squared error with heavier foreground pixels, for thin or rare objects"
    source = "crack segmentation practice (CrackForest, 8:1)"
    pointwise = True
    soft_labels = True

    def __init__(self, num_classes: int, *, weight: float = 8.0, background: int = 0, **common: Any) -> None:
        super().__init__(num_classes, **common)
        self.weight = check_range("weight", weight, 0, math.inf)
        if background not in range(num_classes):
            raise InputError("background", f"a class id in [0, {num_classes})", background)
        self.background = background

    def compute(self, batch: Batch) -> Tensor:
        """Return the weighted mean over the valid pixels and the classes."""
        target = batch.target()
        weight = (1 + (self.weight - 1) * (1 - target[:, self.background])) * batch.valid
        errors = (batch.probs() - target).square().mean(dim=1)
        return batch.total(weight * errors) / batch.total(weight).clamp(min=torch.finfo(weight.dtype).tiny)


def _fade(miss: Tensor, gamma: float) -> Tensor:
    """Return miss^gamma; `miss` is kept above 0, where a power below 1 has no finite slope."""
    return miss.clamp(min=torch.finfo(miss.dtype).eps ** 2) ** gamma if gamma else torch.ones_like(miss)
