"""The C++ of the layers, as one library, and the arguments that its functions share."""

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
SOURCES = tuple(HERE / f"{name}.cpp" for name in ("normalization", "chain", "pointwise", "depthwise", "dense"))
HEADERS = (native.THREADS, *(HERE / f"{name}.h" for name in ("maps", "products", "links", "winograd")))
Bounds = tuple[float, float]
log = logging.getLogger(__name__)


@cache
def library() -> ctypes.CDLL | None:
    """Return the compiled library; None without a compiler: torch does the same, slower and rounded otherwise."""
    found, why = _loaded()
    if why is not None:
        log.warning("%s", why)
    return found


def why_not() -> str | None:
    """Return why trainings on a CPU go without the library; None if they do not."""
    return _loaded()[1]


@cache
def _loaded() -> tuple[ctypes.CDLL | None, str | None]:
    try:
        return native.library(*SOURCES, headers=HEADERS), None
    except native.NotCompiled as error:
        return None, f"trainings on the CPU are slower than they could be: they want a C++ compiler, there is {error}."


def call(function: str, *arguments: Any) -> None:
    """Call a function of the library; tensors are passed as the address of their first element.

    Raises:
        MemoryError: there is not enough memory.
    """
    found = library()
    assert found is not None  # looked at before
    given = (ctypes.c_void_p(one.data_ptr()) if isinstance(one, Tensor) else one for one in arguments)
    if found[function](*given):
        raise MemoryError(f"not enough memory for {function}")


class Norm(ctypes.Structure):
    """The structure `Norm` of `maps.h`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("mean", "inverse", "weight", "bias")),
        *((name, ctypes.c_float) for name in ("low", "high")),
    ]


class Statistics(ctypes.Structure):
    """The structure `Statistics` of `maps.h`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("mean", "inverse", "running_mean", "running_variance")),
        *((name, ctypes.c_double) for name in ("eps", "momentum")),
    ]


def norm(tensors: Sequence[Tensor | None], bounds: Bounds) -> Any:
    """Return a pointer to mean, 1 / deviation, weight, bias and the activation's bounds.

    None (null) without tensors.
    """
    return None if tensors[0] is None else ctypes.byref(Norm(*map(address, tensors), *bounds))


def statistics(mean: int, inverse: int, layer: nn.BatchNorm2d) -> Statistics:
    """Return the addresses of a layer's statistics: those of the batch, and the running ones."""
    assert layer.momentum is not None  # checked by `FastBatchNorm.fits`
    return Statistics(mean, inverse, address(layer.running_mean), address(layer.running_var), layer.eps, layer.momentum)


def address(tensor: Tensor | None) -> int | None:
    """Return the address of a tensor's first element, or None."""
    return None if tensor is None else tensor.data_ptr()


def pixels(maps: Tensor) -> tuple[ctypes.c_int64, ctypes.c_int64, int]:
    """Return the number of pixels (N H W), of channels, and of threads for them."""
    channels = maps.shape[1]
    return ctypes.c_int64(maps.numel() // channels), ctypes.c_int64(channels), torch.get_num_threads()
