"""The losses of segmentation_models_pytorch without its networks, which take long to import."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

NAME = "smp_losses_alone"


def smp_losses() -> ModuleType:
    """Its package `losses`, which needs torch alone, under a name of its own."""
    if NAME not in sys.modules:
        whole = importlib.util.find_spec("segmentation_models_pytorch")
        assert whole is not None and whole.origin is not None
        folder = Path(whole.origin).parent / "losses"
        spec = importlib.util.spec_from_file_location(
            NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        assert spec is not None and spec.loader is not None
        sys.modules[NAME] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[NAME])
    return sys.modules[NAME]
