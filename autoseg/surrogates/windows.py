"""Erosion and dilation of soft planes, with gradients: extremes over square windows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from autoseg.metrics.windows import shifts, slide


class _Slide(torch.autograd.Function):
    """Extreme over windows along one dimension; the gradient goes to one pixel that has it (of equals, the first)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, px: int, dim: int, largest: bool, fill: float) -> Tensor:
        *steps, result = slide(x, px, dim, torch.maximum if largest else torch.minimum, fill)
        ctx.px, ctx.dim, ctx.largest = px, dim, largest
        ctx.save_for_backward(*steps)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        dim, compare = ctx.dim, torch.ge if ctx.largest else torch.le
        steps = zip(reversed(ctx.saved_tensors), reversed(list(shifts(ctx.px))), strict=True)
        for a, shift in steps:
            size = a.shape[dim] - shift
            first, second = a.narrow(dim, 0, size), a.narrow(dim, shift, size)
            share = compare(first, second, out=torch.empty_like(first, memory_format=torch.contiguous_format))
            both = torch.empty_like(a)
            kept = torch.mul(share, grad, out=both.narrow(dim, 0, size))
            torch.sub(grad, kept, out=share)
            both.narrow(dim, size, shift).zero_()
            both.narrow(dim, shift, size).add_(share)
            grad = both
        return grad.narrow(dim, ctx.px, grad.shape[dim] - 2 * ctx.px), None, None, None, None


def dilated(x: Tensor, px: int) -> Tensor:
    """Maximum over squares of side 2*px+1, the border ignored. (N, K, H, W)."""
    return _extreme(x, px, True, -torch.inf)


def eroded(x: Tensor, px: int, outside: float) -> Tensor:
    """Minimum over squares of side 2*px+1, with the value `outside` beyond the border. (N, K, H, W)."""
    return _extreme(x, px, False, outside)


def _extreme(x: Tensor, px: int, largest: bool, fill: float) -> Tensor:
    if px == 0:
        return x
    if torch.compiler.is_exporting():  # a function with its own backward cannot be written to a file
        return _pooled(x if largest else -x, px, fill if largest else -fill) * (1 if largest else -1)
    for dim in (-1, -2):
        x = _Slide.apply(x, px, dim, largest, fill)
    return x


def _pooled(x: Tensor, px: int, fill: float) -> Tensor:
    """Maximum over windows by torch's own pooling."""
    side = 2 * px + 1
    padded = F.pad(x, (px,) * 4, value=fill)
    return F.max_pool2d(F.max_pool2d(padded, (1, side), 1), (side, 1), 1)
