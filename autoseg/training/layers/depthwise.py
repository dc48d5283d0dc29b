"""Dilated depthwise convolutions computed tap by tap, since CPU libraries are slow at them.

Output stride 16 and atrous pooling give networks depthwise layers with dilation 2 to 18 on small maps. oneDNN has no
fast kernel for their backward pass: five of them took a sixth of an iteration of DeepLabV3+ MobileNetV2 at 128 pixels,
for a thousandth of its arithmetic. Here a layer is the sum of its taps, each the product of a shifted map and a weight
per channel; a tap that always falls on padding is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FAST_DILATION = 4  # up to here oneDNN's forward kernel is fast; the backward ones never are

Window = tuple[slice, slice]


class DilatedDepthwise(nn.Conv2d):
    """An odd-sized depthwise `Conv2d` with dilation, stride 1 and the padding that preserves the size.

    Weights and state dict are those of `Conv2d`; on a GPU, and in half precision, it computes as one. Where it is wider
    than the map, as two of three in an ASPP on 128 pixels, only the centre tap meets pixels: there it is a product.
    """

    @staticmethod
    def suits(layer: nn.Module) -> bool:
        """Return whether a layer can be computed this way."""
        if type(layer) is not nn.Conv2d or layer.groups != layer.in_channels or layer.padding_mode != "zeros":
            return False
        (height, width), dilation = layer.kernel_size, layer.dilation
        keeps = layer.padding == (dilation[0] * (height // 2), dilation[1] * (width // 2))
        shape = layer.out_channels == layer.in_channels and layer.stride == (1, 1) and height % 2 == width % 2 == 1
        return shape and keeps and max(dilation) > 1 and layer.bias is None

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, H, W) float to the same shape and layout."""
        if input.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
            wide = all(step >= side for step, side in zip(self.dilation, input.shape[-2:], strict=True))
            return self._centre(input) if wide else super().forward(input)
        result: Tensor = _Taps.apply(input, self.weight, self.dilation)
        return result

    def _centre(self, input: Tensor) -> Tensor:
        """Convolve with the centre tap alone, in the dtype of a convolution there."""
        height, width = self.kernel_size
        tap, kind = self.weight[:, :, height // 2, width // 2, None], input.device.type
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
            input, tap = input.to(dtype), tap.to(dtype)
        return input * tap


def taps(weight: Tensor, dilation: tuple[int, int], size: Sequence[int]) -> Iterator[tuple[int, int, Window, Window]]:
    """Yield the taps that meet the map: row and column in the kernel, the window to write, the window to read."""
    for row in range(weight.shape[-2]):
        for column in range(weight.shape[-1]):
            down = dilation[0] * (row - weight.shape[-2] // 2)
            right = dilation[1] * (column - weight.shape[-1] // 2)
            if abs(down) < size[0] and abs(right) < size[1]:
                (to_y, from_y), (to_x, from_x) = _span(down, size[0]), _span(right, size[1])
                yield row, column, (to_y, to_x), (from_y, from_x)


def _span(shift: int, size: int) -> tuple[slice, slice]:
    return slice(max(0, -shift), size - max(0, shift)), slice(max(0, shift), size - max(0, -shift))


def _correlated(maps: Tensor, weight: Tensor, dilation: tuple[int, int]) -> Tensor:
    """Return the convolution of (N, C, H, W) maps with (C, 1, h, w) weights, (N, C, H, W)."""
    if max(dilation) <= FAST_DILATION:
        padding = [step * (side // 2) for step, side in zip(dilation, weight.shape[-2:], strict=True)]
        return F.conv2d(maps, weight, None, 1, padding, dilation, len(weight))
    out = torch.zeros_like(maps)
    for row, column, (y, x), (v, u) in taps(weight, dilation, maps.shape[-2:]):
        out[..., y, x].addcmul_(maps[..., v, u], weight[:, :, row, column, None])
    return out


class _Taps(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, dilation: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.dilation = dilation
        return _correlated(maps, weight, dilation)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        maps, weight = ctx.saved_tensors
        to_weight = torch.zeros_like(weight)
        for row, column, (y, x), (v, u) in taps(weight, ctx.dilation, maps.shape[-2:]):
            to_weight[:, 0, row, column] = (grad[..., y, x] * maps[..., v, u]).sum((0, 2, 3))
        return _correlated(grad, weight.flip(-2, -1), ctx.dilation), to_weight, None
