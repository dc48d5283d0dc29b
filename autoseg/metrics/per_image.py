"""Fine-grained scores: averaged over images instead of over the data set's totals.

A data-set ratio (D) lets large objects dominate. Wang et al. (NeurIPS 2023 Datasets and Benchmarks,
arXiv 2310.19252) average per image instead, over the classes that the image's label has:

* I: the mean over an image's classes, then over images;
* C: the mean over the images that have a class, then over classes.

Of two classes both count. (The authors' binary scores are of class 1 alone, and 1 for an image that lacks it.)
"""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from autoseg.metrics.base import Metric, Sums, exact, exact_ratio, register_metric, widest
from autoseg.metrics.region import Dice, MAcc, MIoU


class PerImage(Metric):
    """Mixin that computes a metric's totals per image, (N, C), and defines how scores are averaged.

    As an exact metric its state is the sum of scores and their number, per class and, for "I", also over
    images: float64, since a mean of ratios cannot be computed from counts.
    """

    source = "Wang et al., NeurIPS 2023"
    per_image = True
    absent_rule = False
    by_class: ClassVar[bool]

    def weights(self, s: Sums) -> Tensor:
        """Return (N, C) weights: every image counts the same (I), or every class that any image has (C)."""
        present = (s["label"] > 0).to(widest(s["label"].device))
        share = present.sum(0 if self.by_class else 1, keepdim=True)
        return present / share.clamp_min(1)

    def _add(self, sums: Sums) -> None:
        if "score" not in sums:  # totals of a batch, not another instance's state
            sums = {name: part.sum(0) for name, part in self._image_sums(sums).items()}
        super()._add(sums)

    def _image_sums(self, sums: Sums) -> Sums:
        parts = _counted(self._class_scores(sums))
        if self.by_class:
            return parts
        return _counted(self._image_scores(sums)) | {f"class_{name}": part for name, part in parts.items()}

    def _class_scores(self, sums: Sums) -> Tensor:
        """Return the scores, (N, C) float64, NaN where an image lacks the class or its weight is 0."""
        left_out = (sums["label"] == 0) | (self.weights(sums) == 0)
        return self.scores(exact(sums), exact_ratio).masked_fill(left_out, math.nan)

    def _image_scores(self, sums: Sums) -> Tensor:
        """Return the scores to average: "C": `_class_scores`; "I": (N, 1), the mean over an image's classes."""
        scores = self._class_scores(sums)
        return scores if self.by_class else scores.nanmean(1, keepdim=True)

    def per_class(self) -> Tensor:
        """Return (C,) float64: the mean over the images that have the class, NaN if none has."""
        if not self._state:
            return self._of_nothing()
        of = "" if self.by_class else "class_"
        return exact_ratio(self._state[f"{of}score"], self._state[f"{of}label"])

    def compute(self) -> Tensor:
        """Return 0-d float64; NaN if no image has a label. "I" is a mean over images, not that of `per_class`."""
        self._masks.warn()
        if self.by_class or not self._state:
            return self.per_class().nanmean()
        return exact_ratio(self._state["score"], self._state["label"])[0]


def _counted(scores: Tensor) -> Sums:
    """Return scores in a form that can be added up, with their number."""
    return {"score": scores.nan_to_num(nan=0.0), "label": (~scores.isnan()).long()}


@register_metric
class MIoUI(PerImage, MIoU):
    """IoU per image, averaged over images, each over its classes."""

    name = "miou_i"
    summary = "miou per image, mean over images, each over its classes"
    by_class = False


@register_metric
class MIoUC(PerImage, MIoU):
    """IoU per image, averaged over classes, each over its images."""

    name = "miou_c"
    summary = "miou per image, mean over classes, each over its images"
    by_class = True


@register_metric
class DiceI(PerImage, Dice):
    """Dice per image, averaged over images, each over its classes."""

    name = "dice_i"
    summary = "dice per image, mean over images, each over its classes"
    by_class = False


@register_metric
class DiceC(PerImage, Dice):
    """Dice per image, averaged over classes, each over its images."""

    name = "dice_c"
    summary = "dice per image, mean over classes, each over its images"
    by_class = True


@register_metric
class MAccI(PerImage, MAcc):
    """Accuracy per image, averaged over images, each over its classes."""

    name = "macc_i"
    summary = "macc per image, mean over images, each over its classes"
    by_class = False


@register_metric
class MAccC(PerImage, MAcc):
    """Accuracy per image, averaged over classes, each over its images."""

    name = "macc_c"
    summary = "macc per image, mean over classes, each over its images"
    by_class = True
