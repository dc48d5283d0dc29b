"""Random search: the control experiment every other controller must beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from autoseg.controllers.base import Controller, FloatArray, Settings


class RandomController(Controller):
    """Uniform on [0, 1]^d; learns nothing, so `mean` and `std` are not used."""

    name: ClassVar[str] = "random"

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._rng = np.random.default_rng(settings.seed)

    def _propose(self, n: int) -> FloatArray:
        return self._rng.random((n, self.settings.dim))

    def _learn(self, thetas: FloatArray, rewards: FloatArray) -> None:
        """Do nothing: rewards change nothing here."""

    def _state(self) -> dict[str, Any]:
        return {"rng": self._rng.bit_generator.state}

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._rng.bit_generator.state = state["rng"]
