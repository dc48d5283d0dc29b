"""Settings of the computation: number format, memory layout, threads, determinism."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from autoseg.config import ProxyConfig
from autoseg.errors import InputError

# cuBLAS reads it at its first use in a process, and its deterministic kernels refuse to work without it: by the time a
# deterministic training begins it would be too late.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

LAYOUTS = {
    "on": torch.channels_last,
    "off": torch.contiguous_format,
    # Measured: 5 to 20 % faster on a CPU (MobileNetV2, ResNet-18 at 128 px, tiny at 64 px), and
    # the layout of tensor cores.
    "auto": torch.channels_last,
}


@dataclass(frozen=True)
class Precision:
    """Number format of the network's forward and backward pass; losses, weights and metrics stay float32."""

    device: torch.device  # where the network runs
    dtype: torch.dtype | None  # dtype of autocast; None: no autocast
    layout: torch.memory_format  # memory format of network and images

    def autocast(self) -> torch.autocast:
        """Return a context for the network's forward pass."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype is not None)


def precision_of(proxy: ProxyConfig, device: torch.device) -> Precision:
    """Return the precision that `proxy.amp` and `proxy.channels_last` mean on this device.

    `amp=auto` is bf16 on a GPU that supports it (fp16 on one that does not) and off on a CPU: bf16 makes ResNet-18
    1.8 times faster on a processor with AMX, but MobileNetV2 no faster, and is slow on most processors.

    Raises:
        InputError: fp16 on a CPU.
    """
    if proxy.amp == "fp16" and device.type == "cpu":
        raise InputError("proxy.amp", "off, bf16 or auto on a CPU", "fp16", "Half precision needs a GPU.")
    cuda_half = torch.float16
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        cuda_half = torch.bfloat16
    formats = {
        "off": None,
        "bf16": torch.bfloat16,
        "fp16": torch.float16,
        "auto": cuda_half if device.type == "cuda" else None,
    }
    return Precision(device, formats[proxy.amp], LAYOUTS[proxy.channels_last])


def check_device(device: torch.device) -> None:
    """Raise if this build of torch cannot use a GPU, with a clearer message than a training would give.

    Raises:
        InputError: the driver is too old for it, it was built without CUDA, or without kernels for such a GPU.
    """
    if device.type != "cuda":
        return
    build, hint = f"torch {torch.__version__}", "Install another build of torch, or use device=cpu."
    if not torch.cuda.is_available():
        why = "needs a newer driver" if torch.version.cuda else "was built without CUDA"
        raise InputError("device", "a GPU that torch can use", f"{device}, for which {build} {why}", hint)
    capability, made_for = torch.cuda.get_device_capability(device), torch.cuda.get_arch_list()
    if not any(_runs_on(capability, architecture) for architecture in made_for):
        got = f"{torch.cuda.get_device_name(device)} (sm_{capability[0]}{capability[1]}), for which {build} has no code"
        raise InputError("device", f"a GPU of one of {', '.join(made_for)}", got, hint)


def _runs_on(capability: tuple[int, int], architecture: str) -> bool:
    """Return whether a GPU runs code for "sm_86" (same major version) or "compute_86", which its driver compiles."""
    kind, _, number = architecture.rstrip("af").partition("_")
    version = int(number) // 10, int(number) % 10
    return version <= capability and (kind == "compute" or version[0] == capability[0])


@contextmanager
def reproducible(device: torch.device, seed: int, *, threads: int, deterministic: bool) -> Iterator[None]:
    """Run a block with its own random state, thread count and determinism; all three are restored after it.

    On a CPU, the same seed and thread count give bitwise the same numbers. On a GPU they do so with
    `deterministic`, which forbids the faster kernels that add in any order.
    """
    before = torch.get_num_threads()
    flags = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.set_num_threads(threads)
        _use_deterministic(deterministic)
        torch.backends.cudnn.benchmark = not deterministic  # the shapes never change during a training
        torch.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_num_threads(before)
            _use_deterministic(flags[0])
            torch.backends.cudnn.benchmark = flags[1]


def _use_deterministic(wanted: bool) -> None:
    """Change the flag only if it differs: torch imports its compiler to do so, 3 s and 90 MB."""
    if wanted != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(wanted)
