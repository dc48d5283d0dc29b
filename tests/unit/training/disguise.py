"""A GPU that computes nothing and must not be waited for, on a machine that has none.

Tensors on this "cuda:7" are meta tensors: they have a shape and a type but no values. Whatever needs a value on the
host fails on them, torch has no way to do it: `item`, `bool`, `nonzero`, a copy to the CPU, a result whose shape
depends on values (`bincount`, `unique`). What waits without needing a value is refused here: blocking copies from the
host, and boolean indices, for which CUDA looks for the places first. Python is told that the tensors are on CUDA, so
that code takes the branches it takes there. Backward passes run; optimisers' fused updates are counted, not done.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA, META = torch.device("cuda", 7), torch.device("meta")  # a number of its own: constants are kept by device
MADE_ON_THE_HOST = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)
NO_KERNEL = {  # views, and memory that nothing is written to
    "view", "_unsafe_view", "expand", "slice", "select", "permute", "transpose", "t", "unsqueeze", "squeeze",
    "as_strided", "detach", "alias", "unbind", "split", "split_with_sizes", "empty", "new_empty", "empty_like",
    "empty_strided", "_reshape_alias", "unfold", "lift_fresh", "diagonal",
}  # fmt: skip


class Waits(AssertionError):
    """Something would have waited for the device."""


class Device:
    """The device; everything inside `with` may use it.

    Attributes:
        strict: whether waiting is refused.
        kernels: operations that were started on it, by name.
    """

    def __init__(self) -> None:
        self.strict, self.kernels = False, Counter[str]()
        self._modes = (_Disguise(self), _Watch(self))

    def __enter__(self) -> Self:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)


class _Disguise(TorchFunctionMode):
    """What Python sees: meta tensors say that they are on CUDA, what is asked for there is made a meta tensor."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == Tensor.device.__get__:
            return CUDA if args[0].is_meta else func(*args)
        if func == Tensor.is_cuda.__get__:
            return args[0].is_meta or func(*args)
        if func in MADE_ON_THE_HOST and self._device.strict and _there(kwargs.get("device"), args):
            raise Waits(f"{func.__name__} copies from the host")
        return func(*map(_hidden, args), **{key: _hidden(value) for key, value in kwargs.items()})


class _Watch(TorchDispatchMode):
    """What torch does: refuses to wait, counts, and leaves out optimisers' fused updates, which meta tensors lack."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        if self._device.strict:
            _refuse_waiting(name, args, kwargs)
        result = None if name.startswith("_fused_") else func(*args, **kwargs)
        if name not in NO_KERNEL and any(map(_on_it, (*args, result))):
            self._device.kernels[name] += 1
        return result


def _on_it(value: Any) -> bool:
    """Whether a tensor, or the first of several, is on the device."""
    if isinstance(value, list | tuple):
        return bool(value) and _on_it(value[0])
    return isinstance(value, Tensor) and value.is_meta


def _there(device: Any, args: Any) -> bool:
    if device is not None:
        return torch.device(device).type == "cuda"
    return isinstance(args[0], Tensor) and args[0].is_meta


def _hidden(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("cuda"):
        return META
    return META if isinstance(value, torch.device) and value.type == "cuda" else value


def _refuse_waiting(name: str, args: Any, kwargs: Any) -> None:
    if name == "_to_copy":
        source, to, free = args[0].device, kwargs.get("device"), kwargs.get("non_blocking")
    elif name == "copy_":
        source, to, free = args[1].device, args[0].device, args[2] if len(args) > 2 else kwargs.get("non_blocking")
    else:
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            if any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]):
                raise Waits(f"{name} by a mask")
        return
    if to is not None and source.type != torch.device(to).type and not free:
        raise Waits(f"{name} from {source} to {to}")
