"""A GPU that is not there, as Triton sees it: kernels are specialised and compiled as for a launch, and not run.

What is launched on it are the kernels with the arguments that they get on a GPU, tensors on the CPU standing for those
there: nothing reads them.
"""

from __future__ import annotations

from itertools import count
from types import SimpleNamespace
from typing import Any

from triton.backends.compiler import GPUTarget

NUMBERS = count()
SHARED = 100_000  # bytes that a program may have, at least, on the GPUs named here


class Driver:
    """In the place of `triton.runtime.driver.active`.

    Args:
        capability: 80 or 90, ...

    Attributes:
        launched: each launch's arguments: the grid's sides, the stream, ..., the kernel's own.
        cubins: of each kernel that was loaded, in order: its name and binary.
    """

    def __init__(self, capability: int) -> None:
        self._number, self._target = next(NUMBERS), GPUTarget("cuda", capability, 32)
        self.launched: list[tuple[Any, ...]] = []
        self.cubins: list[tuple[str, bytes]] = []
        self.utils = SimpleNamespace(load_binary=self._load, get_device_properties=lambda _: {"max_shared_mem": SHARED})

    def get_current_target(self) -> GPUTarget:
        """What is compiled for."""
        return self._target

    def get_current_device(self) -> int:
        """Kernels, and what launches them, are kept by device."""
        return self._number

    def get_current_stream(self, device: int) -> int:
        """The default one."""
        return 0

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        """What is called for each launch."""
        return lambda *args: self.launched.append(args)

    def _load(self, name: str, binary: bytes, shared: int, device: int) -> tuple[int, int, int, int, int]:
        self.cubins.append((name, binary))
        return 0, 0, 0, 0, 1024
