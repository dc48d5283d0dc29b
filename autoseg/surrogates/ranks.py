"""Totals over all ranks of a distributed training, with the gradient that DistributedDataParallel expects.

A surrogate is a ratio of totals. If each GPU divided its own totals, the mean of those ratios would be another
metric, nearer to an average over images the smaller the batch per GPU. So totals are added up first.

The gradient. With S = sum_r S_r over W ranks, every rank has the same loss L(S), and the gradient of the
weights is sum_r L'(S) dS_r/dw. DistributedDataParallel averages the gradients of the ranks, (1/W) sum_r G_r, so each
rank must contribute G_r = W L'(S) dS_r/dw: the forward pass sums, and the backward pass multiplies by W. No
communication is needed there, because L'(S) is the same on all ranks; that holds as long as the computation after S
does not depend on the rank.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * dist.get_world_size()


def is_distributed() -> bool:
    """Return whether this process is one of several ranks."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def total_over_ranks(value: Tensor) -> Tensor:
    """Return the sum of a tensor over all ranks; the tensor itself if there is one rank.

    Args:
        value: any shape, the same on all ranks. Gradients flow; see the module's text for their factor.
    """
    total: Tensor = _Total.apply(value) if is_distributed() else value
    return total


def rows_of_ranks(value: Tensor) -> Tensor:
    """Concatenate the rows of all ranks, for values per image.

    Args:
        value: (N, ...); N may differ between ranks, as in the last batch of an epoch, and be 0. Gradients flow as in
            `total_over_ranks`.

    Returns:
        (sum of N, ...), rank by rank; the tensor itself if there is one rank.
    """
    if not is_distributed():
        return value
    rows = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=value.device)
    rows[dist.get_rank()] = len(value)
    dist.all_reduce(rows)
    counts = rows.tolist()
    before, after = sum(counts[: dist.get_rank()]), sum(counts[dist.get_rank() + 1 :])
    absent = [value.new_zeros(count, *value.shape[1:]) for count in (before, after)]
    return total_over_ranks(torch.cat([absent[0], value, absent[1]]))
