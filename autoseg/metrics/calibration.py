"""Calibration: how far the network's probabilities are from the frequencies they promise.

Errors, so lower is better; a step function of the probabilities' bins has no surrogate, so they are reported and
never searched for. Bins are of equal width, bin m of M holding probabilities in ((m - 1) / M, m / M].
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from autoseg.errors import InputError
from autoseg.metrics.base import Metric, Sums, exact_ratio, register_metric
from autoseg.metrics.labels import check_ids, check_tensors

BINS = 15


class Calibration(Metric):
    """Mixin: counts what falls into each bin, (K, BINS) for K = 1 (pooled) or K = C.

    State: "count" and "hits" int64, "confidence" the sum of the probabilities, float64. They add up over batches
    and workers.
    """

    needs_probs = True
    higher_is_better = False
    searchable = False
    adds_over_images = False  # its bins would, but they are not kept by image: C x 15 x 3 numbers each
    source: ClassVar[str]

    def update(self, pred: Tensor, labels: Tensor) -> None:
        """Raises `InputError`: classes alone say nothing about calibration."""
        del pred, labels
        raise InputError(self.name, "probabilities (N, C, H, W)", "predicted classes", "Call update_probs.")

    def update_probs(self, probs: Tensor, labels: Tensor) -> None:
        """Adds a batch.

        Args:
            probs: (N, C, H, W) float, softmax probabilities.
            labels: (N, H, W) integer labels, `ignore_index` for void.

        Raises:
            InputError: shapes that do not fit, values outside [0, 1], or an id out of range.
        """
        check_tensors(probs=probs, labels=labels)
        wanted = (len(labels), self.options.num_classes, *labels.shape[1:])
        if labels.dim() != 3 or tuple(probs.shape) != wanted:
            shapes = f"{(*probs.shape,)} and {(*labels.shape,)}"
            raise InputError("probs, labels", f"(N, {self.options.num_classes}, H, W) and (N, H, W)", shapes)
        if not bool(((probs >= 0) & (probs <= 1 + 1e-6)).all()):
            if probs.isnan().any():
                raise InputError("probs", "probabilities in [0, 1]", "NaN", "So were the logits: the network diverged.")
            raise InputError("probs", "probabilities in [0, 1]", "others", "Pass logits.softmax(1).")
        check_ids(labels, "labels", self.options.num_classes, self.options.ignore_index)
        valid = labels != self.options.ignore_index
        self._add(self.bins(probs.movedim(1, -1)[valid].T, labels[valid].long()))

    def bins(self, probs: Tensor, labels: Tensor) -> Sums:
        """The state of a batch: probs (C, P) and labels (P,) of its valid pixels."""
        raise NotImplementedError

    def per_class(self) -> Tensor:
        """(K,) float64: sum over bins of |hits - confidence| / pixels; NaN if nothing has been seen."""
        state = self._state or self.bins(torch.zeros(self.options.num_classes, 0), torch.zeros(0, dtype=torch.int64))
        gap = (state["hits"] - state["confidence"]).abs().sum(1)
        return exact_ratio(gap, state["count"].sum(1))

    def compute(self) -> Tensor:
        """0-d float64, the mean of `per_class`."""
        return self.per_class().mean()


def tally(confidence: Tensor, hit: Tensor) -> Sums:
    """Counts (K, P) confidences in [0, 1], of which those with `hit` (K, P) came true, into (K, BINS) each."""
    rows = len(confidence)
    place = (confidence * BINS).ceil_().clamp_(1, BINS).long() - 1
    place = (place + BINS * torch.arange(rows, device=place.device).unsqueeze(1)).reshape(-1)
    size = rows * BINS
    # index_add, since bincount with weights is not deterministic on a GPU
    total = torch.zeros(size, dtype=torch.float64, device=place.device)
    sums = {
        "count": torch.bincount(place, minlength=size),
        "hits": torch.bincount(place[hit.reshape(-1)], minlength=size),
        "confidence": total.index_add_(0, place, confidence.reshape(-1).double()),
    }
    return {key: value.view(rows, BINS) for key, value in sums.items()}


@register_metric
class ECE(Calibration):
    """Expected calibration error of the predicted class: sum_b n_b / N |accuracy_b - mean confidence_b|."""

    name = "ece"
    summary = "expected calibration error of the predicted class, 15 bins; lower is better"
    source = "Guo et al., ICML 2017"

    def bins(self, probs: Tensor, labels: Tensor) -> Sums:
        """One row: the highest probability, and whether its class is the label's."""
        confidence, pred = probs.max(0, keepdim=True)
        return tally(confidence, pred == labels)


@register_metric
class SCE(Calibration):
    """Static calibration error: ECE of every class's own probability, over all pixels, then the mean over all C.

    A class that no label has counts too: what is promised to it is error.
    """

    name = "sce"
    summary = "static calibration error, mean over classes, 15 bins; lower is better"
    source = "Nixon et al., CVPR Workshops 2019"

    def bins(self, probs: Tensor, labels: Tensor) -> Sums:
        """A row per class: its probability, and whether the label is that class."""
        classes = torch.arange(len(probs), device=labels.device).unsqueeze(1)
        return tally(probs, labels == classes)
