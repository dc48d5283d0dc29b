"""A GPU that is imitated by the CPU, on a machine that has none: its values are right, and its tensors are its own.

Tensors that were put on this "cuda:0" lie in the host's memory, but say that they are on CUDA, and so does all that
comes of them. As on a GPU, an operation refuses to have tensors of both kinds, and numpy cannot see those there. So
what runs here through a whole training or evaluation mixes no devices. A loss takes its plain path, unless
`checks.takes` is put back where Triton interprets its kernels. What would wait for a GPU is another question, see
`training/disguise.py`. As an Apple GPU ("mps") it refuses float64 too; the operations that torch lacks there are not
known here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autoseg.surrogates.fast.gpu import checks

CPU = torch.device("cpu")
EITHER = {"copy_", "_to_copy"}
BY_INDEX = {"index", "index_put", "index_put_", "_index_put_impl_"}


class Gpu(TorchDispatchMode):
    """The device while `with` lasts.

    Args:
        kind: "cuda" or "mps".

    Attributes:
        made: how many tensors came to be there.
    """

    # By address; a weak reference keeps an address from being another's. Of all devices: constants are kept by device.
    _there: ClassVar[dict[int, StorageWeakRef]] = {}

    def __init__(self, kind: str = "cuda") -> None:
        super().__init__()
        self.device = torch.device(kind, 0)
        self.made = 0

    def holds(self, tensor: Tensor) -> bool:
        """Whether it is there."""
        return tensor.layout == torch.strided and tensor.untyped_storage()._cdata in self._there

    def take(self, tensor: Tensor) -> Tensor:
        """The same tensor, now there."""
        if self.device.type == "mps" and tensor.dtype == torch.float64:
            raise TypeError("the MPS framework doesn't support float64. Please use float32 instead.")
        if not self.holds(tensor):
            storage = tensor.untyped_storage()
            self._there[storage._cdata] = StorageWeakRef(storage)
            self.made += 1
            if self.made % 5000 == 0:
                for address in [address for address, kept in self._there.items() if kept.expired()]:
                    del self._there[address]
        return tensor

    def leave(self, tensor: Tensor) -> Tensor:
        """A copy on the host."""
        copy = tensor.clone()
        del self._there[copy.untyped_storage()._cdata]
        return copy

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        self._check(name, args, given)
        asked = kwargs.get("device")
        kwargs = kwargs | {"device": CPU} if asked is not None else kwargs
        result = func(*args, **kwargs)
        if asked is not None and torch.device(asked).type == self.device.type:
            if any(result.data_ptr() == each.data_ptr() and not self.holds(each) for each in given):
                result = result.clone()  # torch saw a CPU tensor that is wanted on the CPU
            return self.take(result)
        # Where C++ names the device of what it makes, it is that of its input, which it takes for the CPU's.
        if self.holds(args[0]) if name == "copy_" else any(map(self.holds, given)):
            for value in tree_leaves(result):
                if isinstance(value, Tensor):
                    self.take(value)
        return result

    def _check(self, name: str, args: Any, given: list[Tensor]) -> None:
        """Refuse what a GPU refuses; one number may come from the host, and so may indices."""
        if name in EITHER:
            return
        if name in BY_INDEX and self.holds(args[0]):
            given = [args[0], *(value for value in args[2:] if isinstance(value, Tensor))]
        if len({self.holds(each) for each in given if each.dim() or self.holds(each)}) > 1:
            found = [(tuple(each.shape), each.dtype, self.device.type if self.holds(each) else "cpu") for each in given]
            raise RuntimeError(f"{name}: tensors on different devices: {found}")


@contextlib.contextmanager
def imitated(monkeypatch: pytest.MonkeyPatch, kind: str = "cuda") -> Iterator[Gpu]:
    """A machine with such a GPU, while it lasts."""
    import_module("torch._dynamo")  # the first operation of a process does it; it wants torch as it is

    gpu = Gpu(kind)
    _disguise_tensors(monkeypatch, gpu)
    _disguise_torch(monkeypatch, gpu)
    monkeypatch.setattr(checks, "takes", lambda _: False)
    with gpu:
        yield gpu


def _disguise_tensors(monkeypatch: pytest.MonkeyPatch, gpu: Gpu) -> None:
    to, cpu, new_tensor, deepcopy = Tensor.to, Tensor.cpu, Tensor.new_tensor, Tensor.__deepcopy__
    real = torch._C.TensorBase.device

    def moved(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        wanted = kwargs.get("device", args[0] if args else None)
        if isinstance(wanted, Tensor):
            return moved(tensor, wanted.device, wanted.dtype, *args[1:], **kwargs)
        if not isinstance(wanted, str | torch.device):
            return to(tensor, *args, **kwargs)
        there = torch.device(wanted).type == gpu.device.type
        kwargs = {key: value for key, value in kwargs.items() if key != "device"}
        result = to(tensor, gpu.device if there else wanted, *args[1:], **kwargs)
        return gpu.leave(result) if gpu.holds(tensor) and not there else result

    def copied(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
        result = deepcopy(tensor, memo)
        return gpu.take(result) if gpu.holds(tensor) else result

    def made(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def at(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
            result = make(data, *args, **kwargs)
            return result if device is None else result.to(device)

        return at

    def on_the_host(name: str) -> Callable[..., Any]:
        method = getattr(Tensor, name)

        def checked(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            if gpu.holds(tensor):
                raise TypeError("can't convert a GPU's tensor to numpy. Use Tensor.cpu() first")
            return method(tensor, *args, **kwargs)

        return checked

    disguised = {
        "device": property(lambda tensor: gpu.device if gpu.holds(tensor) else real.__get__(tensor)),
        "is_cuda": property(lambda tensor: tensor.device.type == "cuda"),
        "to": moved,
        "cuda": lambda tensor, *_, **__: tensor.to("cuda"),
        "cpu": lambda tensor, *args, **kwargs: gpu.leave(tensor) if gpu.holds(tensor) else cpu(tensor, *args, **kwargs),
        "__deepcopy__": copied,  # of a buffer's memory, without an operation
        "numpy": on_the_host("numpy"),
        "__array__": on_the_host("__array__"),
        "new_tensor": lambda tensor, data, **kwargs: new_tensor(tensor, data, **kwargs).to(tensor.device),
    }
    for name, value in disguised.items():
        monkeypatch.setattr(Tensor, name, value, raising=False)
    for name in ("tensor", "as_tensor", "asarray"):
        monkeypatch.setattr(torch, name, made(getattr(torch, name)))


def _disguise_torch(monkeypatch: pytest.MonkeyPatch, gpu: Gpu) -> None:
    random, autocast = torch.Generator(), torch.autocast
    answers: dict[str, Any] = {
        "is_available": True, "device_count": 1, "current_device": 0, "get_device_capability": (9, 0),
        "get_arch_list": ["sm_90"], "get_device_name": "an imitation", "is_bf16_supported": True,
        "max_memory_allocated": 0, "mem_get_info": (2**30, 2**30), "reset_peak_memory_stats": None,
        "_lazy_init": None, "synchronize": None, "set_device": None, "empty_cache": None,
    }  # fmt: skip
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda *_: random.get_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, *_: random.set_state(state))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", random.manual_seed)
    check = "_accelerator_graph_capture_health_check"  # torch 2.9 has none
    monkeypatch.setattr(torch.optim.Optimizer, check, lambda _: None, raising=False)

    def cast(device_type: str, **options: Any) -> torch.autocast:
        """Its operations are the CPU's, so are those that cast."""
        return autocast("cpu" if device_type == gpu.device.type else device_type, **options)

    monkeypatch.setattr(torch, "autocast", cast)
