"""Metrics of regions: how much of each class's area is right."""

from __future__ import annotations

from torch import Tensor

from autoseg.metrics.base import Metric, Ratio, Sums, register_metric
from autoseg.metrics.logic import Logic, Plane


@register_metric
class MIoU(Metric):
    """Mean intersection over union: mean_c S(p AND y) / S(p OR y)."""

    name = "miou"
    summary = "mean intersection over union"
    source = "Everingham et al., VOC"

    def sums(self, p: Plane, y: Plane, logic: Logic) -> Sums:
        """Return intersection, union and label area per class."""
        return {
            "and": logic.total(logic.and_(p, y)),
            "or": logic.total(logic.or_(p, y)),
            "label": logic.total(y),
        }

    def scores(self, s: Sums, ratio: Ratio) -> Tensor:
        """Return the IoU per class."""
        return ratio(s["and"], s["or"])


@register_metric
class FWIoU(MIoU):
    """Frequency weighted IoU: sum_c freq_c IoU_c, freq_c the share of label pixels."""

    name = "fwiou"
    summary = "IoU weighted by how often a class occurs"
    source = "Long et al., CVPR 2015"
    absent_rule = False

    def weights(self, s: Sums) -> Tensor:
        """Return the label area."""
        return s["label"]


@register_metric
class Dice(MIoU):
    """Mean Dice (F1 of areas): mean_c 2 S(p AND y) / (S(p AND y) + S(p OR y)), since |p| + |y| = AND + OR."""

    name = "dice"
    summary = "mean Dice score, F1 of areas"
    source = "Dice 1945"

    def scores(self, s: Sums, ratio: Ratio) -> Tensor:
        """Return Dice per class."""
        return ratio(2 * s["and"], s["and"] + s["or"])


@register_metric
class MAcc(Metric):
    """Mean class accuracy (recall): mean_c S(p AND y) / S(y)."""

    name = "macc"
    summary = "mean class accuracy"
    source = "Long et al., CVPR 2015"

    def sums(self, p: Plane, y: Plane, logic: Logic) -> Sums:
        """Return hits and label area per class."""
        return {"and": logic.total(logic.and_(p, y)), "label": logic.total(y)}

    def scores(self, s: Sums, ratio: Ratio) -> Tensor:
        """Return recall per class."""
        return ratio(s["and"], s["label"])


@register_metric
class GAcc(MAcc):
    """Global accuracy: S(p AND y) / S(y), all classes pooled."""

    name = "gacc"
    summary = "pixel accuracy, all classes pooled"
    absent_rule = False

    def scores(self, s: Sums, ratio: Ratio) -> Tensor:
        """Return the one pooled ratio, shape (1,)."""
        return ratio(s["and"].sum(-1, keepdim=True), s["label"].sum(-1, keepdim=True))

    def weights(self, s: Sums) -> Tensor:
        """Return the weight of the one ratio: the label area of all classes."""
        return s["label"].sum(-1, keepdim=True)
