"""Controllers around a library's optimiser; their state is the record of all calls of `ask` and `tell`.

The libraries keep their state in private fields, or in a pickle. They are deterministic given a seed and the
order of calls: the record (plain data) replayed into a new optimiser gives the same bits.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from autoseg.controllers.base import Controller, FloatArray, Round, check_rewards, check_thetas


class Optimizer(Protocol):
    """An optimiser that can be replayed: it maximises, and depends only on its construction and the order of calls."""

    def ask(self, n: int) -> FloatArray:
        """Return (n, d) in [0, 1]."""
        ...

    def tell(self, thetas: FloatArray, rewards: FloatArray) -> None:
        """Learn from (n, d) and (n,) finite rewards; all NaN: every candidate of the round failed."""
        ...


class ReplayController(Controller):
    """A controller around an optimiser, which the subclass builds."""

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self._optimizer = self._build()
        self._events: list[dict[str, Any]] = []

    @abstractmethod
    def _build(self) -> Optimizer:
        """Build a new optimiser from `self.settings`."""

    def _propose(self, n: int) -> FloatArray:
        self._events.append({"ask": int(n)})
        return self._optimizer.ask(n)

    def _learn(self, thetas: FloatArray, rewards: FloatArray) -> None:
        told = [None if np.isnan(reward) else float(reward) for reward in rewards]  # NaN is not JSON
        self._events.append({"thetas": thetas.tolist(), "rewards": told})
        self._optimizer.tell(thetas, worst_for_failed(rewards))

    def _record(self) -> dict[str, Any]:
        return {"events": [dict(event) for event in self._events]}

    def _record_of(self, rounds: Sequence[Round]) -> dict[str, Any]:
        events: list[dict[str, Any]] = []
        for thetas, rewards in rounds:
            events += [{"ask": len(thetas)}, {"thetas": thetas.tolist(), "rewards": rewards.tolist()}]
        return {"events": events}

    def _restore(self, state: Mapping[str, Any]) -> None:
        for event in state["events"]:
            if "ask" in event:
                self._propose(event["ask"])
            else:
                thetas = check_thetas("controller state, thetas", event["thetas"], self.settings.dim)
                self._learn(thetas, check_rewards(event["rewards"], len(thetas)))


def worst_for_failed(rewards: FloatArray) -> FloatArray:
    """Replace NaN by a reward just below the lowest of its round; a round of NaN alone stays unchanged.

    Below, not equal: a single candidate that succeeded must still rank above those that failed.
    """
    failed = np.isnan(rewards)
    if failed.all():
        return rewards
    return np.where(failed, np.nextafter(rewards[~failed].min(), -np.inf), rewards)
