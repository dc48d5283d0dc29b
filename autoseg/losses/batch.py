"""One checked batch: logits, labels and the pixels that count, the same for every loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.metrics.labels import Validate, check_labels
from autoseg.surrogates.ranks import rows_of_ranks, total_over_ranks


@dataclass(frozen=True)
class Batch:
    """The input of a loss.

    Attributes:
        logits: (N, C, H, W), float32 or float64; gradient flows.
        labels: (N, H, W) int64 in [0, C), 0 where ignored; or (N, C, H, W) soft labels in [0, 1] of the
            logits' dtype.
        valid: (N, H, W) bool, the pixels that count.
        extra: the result of `loss.prepare` for the labels, on the logits' device.
        sync: sums are taken over the batches of all ranks.
    """

    logits: Tensor
    labels: Tensor
    valid: Tensor
    extra: Mapping[str, Tensor]
    sync: bool = False

    @property
    def soft(self) -> bool:
        """Whether the labels are (N, C, H, W)."""
        return self.labels.dim() == 4

    @property
    def count(self) -> Tensor:
        """The number of pixels that count, at least 1 so that it can divide."""
        return self.total(self.valid).clamp(min=1)

    def target(self) -> Tensor:
        """Return (N, C, H, W) label probabilities of the logits' dtype: one-hot or soft, all zero where ignored."""
        if self.soft:
            return self.labels * self.valid[:, None]
        target = torch.zeros_like(self.logits)
        return target.scatter_(1, self.labels[:, None], self.valid[:, None].to(target.dtype))

    def probs(self) -> Tensor:
        """Return (N, C, H, W) softmax of the logits, all zero where ignored."""
        return self.logits.softmax(dim=1) * self.valid[:, None]

    def cross_entropy(self) -> Tensor:
        """Return (N, H, W) cross-entropy of each pixel in nats, zero where ignored."""
        if self.soft:
            return -(self.target() * self.log_p()).sum(dim=1)
        loss = F.cross_entropy(self.logits, self.labels, reduction="none")
        return loss.masked_fill(~self.valid, 0)  # ignored pixels have label 0, whose logit may be -inf

    def log_p(self) -> Tensor:
        """Return (N, C, H, W) log softmax of the logits, 0 where the label's probability is 0.

        Their product is NaN otherwise, for a class that the user has masked out with a logit of -inf.
        """
        return self.logits.log_softmax(dim=1).masked_fill(self.target() == 0, 0)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of (N, H, W) pixel values over the pixels that count; 0 if none does."""
        return self.total(values.masked_fill(~self.valid, 0)) / self.count

    def total(self, values: Tensor, dim: tuple[int, ...] | None = None) -> Tensor:
        """Return the sum over the dimensions `dim` (None: all), and over all ranks with `sync`."""
        total = values.sum(dim=dim)
        return total_over_ranks(total) if self.sync else total

    def rows(self, values: Tensor) -> Tensor:
        """Return (N, ...) for the images of this batch; with `sync`, for those of all ranks."""
        return rows_of_ranks(values) if self.sync else values


def check_batch(
    logits: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    ignore_index: int,
    validate: Validate = "auto",
    multilabel: bool = False,
) -> Batch:
    """Check the labels, and convert logits and labels to one form.

    Half-precision logits become float32, because a sum over an image does not fit into 8 or 11 bits.

    Args:
        logits: (N, C, H, W), any float dtype.
        labels: (N, H, W) of any integer dtype, or (N, C, H, W) float whose rows over C sum to 1 (all zero:
            ignored).
        num_classes: C.
        ignore_index: the id of pixels that do not count.
        validate: when values are checked, see `check_labels`.
        multilabel: the loss uses a sigmoid per class. Float labels are C independent masks: rows need not
            sum to 1 and none is ignored. With one class, integer labels are its mask, 0 or 1.

    Raises:
        InputError: labels with values that do not fit, see `check_labels`.
    """
    binary = multilabel and num_classes == 1
    check_labels(labels, 2 if binary else num_classes, ignore_index, validate, multilabel)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if labels.is_floating_point():
        labels = labels.to(logits.dtype)
        valid = torch.ones_like(labels[:, 0], dtype=torch.bool) if multilabel else labels.sum(dim=1) > 0
        return Batch(logits, labels, valid, {})
    labels = labels.long()  # first: in 8 bits, a larger ignore_index would equal another id
    valid = labels != ignore_index
    ids = labels.masked_fill(~valid, 0)
    return Batch(logits, ids[:, None].to(logits.dtype) if binary else ids, valid, {})
