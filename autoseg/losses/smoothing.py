"""Cross-entropy with smoothed labels: everywhere, or only where classes meet."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from autoseg.errors import InputError
from autoseg.losses.base import SegLoss, check_range
from autoseg.losses.batch import Batch
from autoseg.metrics.bits import square, uniform


class SmoothCrossEntropy(SegLoss):
    """Cross-entropy with labels (1 - eps) y + eps / C.

    Args:
        num_classes: C.
        eps: share of the label that is spread over all classes, in [0, 1].
        common: options of `SegLoss`.
    """

    name = "smooth_ce"
    summary = "cross-entropy with label smoothing"
    source = "Szegedy et al., CVPR 2016, arXiv 1512.00567"
    pointwise = True
    soft_labels = True

    def __init__(self, num_classes: int, *, eps: float = 0.1, **common: Any) -> None:
        super().__init__(num_classes, **common)
        self.eps = check_range("eps", eps, 0, 1)

    def compute(self, batch: Batch) -> Tensor:
        """Return the mean over the valid pixels, in nats."""
        if self.eps == 0:  # also where a logit is -inf, and so the spread infinite
            return batch.mean(batch.cross_entropy())
        spread = -batch.logits.log_softmax(dim=1).mean(dim=1)
        return batch.mean((1 - self.eps) * batch.cross_entropy() + self.eps * spread)


class BoundarySmoothCrossEntropy(SegLoss):
    """Cross-entropy with labels smoothed by `eps` at boundary pixels only.

    A boundary pixel has another class among its `width` x `width` neighbours and no ignored pixel there.

    Args:
        num_classes: C.
        eps: share of a boundary pixel's label that is spread over all classes, in [0, 1].
        width: side of the neighbourhood in pixels, odd.
        common: options of `SegLoss`.
    """

    name = "boundary_smooth_ce"
    summary = "cross-entropy with labels smoothed where classes meet"
    source = "Wang et al., NeurIPS 2023, arXiv 2302.05666"

    def __init__(self, num_classes: int, *, eps: float = 0.5, width: int = 3, **common: Any) -> None:
        super().__init__(num_classes, **common)
        self.eps = check_range("eps", eps, 0, 1)
        if width < 3 or width % 2 == 0:
            raise InputError("width", "an odd number of pixels, 3 or more", width)
        self.width = width

    def compute(self, batch: Batch) -> Tensor:
        """Return the mean over the valid pixels, in nats."""
        eps = self.eps * label_boundary(batch.labels, batch.valid, self.width)
        spread = -batch.logits.log_softmax(dim=1).mean(dim=1)
        return batch.mean((1 - eps) * batch.cross_entropy() + eps * spread.masked_fill(eps == 0, 0))


def label_boundary(labels: Tensor, valid: Tensor, width: int) -> Tensor:
    """Return where labels change within a window, all of whose pixels count.

    Args:
        labels: (N, H, W) integer.
        valid: (N, H, W) bool, the pixels that count.
        width: side of the window around each pixel, odd, 3 or more.

    Returns:
        (N, H, W) float32, 0 or 1.
    """
    px = width // 2
    return (~uniform(labels, px, border=False) & ~square(~valid, px)).float()
