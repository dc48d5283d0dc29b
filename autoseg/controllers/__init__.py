"""Controllers over [0, 1]^d: `ask` for candidates, `tell` their rewards, `state_dict` to save and resume."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import numpy.typing as npt

from autoseg.controllers.base import Controller
from autoseg.errors import unknown_name

__all__ = ["CONTROLLERS", "Controller", "build_controller", "controller_kind"]


class Kind(NamedTuple):
    """Facts about a controller that is not imported yet: only "ppo" needs stable-baselines3, only "gp" and "tpe"
    Optuna.

    Attributes:
        module: name of the module with its class.
        class_name: name of the class.
        begins: whether it starts at a given mean.
        has_mean: whether it learns a mean, which may be a finalist beside the candidates.
        spreads: whether its first candidates lie around the start, `std` away.
    """

    module: str
    class_name: str
    begins: bool = True
    has_mean: bool = False
    spreads: bool = False


CONTROLLERS = {
    "ppo": Kind("autoseg.controllers.ppo", "PPOController", has_mean=True, spreads=True),
    "random": Kind("autoseg.controllers.random", "RandomController", begins=False),
    "cmaes": Kind("autoseg.controllers.cmaes", "CMAESController", spreads=True),
    "tpe": Kind("autoseg.controllers.tpe", "TPEController"),
    "gp": Kind("autoseg.controllers.gp", "GPController"),
}


def controller_kind(name: str) -> Kind:
    """Return the facts about a controller without importing it.

    Raises:
        InputError: an unknown name.
    """
    if name not in CONTROLLERS:
        raise unknown_name("controller", str(name), CONTROLLERS)
    return CONTROLLERS[name]


def build_controller(
    name: str,
    dim: int,
    mean: npt.ArrayLike | None = None,
    std: float = 0.2,
    seed: int = 0,
    **options: Any,
) -> Controller:
    """Build a controller over raw θ in [0, 1]^dim.

    Args:
        name: "gp", "tpe", "cmaes", "ppo" or "random".
        dim: number of coordinates of θ.
        mean: where the search starts, (dim,) in [0, 1]; default 0.5 everywhere.
        std: spread of the first candidates around it ("ppo" and "cmaes"; the others do not use it).
        seed: seeds every generator of the controller.
        **options: the controller's own; "ppo": `lr`, `epochs`, `clip`, `ratio`, `baseline`, `std_end` and
            `rounds` (see `ppo.PPOSettings`); "gp" and "tpe": `startup` (see `gp.GPSettings`, `tpe.TPESettings`).

    Raises:
        InputError: unknown name or option, or a value out of its range.
    """
    kind = controller_kind(name)
    controller: type[Controller] = getattr(import_module(kind.module), kind.class_name)
    settings = {"dim": dim, "mean": mean, "std": std, "seed": seed, **options}
    return controller(controller.settings_type.read(settings))
