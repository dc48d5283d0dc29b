"""Chains of convolution, batch normalisation and activation with few passes over their maps, on a CPU.

Layer by layer, maps are written by a convolution, read for their statistics, read and written again to be normalised,
and read by the next convolution; in the backward pass twice as often. Here a convolution passes its maps on without
normalising them, with their statistics, which it computes while the maps are in the cache; the next reader normalises
and clamps them as it reads. So a map is written once and read once, also in the backward pass. A whole chain is one
call and one function for autograd: with one per layer, Python would take longer than the small maps of a proxy.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from autoseg.training.layers import native
from autoseg.training.layers.native import Bounds
from autoseg.training.layers.normalization import EIGHT, FastBatchNorm
from autoseg.training.layers.pointwise import PointwiseConv

LAST = torch.channels_last
POINTWISE, DEPTHWISE, DENSE = range(3)  # kinds, as in `links.h`


@dataclass(frozen=True)
class Link:
    """A convolution, the batch normalisation after it, and the bounds its activation clamps to."""

    conv: nn.Conv2d
    norm: FastBatchNorm
    bounds: Bounds

    @cached_property
    def kind(self) -> int | None:
        """The number of its function in C++; None if there is none.

        There are functions for 1x1 convolutions, 3x3 depthwise ones, and 3x3 ones without stride and dilation from 32
        channels on, where they are faster than oneDNN's; all without bias.
        """
        conv = self.conv
        if conv.bias is not None or conv.in_channels % EIGHT or conv.out_channels % EIGHT:
            return None
        if isinstance(conv, PointwiseConv):
            return POINTWISE
        if conv.kernel_size != (3, 3) or conv.padding_mode != "zeros" or conv.padding != conv.dilation:
            return None
        if conv.groups == conv.in_channels == conv.out_channels:
            return DEPTHWISE if len({*conv.stride}) == len({*conv.dilation}) == 1 else None
        wide = conv.groups == 1 and min(conv.in_channels, conv.out_channels) >= 32
        return DENSE if wide and conv.stride == conv.dilation == (1, 1) else None

    def suits(self) -> bool:
        """Return whether there is a function for it."""
        return self.kind is not None


def usable(links: Sequence[Link], maps: Tensor) -> bool:
    """Return whether these links, all of which suit, can be run on these maps in one call, now."""
    channels = [maps.shape[1], *(link.conv.out_channels for link in links)] if maps.ndim == 4 else []
    return (  # if something does not fit, the layers themselves raise
        maps.device.type == "cpu"
        and maps.dtype == torch.float32
        and maps.numel() > 0
        and [link.conv.in_channels for link in links] == channels[:-1]
        and (maps.shape[0] > 1 or all(height * width > 1 for height, width in _sides(links, maps)))  # for a variance
        and maps.is_contiguous(memory_format=LAST)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and all(link.norm.training and _plain(link.conv, link.norm) for link in links)
        and native.library() is not None
    )


def _plain(conv: nn.Conv2d, norm: FastBatchNorm) -> bool:
    weight = conv.weight
    watched = any(each._forward_hooks or each._forward_pre_hooks or each._backward_hooks for each in (conv, norm))
    return weight.is_cpu and weight.dtype == torch.float32 and norm.fits(conv.out_channels) and not watched


def run(links: Sequence[Link], maps: Tensor, added: Tensor | None = None) -> Tensor:
    """Run all links one after the other, in training: (N, C, H, W) to (N, D, h, w), to which `added` is added."""
    parameters = [each for link in links for each in (link.conv.weight, link.norm.weight, link.norm.bias)]
    result: Tensor = _Chain.apply(links, maps, added, *parameters)
    return result


class _Link(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("kind", "in", "out", "stride", "dilation")),
        ("weight", ctypes.c_void_p),
        ("norm", native.Norm),
        ("statistics", native.Statistics),
        ("batches", ctypes.c_void_p),
        ("maps", ctypes.c_void_p),
    ]


class _Gradients(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("weight", "norm_weight", "norm_bias")]


class _Chain(torch.autograd.Function):
    """The autograd function of a chain.

    Its inputs are the links, the maps before them, maps to add to the result or None, and the parameters of the links.
    """

    @staticmethod
    def forward(ctx: Any, links: Sequence[Link], maps: Tensor, added: Tensor | None, *given: Tensor) -> Tensor:
        parameters = [each.contiguous(memory_format=LAST) if each.ndim == 4 else each for each in given]
        statistics = maps.new_empty(2 * sum(link.conv.out_channels for link in links))
        between = _empty_maps(links, maps)
        added = None if added is None else added.contiguous(memory_format=LAST)
        result = torch.empty_like(between[-1])
        described = _described(links, parameters, statistics, between)
        native.call("chain", described, *_sizes(links, maps), maps, added, result)
        ctx.save_for_backward(maps, statistics, *between, *parameters)
        ctx.links = links
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        links = ctx.links
        maps, statistics, *rest = ctx.saved_tensors
        between, parameters = rest[: len(links)], rest[len(links) :]
        grad = grad.contiguous(memory_format=LAST)
        to_maps = torch.empty_like(maps) if ctx.needs_input_grad[1] else None
        to_parameters = [torch.empty_like(each) for each in parameters]
        where = [each.data_ptr() for each in to_parameters]
        gradients = (_Gradients * len(links))(*(_Gradients(*where[i : i + 3]) for i in range(0, len(where), 3)))
        described = _described(links, parameters, statistics, between)
        native.call("chain_back", described, *_sizes(links, maps), maps, grad, gradients, to_maps)
        return None, to_maps, grad if ctx.needs_input_grad[2] else None, *to_parameters


def _sizes(links: Sequence[Link], maps: Tensor) -> tuple[Any, ...]:
    """Return the number of links, the size of the maps before them, and the number of threads."""
    images, _, height, width = maps.shape
    shape = (ctypes.c_int64 * 3)(images, height, width)
    return ctypes.c_int64(len(links)), shape, torch.get_num_threads()


def _empty_maps(links: Sequence[Link], maps: Tensor) -> list[Tensor]:
    """Return empty tensors for the output of each convolution."""
    shapes = [
        (len(maps), link.conv.out_channels, *sides) for link, sides in zip(links, _sides(links, maps), strict=True)
    ]
    return [torch.empty(one, dtype=maps.dtype, device=maps.device, memory_format=LAST) for one in shapes]


def _sides(links: Sequence[Link], maps: Tensor) -> Iterator[tuple[int, int]]:
    """Yield height and width of the output of each convolution."""
    height, width = maps.shape[2:]
    for link in links:
        stride = link.conv.stride[0]
        height, width = (height - 1) // stride + 1, (width - 1) // stride + 1
        yield height, width


def _described(
    links: Sequence[Link], parameters: Sequence[Tensor], statistics: Tensor, between: Sequence[Tensor]
) -> Any:
    """Return the links as C++ structures; their statistics are stored one after the other, mean and 1 / deviation."""
    result, at = (_Link * len(links))(), statistics.data_ptr()
    for i, (link, maps) in enumerate(zip(links, between, strict=True)):
        conv, norm, channels = link.conv, link.norm, link.conv.out_channels
        weight, scale, bias = (each.data_ptr() for each in parameters[3 * i : 3 * i + 3])
        mean, inverse, at = at, at + 4 * channels, at + 8 * channels
        result[i] = _Link(
            link.kind, conv.in_channels, channels, conv.stride[0], conv.dilation[0], weight,
            native.Norm(mean, inverse, scale, bias, *link.bounds),
            native.statistics(mean, inverse, norm), native.address(norm.num_batches_tracked), maps.data_ptr(),
        )  # fmt: skip
    return result
