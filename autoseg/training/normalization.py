"""Batch normalisation and the activation after it as one operation, on a CPU.

Apart they were a quarter of an iteration of DeepLabV3+ MobileNetV2 at 128 pixels: torch goes through every map 13
times, here it is 8. The activation's gradient is found again from the layer's input, so nothing is kept but that.
"""

from __future__ import annotations

import ctypes
import logging
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from autoseg import native

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_suffix(".cpp")
EIGHT = 8  # channels worked on at a time
Bounds = tuple[float, float]
NO_BOUNDS = (-float("inf"), float("inf"))


class FastBatchNorm(nn.BatchNorm2d):
    """A `BatchNorm2d` that can clamp its result; weights and state dict are the same.

    It is torch's own on a GPU, in other than float32, in other than channels-last order, and without a compiler.
    """

    @staticmethod
    def suits(layer: nn.Module) -> bool:
        """Whether a layer can be computed this way."""
        if type(layer) is not nn.BatchNorm2d or not layer.affine or not layer.track_running_stats:
            return False
        return layer.momentum is not None and layer.num_features % EIGHT == 0

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) float to the same shape and layout."""
        return self.clamped(input, NO_BOUNDS) if self.usable(input) else super().forward(input)

    def clamped(self, maps: Tensor, bounds: Bounds) -> Tensor:
        """Normalised, then clamped to the bounds (gradient 0 outside): `usable` (N, C, H, W) to the same."""
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        result: Tensor = _Normalized.apply(maps, self.weight, self.bias, self, bounds)
        return result

    def usable(self, maps: Tensor) -> bool:
        """Whether these maps can be computed this way, now."""
        plain = maps.device.type == "cpu" and maps.dtype == self.weight.dtype == torch.float32
        learns = torch.is_grad_enabled() and (maps.requires_grad or self.weight.requires_grad)
        return (
            plain
            and (self.training or not learns)
            and maps.ndim == 4
            and maps.is_contiguous(memory_format=torch.channels_last)
            and maps.numel() > maps.shape[1]  # else torch's error message
            and not torch.compiler.is_compiling()
            and _library() is not None
        )


def speed_up(network: nn.Module) -> None:
    """Exchange the layers of a network that can be computed this way, in place; parameters stay what they are."""
    for layer in network.modules():
        if FastBatchNorm.suits(layer):
            layer.__class__ = FastBatchNorm


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weight", "bias")),
        *((name, ctypes.c_double) for name in ("eps", "momentum")),
        *((name, ctypes.c_float) for name in ("low", "high")),
    ]


class _Normalized(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, layer: FastBatchNorm, bounds: Bounds) -> Tensor:
        result, inverse = torch.empty_like(maps), torch.empty_like(weight)
        running_mean, running_var = layer.get_buffer("running_mean"), layer.get_buffer("running_var")
        ctx.layer = _Layer(weight.data_ptr(), bias.data_ptr(), layer.eps, layer.momentum, *bounds)
        if layer.training:
            mean = torch.empty_like(weight)
            _call("normalize", ctx.layer, maps, running_mean, running_var, mean, inverse, result)
            ctx.save_for_backward(maps, weight, bias, mean, inverse)
        else:
            torch.rsqrt(running_var + layer.eps, out=inverse)
            _call("apply", ctx.layer, maps, running_mean, inverse, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        maps, weight, bias, mean, inverse = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        to_maps, to_weight, to_bias = torch.empty_like(maps), torch.empty_like(weight), torch.empty_like(bias)
        _call("backward", ctx.layer, grad, maps, mean, inverse, to_maps, to_weight, to_bias)
        return to_maps, to_weight, to_bias, None, None


def _call(function: str, layer: _Layer, *tensors: Tensor) -> None:
    """Call one of the library's functions on float32 tensors, the first of which are maps."""
    channels = tensors[0].shape[1]
    sizes = ctypes.c_int64(tensors[0].numel() // channels), ctypes.c_int64(channels), torch.get_num_threads()
    library = _library()
    assert library is not None  # looked at before
    library[function](ctypes.byref(layer), *sizes, *(ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors))


@cache
def _library() -> ctypes.CDLL | None:
    """None without a compiler: torch's own operations do the same, slower."""
    try:
        return native.library(SOURCE)
    except native.NotCompiled as error:
        log.warning("Training on the CPU is slower than it could be: it wants a C++ compiler, there is %s", error)
        return None
