"""The C++ of the layers, as one library, and what all its functions take."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autoseg import native

HERE = Path(__file__).parent
SOURCES = (HERE / "normalization.cpp", HERE / "chain.cpp")
HEADERS = (HERE / "maps.h", HERE / "products.h")
Bounds = tuple[float, float]
log = logging.getLogger(__name__)


@cache
def library() -> ctypes.CDLL | None:
    """None without a compiler: torch's own operations do the same, slower."""
    try:
        return native.library(*SOURCES, headers=HEADERS)
    except native.NotCompiled as error:
        log.warning("Training on the CPU is slower than it could be: it wants a C++ compiler, there is %s", error)
        return None


def call(function: str, *arguments: Any) -> None:
    """Call a function, for which tensors are the addresses of their first number."""
    found = library()
    assert found is not None  # looked at before
    found[function](*(ctypes.c_void_p(one.data_ptr()) if isinstance(one, Tensor) else one for one in arguments))


class _Norm(ctypes.Structure):
    """Of `maps.h`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("mean", "inverse", "weight", "bias")),
        *((name, ctypes.c_float) for name in ("low", "high")),
    ]


class _Statistics(ctypes.Structure):
    """Of `maps.h`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("mean", "inverse", "running_mean", "running_variance")),
        *((name, ctypes.c_double) for name in ("eps", "momentum")),
    ]


def norm(tensors: Sequence[Tensor | None], bounds: Bounds) -> Any:
    """Mean, 1 / deviation, weight, bias, and what the activation clamps to; null where there are none."""
    return None if tensors[0] is None else ctypes.byref(_Norm(*map(address, tensors), *bounds))


def statistics(mean: Tensor, inverse: Tensor, layer: nn.BatchNorm2d) -> Any:
    """Where a layer's statistics are put."""
    assert layer.momentum is not None  # as `FastBatchNorm.suits` says
    buffers = mean, inverse, layer.running_mean, layer.running_var
    return ctypes.byref(_Statistics(*map(address, buffers), layer.eps, layer.momentum))


def address(tensor: Tensor | None) -> int | None:
    """Of the first number."""
    return None if tensor is None else tensor.data_ptr()


def pixels(maps: Tensor) -> tuple[ctypes.c_int64, ctypes.c_int64, int]:
    """How many (N H W), how many channels, how many threads for them."""
    channels = maps.shape[1]
    return ctypes.c_int64(maps.numel() // channels), ctypes.c_int64(channels), torch.get_num_threads()
