"""Controllers over [0, 1]^d: `ask` for candidates, `tell` their rewards, `state_dict` to stop and go on."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from autoseg.controllers.base import Controller
from autoseg.errors import unknown_name

__all__ = ["Controller", "build_controller"]

# Imported on demand: only "ppo" needs stable-baselines3, only "gp" and "tpe" Optuna.
_CLASSES = {
    "ppo": ("autoseg.controllers.ppo", "PPOController"),
    "random": ("autoseg.controllers.random", "RandomController"),
    "cmaes": ("autoseg.controllers.cmaes", "CMAESController"),
    "tpe": ("autoseg.controllers.tpe", "TPEController"),
    "gp": ("autoseg.controllers.gp", "GPController"),
}


def build_controller(
    name: str,
    dim: int,
    mean: Sequence[float] | None = None,
    std: float = 0.2,
    seed: int = 0,
    **options: Any,
) -> Controller:
    """Builds a controller over raw θ in [0, 1]^dim.

    Args:
        name: "gp", "tpe", "cmaes", "ppo" or "random".
        dim: number of coordinates of θ.
        mean: where the search starts, (dim,) in [0, 1]; default 0.5 everywhere.
        std: spread of the first candidates around it ("ppo" and "cmaes").
        seed: seeds every generator of the controller.
        **options: the controller's own; "ppo": `lr`, `epochs`, `clip`, `ratio`, `baseline`, `std_end` and
            `rounds` (see `ppo.PPOSettings`); "gp" and "tpe": `startup` (see `gp.GPSettings`, `tpe.TPESettings`).

    Raises:
        InputError: unknown name or option, or a value out of its range.
    """
    if name not in _CLASSES:
        raise unknown_name("controller", str(name), _CLASSES)
    module, class_name = _CLASSES[name]
    controller: type[Controller] = getattr(import_module(module), class_name)
    settings = {"dim": dim, "mean": mean, "std": std, "seed": seed, **options}
    return controller(controller.settings_type.read(settings))
