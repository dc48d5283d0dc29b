"""Fine-grained scores: averaged over images instead of over the data set's totals.

A data-set ratio (D) lets large objects dominate. Wang et al. (NeurIPS 2023 Datasets and Benchmarks,
arXiv 2310.19252) average per image instead, over the classes that the image's label has:

* I: the mean over an image's classes, then over images;
* C: the mean over the images that have a class, then over classes.
"""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from autoseg.metrics.base import Metric, Sums, exact_ratio, register_metric
from autoseg.metrics.region import Dice, MAcc, MIoU

WANG = "Wang et al., NeurIPS 2023"


class PerImage(Metric):
    """Mixin that keeps a metric's totals per image, (N, C), and states how scores are averaged.

    As an exact metric its state is the sum of scores and the number of them, per class ("C") or over images
    ("I"): float64, since a mean of ratios is not made of counts.
    """

    per_image = True
    absent_rule = False
    by_class: ClassVar[bool]

    def weights(self, s: Sums) -> Tensor:
        """(N, C): every image counts the same (I), or every class that any image has (C)."""
        present = (s["label"] > 0).double()
        share = present.sum(0 if self.by_class else 1, keepdim=True)
        return present / share.clamp_min(1)

    def _add(self, sums: Sums) -> None:
        if "score" not in sums:  # totals of a batch, not another instance's state
            sums = {name: part.sum(0) for name, part in self._image_sums(sums).items()}
        super()._add(sums)

    def _image_sums(self, sums: Sums) -> Sums:
        scores = self._image_scores(sums)
        return {"score": scores.nan_to_num(nan=0.0), "label": (~scores.isnan()).long()}

    def _image_scores(self, sums: Sums) -> Tensor:
        """(N, C) float64, NaN where an image lacks the class; "I": (N, 1), the mean over an image's classes."""
        scores = self.scores(sums, exact_ratio).masked_fill(sums["label"] == 0, math.nan)
        return scores if self.by_class else scores.nanmean(1, keepdim=True)

    def per_class(self) -> Tensor:
        """(C,) mean over the images that have the class, NaN if none has; "I": (1,), the mean over images."""
        return exact_ratio(self._state["score"], self._state["label"]) if self._state else self._of_nothing()

    def compute(self) -> Tensor:
        """0-d float64; NaN if no image has a label."""
        return self.per_class().nanmean()


@register_metric
class MIoUI(PerImage, MIoU):
    """IoU per image, averaged over images, each over its classes."""

    name = "miou_i"
    summary = "miou per image, mean over images, each over its classes"
    source = WANG
    by_class = False


@register_metric
class MIoUC(PerImage, MIoU):
    """IoU per image, averaged over classes, each over its images."""

    name = "miou_c"
    summary = "miou per image, mean over classes, each over its images"
    source = WANG
    by_class = True


@register_metric
class DiceI(PerImage, Dice):
    """Dice per image, averaged over images, each over its classes."""

    name = "dice_i"
    summary = "dice per image, mean over images, each over its classes"
    source = WANG
    by_class = False


@register_metric
class DiceC(PerImage, Dice):
    """Dice per image, averaged over classes, each over its images."""

    name = "dice_c"
    summary = "dice per image, mean over classes, each over its images"
    source = WANG
    by_class = True


@register_metric
class MAccI(PerImage, MAcc):
    """Accuracy per image, averaged over images, each over its classes."""

    name = "macc_i"
    summary = "macc per image, mean over images, each over its classes"
    source = WANG
    by_class = False


@register_metric
class MAccC(PerImage, MAcc):
    """Accuracy per image, averaged over classes, each over its images."""

    name = "macc_c"
    summary = "macc per image, mean over classes, each over its images"
    source = WANG
    by_class = True
