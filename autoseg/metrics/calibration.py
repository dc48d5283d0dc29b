"""Calibration: how far the network's probabilities are from the observed frequencies.

These are errors, so lower is better; a step function of the probabilities' bins has no surrogate, so they are reported
and never searched for. Bins are of equal width, bin m of M holding probabilities in ((m - 1) / M, m / M].
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from autoseg.errors import InputError
from autoseg.metrics.base import Metric, Sums, exact_ratio, register_metric
from autoseg.metrics.labels import as_images, check_ids, check_tensors

BINS = 15


class Calibration(Metric):
    """Mixin that counts the pixels in each bin, (K, BINS) for K = 1 (pooled) or K = C.

    State: "count" and "hits" int64, "confidence" the sum of the probabilities, float64. They add up over batches
    and workers.
    """

    needs_probs = True
    higher_is_better = False
    searchable = False
    adds_over_images = False  # its bins would, but storing them per image would take C x 15 x 3 numbers each
    source: ClassVar[str]

    def update(self, pred: Tensor, labels: Tensor) -> None:
        """Raise `InputError`: calibration cannot be computed from classes alone."""
        del pred, labels
        raise InputError(self.name, "probabilities (N, C, H, W)", "predicted classes", "Call update_probs.")

    @torch.no_grad()
    def update_probs(self, probs: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            probs: (N, C, H, W) float, softmax probabilities; (N, C, D, H, W) of volumes.
            labels: (N, H, W) or (N, D, H, W) integer labels, `ignore_index` for void.

        Raises:
            InputError: shapes that do not fit, values outside [0, 1], or an id out of range.
        """
        check_tensors(probs=probs, labels=labels)
        wanted = (len(labels), self.options.num_classes, *labels.shape[1:])
        if labels.dim() not in (3, 4) or tuple(probs.shape) != wanted:
            shapes = f"{(*probs.shape,)} and {(*labels.shape,)}"
            raise InputError("probs, labels", f"(N, {self.options.num_classes}, H, W) and (N, H, W)", shapes)
        probs, labels = as_images(probs, channels=True), as_images(labels, channels=False)
        if probs.device.type == "mps":  # an Apple GPU has no float64
            probs, labels = probs.cpu(), labels.cpu()
        if probs.numel() and not bool((probs.amin() >= 0) & (probs.amax() <= 1 + 1e-6)):  # so is it with NaN
            if probs.isnan().any():
                raise InputError("probs", "probabilities in [0, 1]", "NaN", "So were the logits: the network diverged.")
            raise InputError("probs", "probabilities in [0, 1]", "others", "Pass logits.softmax(1).")
        check_ids(labels, "labels", self.options.num_classes, self.options.ignore_index)
        pixels = (labels.reshape(-1) != self.options.ignore_index).nonzero().squeeze(1)
        found = self.bins(probs, labels.reshape(-1)[pixels].long(), pixels)
        self._add({k: v.cpu() for k, v in found.items()})

    def bins(self, probs: Tensor, labels: Tensor, pixels: Tensor) -> Sums:
        """Return the state of a batch: probs (N, C, H, W), labels (P,) of its valid pixels, and their indices among
        all pixels.
        """
        raise NotImplementedError

    def per_class(self) -> Tensor:
        """Return (K,) float64: sum over bins of |hits - confidence| / pixels; NaN before any pixel."""
        none = torch.zeros(0, dtype=torch.int64, device="cpu")
        state = self._state or self.bins(torch.zeros(0, self.options.num_classes, 1, 1, device="cpu"), none, none)
        gap = (state["hits"] - state["confidence"]).abs().sum(1)
        return exact_ratio(gap, state["count"].sum(1))

    def compute(self) -> Tensor:
        """Return the mean of `per_class`, 0-d float64."""
        return self.per_class().mean()


def tally(confidence: Tensor, hit: Tensor) -> Sums:
    """Count (P,) confidences in [0, 1], and those with `hit` (P,), into (BINS,) each."""
    confidence = confidence.double()  # half precision cannot say in which bin it is
    place = (confidence * BINS).ceil_().clamp_(1, BINS).long().sub_(1)
    # index_add, since bincount with weights is not deterministic on a GPU
    total = torch.zeros(BINS, dtype=torch.float64, device=place.device).index_add_(0, place, confidence)
    missed, hits = torch.bincount(place + BINS * hit, minlength=2 * BINS).view(2, BINS)
    return {"count": missed + hits, "hits": hits, "confidence": total}


@register_metric
class ECE(Calibration):
    """Expected calibration error of the predicted class: sum_b n_b / N |accuracy_b - mean confidence_b|."""

    name = "ece"
    summary = "expected calibration error of the predicted class, 15 bins; lower is better"
    source = "Guo et al., ICML 2017"

    def bins(self, probs: Tensor, labels: Tensor, pixels: Tensor) -> Sums:
        """Return one row: the highest probability, and whether its class is the label's."""
        confidence, pred = (found.reshape(-1)[pixels] for found in probs.max(1))
        return {key: row[None] for key, row in tally(confidence, pred == labels).items()}


@register_metric
class SCE(Calibration):
    """Static calibration error: ECE of every class's own probability, over all pixels, then the mean over all C.

    A class without labels counts too: any probability for it is error.
    """

    name = "sce"
    summary = "static calibration error, mean over classes, 15 bins; lower is better"
    source = "Nixon et al., CVPR Workshops 2019"

    def bins(self, probs: Tensor, labels: Tensor, pixels: Tensor) -> Sums:
        """Return a row per class: its probability, and whether the label is that class.

        One class after the other: all at once would take ten times the probabilities' memory, and more time.
        """
        rows = [tally(p.reshape(-1)[pixels], labels == index) for index, p in enumerate(probs.unbind(1))]
        return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
