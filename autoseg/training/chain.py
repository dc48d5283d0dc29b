"""Chains of convolution, batch normalisation and activation with few passes over their maps, on a CPU.

Layer by layer, maps are written by a convolution, read for their statistics, read and written again to be normalised,
and read by the next convolution; going backward twice as often. Here a convolution hands on its maps as they are, with
their statistics, which it takes while they are in the cache; whoever reads them normalises and clamps on the way. So a
map is written once and read once, and as often going backward. Statistics are results of their own with gradients of
their own: every function below is complete for itself.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from autoseg.training import native
from autoseg.training.native import Bounds, address, pixels
from autoseg.training.normalization import EIGHT, FastBatchNorm
from autoseg.training.pointwise import PointwiseConv

LAST = torch.channels_last


@dataclass(frozen=True)
class Link:
    """A convolution, the batch normalisation after it, and the bounds its activation clamps to."""

    conv: nn.Conv2d
    norm: FastBatchNorm
    bounds: Bounds

    def suits(self) -> bool:
        """Whether there are functions for it: a 1x1 or a 3x3 depthwise convolution without bias."""
        conv = self.conv
        if conv.bias is not None or conv.in_channels % EIGHT or conv.out_channels % EIGHT:
            return False
        return isinstance(conv, PointwiseConv) or _depthwise(conv)


def _depthwise(conv: nn.Conv2d) -> bool:
    """3x3, a filter a channel, padding that keeps the size but for the stride."""
    square = conv.kernel_size == (3, 3) and conv.stride[0] == conv.stride[1] and conv.dilation[0] == conv.dilation[1]
    single = conv.groups == conv.in_channels == conv.out_channels and conv.padding_mode == "zeros"
    return square and single and conv.padding == conv.dilation


def usable(links: Sequence[Link], maps: Tensor) -> bool:
    """Whether these links, all of which suit, can be run on these maps in one go, now."""
    several = maps.shape[0] > 1 or all(side > 2 for side in maps.shape[2:])  # strides leave more than one
    channels = [maps.shape[1], *(link.conv.out_channels for link in links)] if maps.ndim == 4 else []
    return (  # of what does not fit, the layers themselves tell
        maps.device.type == "cpu"
        and several
        and maps.numel() > 0
        and [link.conv.in_channels for link in links] == channels[:-1]
        and [link.norm.num_features for link in links] == channels[1:]
        and maps.is_contiguous(memory_format=LAST)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and all(link.norm.training and _plain(maps, link.conv, link.norm) for link in links)
        and native.library() is not None
    )


def _plain(maps: Tensor, conv: nn.Conv2d, norm: FastBatchNorm) -> bool:
    same = maps.dtype == conv.weight.dtype == norm.weight.dtype == torch.float32
    watched = any(each._forward_hooks or each._forward_pre_hooks or each._backward_hooks for each in (conv, norm))
    return same and not watched


def run(links: Sequence[Link], maps: Tensor, added: Tensor | None = None) -> Tensor:
    """All links one after the other, in training: (N, C, H, W) to (N, D, h, w), to which `added` is added."""
    norm: tuple[Any, ...] = (None, None, None, None)
    bounds = (0.0, 0.0)
    for link in links:
        if link.norm.num_batches_tracked is not None:
            link.norm.num_batches_tracked.add_(1)
        maps, mean, inverse = _Conv.apply(maps, link.conv.weight, *norm, bounds, link)
        norm, bounds = (mean, inverse, link.norm.weight, link.norm.bias), link.bounds
    result: Tensor = _Finish.apply(maps, *norm, added, bounds)
    return result


class _Returned(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("grad", "maps", "mean", "inverse", "to_mean", "to_inverse")]


class _Given(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("to_mean", "to_inverse", "to_weight", "to_bias")]


class _Depthwise(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("images", "height", "width", "channels", "stride", "dilation")]


def _sizes(maps: Tensor, conv: nn.Conv2d) -> tuple[str, tuple[Any, ...]]:
    """The function for a convolution of maps, and the sizes and number of threads it takes."""
    threads = torch.get_num_threads()
    images, channels, height, width = maps.shape
    if conv.groups == 1:
        return "pointwise", (*map(ctypes.c_int64, (images * height * width, channels, conv.out_channels)), threads)
    layer = _Depthwise(images, height, width, channels, conv.stride[0], conv.dilation[0])
    return "depthwise", (ctypes.byref(layer), threads)


class _Conv(torch.autograd.Function):
    """(maps, weight, the norm of the maps or None four times) to maps, their mean and 1 / deviation."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
        *norm, bounds, link = rest
        stride, (images, _, height, width) = link.conv.stride[0], maps.shape
        shape = (images, len(weight), (height - 1) // stride + 1, (width - 1) // stride + 1)
        result = torch.empty(shape, memory_format=LAST)
        mean, inverse = torch.empty(len(weight)), torch.empty(len(weight))
        name, sizes = _sizes(maps, link.conv)
        weight = weight.contiguous()
        wanted = native.statistics(mean, inverse, link.norm)
        native.call(name, *sizes, maps, native.norm(norm, bounds), weight, result, wanted)
        ctx.save_for_backward(maps, weight, *norm, result, mean, inverse)
        ctx.bounds, ctx.conv = bounds, link.conv
        return result, mean, inverse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, to_mean: Tensor, to_inverse: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight, *norm, result, mean, inverse = ctx.saved_tensors
        grad = grad.contiguous(memory_format=LAST)
        wanted = norm[0] is not None or ctx.needs_input_grad[0] or ctx.conv.groups > 1
        to_maps, to_weight = torch.empty_like(maps) if wanted else None, torch.empty_like(weight)
        returned = _Returned(*(address(each) for each in (grad, result, mean, inverse, to_mean, to_inverse)))
        to_norm = _empty_norm(norm)
        given = _Given(*(address(each) for each in to_norm))
        name, sizes = _sizes(maps, ctx.conv)
        native.call(f"{name}_back", *sizes, ctypes.byref(returned), maps, native.norm(norm, ctx.bounds), weight,
                      to_maps, to_weight, ctypes.byref(given))  # fmt: skip
        return to_maps, to_weight, *to_norm, None, None


class _Finish(torch.autograd.Function):
    """The norm and activation of maps, with what is added to them."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, *rest: Any) -> Tensor:
        *norm, added, bounds = rest
        result = torch.empty_like(maps)
        added = None if added is None else added.contiguous(memory_format=LAST)
        native.call("finish", *pixels(maps), maps, native.norm(norm, bounds), added, result)
        ctx.save_for_backward(maps, *norm)
        ctx.bounds = bounds
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        maps, *norm = ctx.saved_tensors
        grad = grad.contiguous(memory_format=LAST)
        to_maps, to_norm = torch.empty_like(maps), _empty_norm(norm)
        given = _Given(*(address(each) for each in to_norm))
        read = native.norm(norm, ctx.bounds)
        native.call("finish_back", *pixels(maps), grad, maps, read, to_maps, ctypes.byref(given))
        return to_maps, *to_norm, grad if ctx.needs_input_grad[5] else None, None


def _empty_norm(norm: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [None if each is None else torch.empty_like(each) for each in norm]
