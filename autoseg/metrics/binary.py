"""Metrics of the foreground: of all classes except class 0; for two classes, of class 1 alone."""

from __future__ import annotations

import torch
from torch import Tensor

from autoseg.metrics.base import Metric, Ratio, Sums, register_metric
from autoseg.metrics.region import Dice, MAcc, MIoU


class Foreground(Metric):
    """Mixin: class 0, the background, is left out of the mean and has the score NaN."""

    source = "van Rijsbergen 1979"

    def weights(self, s: Sums) -> Tensor:
        """Return equal weights, 0 for class 0."""
        weights = super().weights(s)
        weights[..., 0] = 0
        return weights

    def per_class(self) -> Tensor:
        """Return `Metric.per_class` with NaN for class 0."""
        scores = super().per_class()
        scores[0] = torch.nan
        return scores


@register_metric
class Precision(Foreground, MIoU):
    """Precision of the foreground: S(p AND y) / S(p), where S(p) = S(p OR y) - S(y) + S(p AND y).

    A class that the labels have but no pixel is predicted as scores 0. As a surrogate, AND's curve shapes the hits
    and OR's curve the false positives.
    """

    name = "precision"
    summary = "precision of class 1 (several classes: of all but class 0)"

    def scores(self, s: Sums, ratio: Ratio) -> Tensor:
        """Return the precision per class."""
        return ratio(s["and"], s["or"] - s["label"] + s["and"], empty=0.0)

    def per_class(self) -> Tensor:
        """Return `Foreground.per_class` with NaN where neither label nor prediction has the class."""
        scores = super().per_class()
        return scores.masked_fill(self._state["or"] == 0, torch.nan) if self._state else scores


@register_metric
class Recall(Foreground, MAcc):
    """Recall of the foreground: S(p AND y) / S(y)."""

    name = "recall"
    summary = "recall of class 1 (several classes: of all but class 0)"


@register_metric
class F1(Foreground, Dice):
    """F1 of the foreground, its Dice score: 2 S(p AND y) / (S(p) + S(y))."""

    name = "f1"
    summary = "F1 (Dice) of class 1 (several classes: of all but class 0)"
