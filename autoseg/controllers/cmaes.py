"""CMA-ES over [0, 1]^d, by the package `cmaes` (Hansen 2016, arXiv 1604.00772)."""

from __future__ import annotations

from typing import Any, ClassVar

import cmaes
import numpy as np

from autoseg.controllers.base import FloatArray, Settings
from autoseg.controllers.replay import Optimizer, ReplayController

_LEAST_POPULATION = 4  # with fewer there are not two parents, and the covariance cannot be learnt


class CMAESController(ReplayController):
    """Covariance matrix adaptation from `mean` and `std`; the first `ask` fixes the population."""

    name: ClassVar[str] = "cmaes"

    @property
    def jumps(self) -> bool:
        """From the second round on: the eigenvectors of a covariance are only defined up to their signs."""
        return self.round > 0

    def _build(self) -> Optimizer:
        return _Population(self.settings)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied by its record: the library leaves its random generator out of a pickle."""
        return _of_state, (self.state_dict(),)


def _of_state(state: dict[str, Any]) -> CMAESController:
    controller = CMAESController(Settings.read(state["settings"]))
    controller.load_state_dict(state)
    return controller


class _Population:
    """A `cmaes.CMA` that accepts any number of candidates at a time.

    The library learns from exactly one population at a time. Its size is the `n` of the first call, at least
    4; candidates that were told wait until there are enough for a population.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cma: cmaes.CMA | None = None
        self._waiting: list[tuple[FloatArray, float]] = []

    def _started(self, n: int) -> cmaes.CMA:
        if self._cma is None:
            self._cma = cmaes.CMA(
                mean=self._settings.start,
                sigma=self._settings.std,
                bounds=np.tile([0.0, 1.0], (self._settings.dim, 1)),
                seed=self._settings.seed,
                population_size=max(n, _LEAST_POPULATION),
            )
        return self._cma

    def ask(self, n: int) -> FloatArray:
        """Return (n, d) in [0, 1]: draws outside are repeated, and in the end clipped to the bound."""
        cma = self._started(n)
        return np.stack([cma.ask() for _ in range(n)])

    def tell(self, thetas: FloatArray, rewards: FloatArray) -> None:
        """Pass every whole population to the library; a round in which all failed has no order and is left out."""
        cma = self._started(len(thetas))
        if np.isnan(rewards).all():
            return
        self._waiting += zip(thetas, (-rewards).tolist(), strict=True)  # the library minimises
        while len(self._waiting) >= cma.population_size:
            cma.tell(self._waiting[: cma.population_size])
            del self._waiting[: cma.population_size]
