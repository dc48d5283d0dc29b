"""Lovász-softmax: the convex closure of the Jaccard loss."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from autoseg.losses.base import SegLoss
from autoseg.losses.batch import Batch

CHUNK = 2**20  # number of errors sorted at once: limits the memory of the sort; more was not faster


class Lovasz(SegLoss):
    """Lovász-softmax loss: mean over classes of the Lovász extension of 1 - IoU.

    With the errors e_i = |y_i - p_i| of a class sorted to descend and J(k) = 1 - IoU once the first k pixels
    are wrong, a class's loss is the sum over k of e_(k) (J(k) - J(k-1)) (Berman et al. 2018, eq. 8 and 9).

    Args:
        num_classes: C.
        classes: "present" averages over the classes that the labels have, "all" over all C.
        per_image: mean of one loss per image; otherwise the batch is one set of pixels.
        common: options of `SegLoss`.
    """

    name = "lovasz"
    summary = "Lovász extension of the Jaccard loss; among the strongest hand-made rivals in short trainings"
    source = "Berman et al., CVPR 2018, arXiv 1705.08790"
    pointwise = True
    rank_local = True  # sorts the pixels of the batch

    def __init__(
        self,
        num_classes: int,
        *,
        classes: Literal["present", "all"] = "present",
        per_image: bool = False,
        **common: Any,
    ) -> None:
        super().__init__(num_classes, **common)
        self.classes, self.per_image = classes, per_image

    def compute(self, batch: Batch) -> Tensor:
        """Return the mean over the classes that count, then over images if `per_image`."""
        target = batch.target()
        errors = self._rows((target - batch.probs()).abs())
        truth = self._rows(target > 0)
        valid = self._rows(batch.valid[:, None].expand_as(target))
        counts = truth.any(dim=1) if self.classes == "present" else valid.any(dim=1)
        if errors.device.type == "cpu" and not torch.compiler.is_compiling():
            kept = counts.nonzero()[:, 0]  # no sorting for classes that do not count; a GPU would have to wait
        else:
            kept = torch.arange(len(counts), device=errors.device)
        weights = torch.zeros_like(errors)
        for part in kept.split(max(1, CHUNK // max(1, errors.shape[1]))):
            weights[part] = lovasz_weights(errors.detach()[part], truth[part], valid[part])
        per_row = (errors * weights).sum(dim=1) * counts
        counts = counts.view(-1, self.num_classes)
        per_set = per_row.view(-1, self.num_classes).sum(dim=1) / counts.sum(dim=1).clamp(min=1)
        return per_set.sum() / counts.any(dim=1).sum().clamp(min=1)

    def _rows(self, maps: Tensor) -> Tensor:
        """Reshape (N, C, H, W) to one row of pixels per class, or per image and class."""
        return maps.flatten(2).flatten(0, 1) if self.per_image else maps.transpose(0, 1).flatten(1)


@torch.no_grad()
def lovasz_weights(errors: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Return J(k) - J(k-1) for every pixel, k its rank among the errors of its row in descending order.

    Closed forms instead of differences: with n true pixels, f true and b false ones up to and including rank
    k, the step is 1 / (n + b) at a true pixel and (n - f) / ((n + b) (n + b - 1)) at a false one. The steps are
    constant while the order of the errors does not change, so the sort takes no part in the gradient.

    Args:
        errors: (R, P) float, not negative.
        truth: (R, P) bool, pixels of the row's class.
        valid: (R, P) bool, pixels that count; the others get weight 0.

    Returns:
        (R, P) of the dtype of `errors`.
    """
    order = descending(errors.masked_fill(~valid, -1.0))
    true = truth.gather(1, order)
    n = truth.sum(dim=1, keepdim=True)
    f = true.cumsum(dim=1)
    union = n + torch.arange(1, errors.shape[1] + 1, device=errors.device) - f
    denominator = union.to(errors.dtype)
    steps = torch.where(true, 1 / denominator, (n - f) / (denominator * (denominator - 1).clamp(min=1)))
    # A class without a true pixel: the first false one takes the IoU from 1 to 0, the others change nothing.
    steps[:, :1] = torch.where(n == 0, 1.0, steps[:, :1])
    return torch.empty_like(errors).scatter_(1, order, steps) * valid


def descending(values: Tensor) -> Tensor:
    """Return the (R, P) indices that sort each row of `values` in descending order.

    float32 on the CPU: value bits and index are packed into one integer, for which NumPy has a vectorised
    sort (seven times faster here than `torch.sort`). Bits of non-negative floats order like the floats; a
    negative value counts as smaller than all others.
    """
    traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()  # there is no memory to read
    if values.device.type != "cpu" or values.dtype != torch.float32 or traced:
        return values.argsort(dim=1, descending=True)
    bits = values.contiguous().view(torch.int32).long().clamp(min=-1)
    packed = (-bits << 32) | torch.arange(values.shape[1], device=values.device)
    packed.numpy().sort(axis=1)
    return packed & 0xFFFFFFFF
