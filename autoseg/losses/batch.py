"""One checked batch: logits, labels and which pixels count, the same for every loss.

Labels are wrong more often than formulas are, so they are looked at once, here, before any loss sees them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.errors import InputError
from autoseg.surrogates.ranks import rows_of_ranks, total_over_ranks
from autoseg.surrogates.soft_labels import ROW_SUM_TOLERANCE


@dataclass(frozen=True)
class Batch:
    """What a loss works on.

    Attributes:
        logits: (N, C, H, W), float32 or float64; gradient flows.
        labels: (N, H, W) int64 in [0, C), 0 where ignored; or (N, C, H, W) soft labels in [0, 1] of the
            logits' dtype.
        valid: (N, H, W) bool, the pixels that count.
        extra: what `loss.prepare` made of the labels, on the logits' device.
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
        """Number of pixels that count, at least 1 so that it can divide."""
        return self.total(self.valid).clamp(min=1)

    def target(self) -> Tensor:
        """(N, C, H, W) label probabilities of the logits' dtype: one-hot or soft, all zero where ignored."""
        if self.soft:
            return self.labels * self.valid[:, None]
        target = torch.zeros_like(self.logits)
        return target.scatter_(1, self.labels[:, None], self.valid[:, None].to(target.dtype))

    def probs(self) -> Tensor:
        """(N, C, H, W) softmax of the logits, all zero where ignored."""
        return self.logits.softmax(dim=1) * self.valid[:, None]

    def cross_entropy(self) -> Tensor:
        """(N, H, W) cross-entropy of each pixel in nats, zero where ignored."""
        if self.soft:
            return -(self.target() * self.logits.log_softmax(dim=1)).sum(dim=1)
        loss = F.cross_entropy(self.logits, self.labels, reduction="none")
        return loss.masked_fill(~self.valid, 0)  # where it may be infinite, the stand-in's logit being -inf

    def mean(self, values: Tensor) -> Tensor:
        """Mean of (N, H, W) pixel values over the pixels that count; 0 if none does."""
        return self.total(values * self.valid) / self.count

    def total(self, values: Tensor, dim: tuple[int, ...] | None = None) -> Tensor:
        """Sum over the dimensions `dim` (None: all), and over all ranks with `sync`."""
        total = values.sum(dim=dim)
        return total_over_ranks(total) if self.sync else total

    def rows(self, values: Tensor) -> Tensor:
        """(N, ...) of the images of this batch; of those of all ranks with `sync`."""
        return rows_of_ranks(values) if self.sync else values


def check_batch(
    logits: Tensor,
    labels: Tensor,
    *,
    num_classes: int,
    ignore_index: int,
    validate: bool | str = "auto",
    multilabel: bool = False,
) -> Batch:
    """Checks logits and labels against each other and brings them into one form.

    Half-precision logits become float32, because a sum over an image does not fit into 8 or 11 bits.

    Args:
        logits: (N, C, H, W), any float dtype.
        labels: (N, H, W) of any integer dtype, or (N, C, H, W) float whose rows over C sum to 1 (all zero:
            ignored).
        num_classes: C.
        ignore_index: the id of pixels that do not count.
        validate: "auto" checks values on eager CPU, asserts them on a device without waiting for it, and
            trusts them under `torch.compile`; True raises everywhere; False trusts.
        multilabel: the loss takes a sigmoid per class. Float labels are C independent masks: rows need not
            sum to 1 and none is ignored. With one class, integer labels are its mask, 0 or 1.

    Raises:
        InputError: shapes, dtypes or values that do not fit.
    """
    check_shapes(logits, labels, num_classes)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if labels.is_floating_point():
        labels = labels.to(logits.dtype)
        valid = torch.ones_like(labels[:, 0], dtype=torch.bool) if multilabel else labels.sum(dim=1) > 0
        checked = Batch(logits, labels, valid, {})
        okay = _soft_values_fit(labels, valid, multilabel)
        expected = "soft labels in [0, 1]" + ("" if multilabel else " whose rows sum to 1, or to 0 where ignored")
    else:
        labels = labels.long()  # first: a number that 8 bits do not hold would equal another
        valid = labels != ignore_index
        ids = labels.masked_fill(~valid, 0)
        binary = multilabel and num_classes == 1
        checked = Batch(logits, ids[:, None].to(logits.dtype) if binary else ids, valid, {})
        end = 2 if binary else num_classes
        low, high = torch.aminmax(ids) if ids.numel() else (ids.sum(), ids.sum())
        okay = (low >= 0) & (high < end)
        expected = f"ids in [0, {end}) or the ignore_index {ignore_index}"
    if validate is False or (validate == "auto" and torch.compiler.is_compiling()):
        return checked
    if validate == "auto" and labels.device.type != "cpu":
        torch._assert_async(okay, f"labels: expected {expected}")
    elif not bool(okay):
        shown = labels if labels.is_floating_point() else labels[valid]
        got = f"values from {shown.min().item():g} to {shown.max().item():g}"
        raise InputError("labels", expected, got, "Check the masks, num_classes and ignore_index.")
    return checked


def check_shapes(logits: Tensor, labels: Tensor, num_classes: int) -> None:
    """Raises InputError unless shapes and dtypes of logits and labels belong together."""
    if logits.dim() != 4 or not logits.is_floating_point() or logits.shape[1] != num_classes:
        expected = f"float of shape (N, {num_classes}, H, W)"
        raise InputError("logits", expected, f"{logits.dtype} of shape {tuple(logits.shape)}")
    n, c, h, w = logits.shape
    wanted = (n, c, h, w) if labels.is_floating_point() else (n, h, w)
    if tuple(labels.shape) != wanted or labels.dtype == torch.bool:
        expected = f"integer of shape {(n, h, w)} or float of shape {(n, c, h, w)}, as the logits are"
        raise InputError("labels", expected, f"{labels.dtype} of shape {tuple(labels.shape)}")


def _soft_values_fit(labels: Tensor, valid: Tensor, multilabel: bool) -> Tensor:
    """0-d bool: every value in [0, 1] and, unless multilabel, every row sums to 1 or is all zero."""
    inside = ((labels >= 0) & (labels <= 1)).all()
    if multilabel:
        return inside
    return inside & ((labels.sum(dim=1) - valid.to(labels.dtype)).abs() <= ROW_SUM_TOLERANCE).all()
