"""Leaves out modules that importing mmsegmentation's models brings along and no worker uses: 8 s and 200 MB each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

# Imported by `try: import` where they are installed; only TIMMBackbone, ZeRO and mmengine's optimisers need them.
ABSENT = ("timm", "torch.distributed.optim", "transformers", "bitsandbytes")
STAND_INS = (  # imported at load time, by a wrapper of mmengine, a matcher, a loss and a backbone that resizes
    "torch.distributed.fsdp",
    "torch.distributed.fsdp.api",
    "torch.distributed.fsdp.fully_sharded_data_parallel",
    "scipy.interpolate",
    "scipy.ndimage",
    "scipy.optimize",
)
FIRST = ("mmseg.models", "mmengine.model", "mmengine.optim")  # if one is already imported, nothing is left out


@contextmanager
def left_out() -> Iterator[None]:
    """While active, make the modules above appear absent or empty.

    Modules that were already imported are not changed.
    """
    hidden: dict[str, Any] = {}
    if not any(name in sys.modules for name in FIRST):
        hidden = {name: None for name in ABSENT} | {name: _StandIn(name) for name in STAND_INS}
        hidden = {name: module for name, module in hidden.items() if name not in sys.modules}
    sys.modules.update(hidden)
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


class _StandIn(ModuleType):
    """A module that has every name; each is a class that raises when it is used."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": _refuse})


def _refuse(self: object, *_: Any, **__: Any) -> None:
    raise ImportError(
        f"{type(self).__name__} was left out when autoseg imported mmsegmentation; import mmengine.runner before."
    )
