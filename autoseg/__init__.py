"""autoseg: finds a differentiable surrogate loss for a segmentation metric, and trains with it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoseg.api import search as search
    from autoseg.controllers import build_controller as build_controller
    from autoseg.errors import AutosegError as AutosegError
    from autoseg.errors import InputError as InputError
    from autoseg.losses import SegLoss as SegLoss
    from autoseg.losses import build_loss as build_loss
    from autoseg.losses import load_loss as load_loss
    from autoseg.losses import register_loss as register_loss
    from autoseg.losses import save_loss as save_loss
    from autoseg.losses import sync_counts as sync_counts
    from autoseg.metrics import Metric as Metric
    from autoseg.metrics import build_metric as build_metric
    from autoseg.metrics import register_metric as register_metric
    from autoseg.search.env import make_env as make_env
    from autoseg.surrogates import SurrogateLoss as SurrogateLoss
    from autoseg.surrogates import build_space as build_space

__version__ = "0.1.0"

# Imported when first used: `import autoseg` stays light, and a worker can choose its device before torch is imported.
_HOMES = {
    "AutosegError": "errors",
    "InputError": "errors",
    "Metric": "metrics",
    "SegLoss": "losses",
    "SurrogateLoss": "surrogates",
    "build_controller": "controllers",
    "build_loss": "losses",
    "build_metric": "metrics",
    "build_space": "surrogates",
    "load_loss": "losses",
    "make_env": "search.env",
    "register_loss": "losses",
    "register_metric": "metrics",
    "save_loss": "losses",
    "search": "api",
    "sync_counts": "losses",
}
__all__ = sorted(_HOMES)


if not TYPE_CHECKING:  # to a type checker, a misspelt name would be anything

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'autoseg' has no attribute {name!r}")
        return getattr(import_module(f"autoseg.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
