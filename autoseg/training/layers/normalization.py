"""Batch normalisation and the activation after it as one operation, on a CPU.

As two operations they took a quarter of an iteration of DeepLabV3+ MobileNetV2 at 128 pixels: torch makes 13 passes
over every map, this makes 8. The activation's gradient is recomputed from the layer's input, so only that is stored.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from autoseg.training.layers import native
from autoseg.training.layers.native import Bounds, pixels

EIGHT = 8  # channels worked on at a time
NO_BOUNDS = (-float("inf"), float("inf"))


class FastBatchNorm(nn.BatchNorm2d):
    """A `BatchNorm2d` that can clamp its result; weights and state dict are the same.

    It computes as torch's on a GPU, in other than float32, in other than channels-last order, and without a compiler.
    """

    @staticmethod
    def suits(layer: nn.Module) -> bool:
        """Return whether a layer can be computed this way."""
        if type(layer) is not nn.BatchNorm2d or not layer.affine or not layer.track_running_stats:
            return False
        return layer.momentum is not None and layer.num_features % EIGHT == 0

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (N, C, H, W) float to the same shape and layout."""
        return self.clamped(input, NO_BOUNDS) if self.usable(input) else super().forward(input)

    def clamped(self, maps: Tensor, bounds: Bounds) -> Tensor:
        """Normalise `usable` maps (N, C, H, W), then clamp them to the bounds (gradient 0 outside)."""
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        result: Tensor = _Normalized.apply(maps, self.weight, self.bias, self, bounds)
        return result

    def usable(self, maps: Tensor) -> bool:
        """Return whether these maps can be computed this way, now."""
        return (
            maps.device.type == "cpu"
            and maps.dtype == torch.float32
            and maps.ndim == 4
            and maps.is_contiguous(memory_format=torch.channels_last)
            and maps.numel() > maps.shape[1]  # else torch's error message
            and not torch.compiler.is_compiling()
            and self.fits(maps.shape[1])
            and (self.training or not self._learns(maps))
            and native.library() is not None
        )

    def fits(self, channels: int) -> bool:
        """Return whether C++ can normalise so many channels with what the layer has now.

        After `suits` somebody may have changed it: `torch.optim.swa_utils.update_bn` takes the momentum away.
        """
        own, kept = self._parameters, self._buffers  # as attributes they take longer than all the rest
        numbers = own.get("weight"), own.get("bias"), kept.get("running_mean"), kept.get("running_var")
        return (
            self.momentum is not None
            and self.track_running_stats
            and all(
                each is not None
                and each.is_cpu
                and each.dtype == torch.float32
                and each.numel() == channels
                and each.is_contiguous()
                for each in numbers
            )
        )

    def _learns(self, maps: Tensor) -> bool:
        """Return whether a gradient is asked for."""
        return torch.is_grad_enabled() and any(each.requires_grad for each in (maps, self.weight, self.bias))


class _Normalized(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, layer: FastBatchNorm, bounds: Bounds) -> Tensor:
        result, mean, inverse = torch.empty_like(maps), torch.empty_like(weight), torch.empty_like(weight)
        if not layer.training:
            mean = layer.get_buffer("running_mean")
            torch.rsqrt(layer.get_buffer("running_var") + layer.eps, out=inverse)
        norm = native.norm((mean, inverse, weight, bias), bounds)
        if layer.training:
            statistics = native.statistics(mean.data_ptr(), inverse.data_ptr(), layer)
            native.call("normalize", *pixels(maps), maps, norm, ctypes.byref(statistics), result)
            ctx.save_for_backward(maps, mean, inverse, weight, bias)
            ctx.bounds = bounds
        else:
            native.call("apply", *pixels(maps), maps, norm, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        maps, *norm = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        results = torch.empty_like(maps), torch.empty_like(norm[2]), torch.empty_like(norm[3])
        native.call("backward", *pixels(maps), maps, native.norm(norm, ctx.bounds), grad, *results)
        return *results, None, None
