"""Erosion and dilation of soft planes, with gradients: extremes over square windows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

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


class _Around(torch.autograd.Function):
    """The greatest value in a square around each of some pixels; its gradient goes to the first pixel that has it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pixels: Tensor, channels: Tensor, px: int) -> Tensor:
        height, width = x.shape[2:]
        *_, rows = slide(x, px, -1, torch.maximum, -torch.inf)
        reach = torch.arange(-px, px + 1, device=x.device).unsqueeze(1)
        row, column = pixels // width, pixels % width
        near = (row + reach).clamp_(0, height - 1).add_(channels * height)  # beyond the border: the row at it once more
        found, best = rows.view(-1).take(near * width + column).max(0)
        if ctx.needs_input_grad[0]:
            line = near.gather(0, best.unsqueeze(0)) * width
            near = (column + reach).clamp_(0, width - 1).add_(line)
            best = x.reshape(-1).take(near).argmax(0)
            ctx.shape = x.shape
            ctx.save_for_backward(near.gather(0, best.unsqueeze(0)).squeeze(0))
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (at,) = ctx.saved_tensors
        return grad.new_zeros(ctx.shape.numel()).index_add_(0, at, grad).view(ctx.shape), None, None, None


def greatest_around(x: Tensor, pixels: Tensor, channels: Tensor, px: int) -> Tensor:
    """Return `dilated(x, px)` at some pixels only.

    Args:
        x: (1, K, H, W); gradients flow to it.
        pixels: (M,) int64, indices in a channel's H W.
        channels: (M,) int64, the channel of each pixel.
        px: radius, at least 1.

    Returns:
        (M,).
    """
    out: Tensor = _Around.apply(x, pixels, channels, px)
    return out


def dilated(x: Tensor, px: int) -> Tensor:
    """Return the maximum over squares of side 2*px+1, the border ignored, (N, K, H, W)."""
    return _extreme(x, px, True, -torch.inf)


def eroded(x: Tensor, px: int, outside: float) -> Tensor:
    """Return the minimum over squares of side 2*px+1, with the value `outside` beyond the border, (N, K, H, W)."""
    return _extreme(x, px, False, outside)


def _extreme(x: Tensor, px: int, largest: bool, fill: float) -> Tensor:
    if px == 0:
        return x
    for dim in (-1, -2):
        x = _Slide.apply(x, px, dim, largest, fill)
    return x
