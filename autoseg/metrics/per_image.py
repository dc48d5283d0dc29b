"""Fine-grained scores: averaged over images instead of over the data set's totals.

A data-set ratio (D) lets large objects dominate. Wang et al. (NeurIPS 2023 Datasets and Benchmarks,
arXiv 2310.19252) average per image instead, over the classes that the image's label has:

* I: the mean over an image's classes, then over images;
* C: the mean over the images that have a class, then over classes.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from autoseg.metrics.base import Metric, Sums, exact_ratio, register_metric
from autoseg.metrics.region import Dice, MAcc, MIoU


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
            present = sums["label"] > 0
            scores = torch.where(present, self.scores(sums, exact_ratio), 0.0)
            if not self.by_class:
                scores = scores.sum(1, keepdim=True) / present.sum(1, keepdim=True).clamp_min(1)
                present = present.any(1, keepdim=True)
            sums = {"score": scores.sum(0), "label": present.sum(0)}
        super()._add(sums)

    def per_class(self) -> Tensor:
        """(C,) mean over the images that have the class, NaN if none has; "I": (1,), the mean over images."""
        if not self._state:
            return super().per_class()
        return exact_ratio(self._state["score"], self._state["label"])

    def compute(self) -> Tensor:
        """0-d float64; NaN if no image has a label."""
        return self.per_class().nanmean()


def _variant(base: type[Metric], letter: str) -> type[Metric]:
    over = "classes, each over its images" if letter == "c" else "images, each over its classes"
    return register_metric(
        type(
            f"{base.__name__}{letter.upper()}",
            (PerImage, base),
            {
                "__module__": __name__,
                "__doc__": f"{base.name}, computed per image and averaged over {over}.",
                "name": f"{base.name}_{letter}",
                "summary": f"{base.name} per image, mean over {over}",
                "source": "Wang et al., NeurIPS 2023",
                "by_class": letter == "c",
            },
        )
    )


MIoUI, MIoUC = _variant(MIoU, "i"), _variant(MIoU, "c")
DiceI, DiceC = _variant(Dice, "i"), _variant(Dice, "c")
MAccI, MAccC = _variant(MAcc, "i"), _variant(MAcc, "c")
