"""A search that takes milliseconds: score = -|θ - θ*|² plus noise of the seed, and a controller of twenty lines."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autoseg.config import ConfirmConfig, SearchSettings
from autoseg.errors import Diverged
from autoseg.execution import InlineExecutor, Job, Outcome
from autoseg.search.loop import Problem, run_search
from autoseg.search.observer import Observer, Observers
from autoseg.store.records import Finding, SearchResult
from autoseg.store.run_folder import RunFolder

NAMES = ("and.p1.x", "and.p1.y", "or.p1.x")
TARGET = np.array([0.7, 0.2, 0.9])
IDENTITY = (0.5, 0.5, 0.5)
HAND_MADE = {"ce": (0.6, 0.3, 0.8), "lovasz": (0.55, 0.4, 0.6)}
PROBLEM = Problem("biou", NAMES, IDENTITY, seed=5)


@dataclass(frozen=True)
class ToyTask:
    """Scores of a θ; fails where it is told to, by the first coordinate."""

    seconds: float = 0.0
    diverge_above: float = math.inf
    raise_above: float = math.inf

    def __call__(self, payload: dict[str, Any], device: str) -> dict[str, float]:
        theta = np.array(payload["theta"] if "theta" in payload else HAND_MADE[payload["loss"]])
        time.sleep(self.seconds)
        if theta[0] > self.diverge_above:
            raise Diverged("nan at iteration 3")
        if theta[0] > self.raise_above:
            raise RuntimeError("a bug")
        noise = np.random.default_rng([payload["seed"], 7]).normal(scale=0.01)
        biou = 1.0 - float(((theta - TARGET) ** 2).sum()) + noise
        return {"biou": biou, "miou": float(theta[1]) + noise}


class ToyController:
    """Moves its mean to the best of each round; draws around it."""

    jumps = False

    def __init__(self, dim: int = 3, seed: int = 0) -> None:
        self.mean = np.full(dim, 0.5)
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def ask(self, n: int) -> npt.NDArray[np.float64]:
        return np.clip(self.mean + 0.2 * self._generator.normal(size=(n, len(self.mean))), 0.0, 1.0)

    def tell(self, thetas: npt.NDArray[np.float64], rewards: npt.NDArray[np.float64]) -> None:
        if not np.isnan(rewards).all():
            self.mean = 0.5 * self.mean + 0.5 * thetas[np.nanargmax(rewards)]

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self.mean.tolist(), "generator": self._generator.bit_generator.state}

    def brief_state(self) -> dict[str, Any]:
        return self.state_dict()

    def load_brief_state(self, state: Mapping[str, Any], rounds: Sequence[Any]) -> None:
        self.load_state_dict(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.mean = np.array(state["mean"])
        self._generator.bit_generator.state = state["generator"]


class Recorder(Observer):
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def started(self, plan: Any) -> None:
        self.events.append(("started", plan))

    def trained(self, record: Any, progress: Any) -> None:
        self.events.append(("trained", (record, progress)))

    def round_done(self, summary: Any, progress: Any) -> None:
        self.events.append(("round_done", (summary, progress)))

    def warning(self, text: str) -> None:
        self.events.append(("warning", text))

    def finished(self, result: Any) -> None:
        self.events.append(("finished", result))

    def of(self, event: str) -> list[Any]:
        return [value for name, value in self.events if name == event]


class CountingExecutor(InlineExecutor):
    """Knows what it ran; runs a round backwards, so that nothing may depend on the order of the outcomes."""

    def __init__(self, task: ToyTask) -> None:
        super().__init__(task)
        self.payloads: list[dict[str, Any]] = []

    def run(self, jobs: Sequence[Job]) -> Any:
        for job, outcome in super().run(list(jobs)[::-1]):
            self.payloads.append(job.payload)
            yield job, outcome


class Stop(Exception):
    """The plug is pulled."""


class PulledPlug(CountingExecutor):
    """Stops after so many trainings, before the result is written."""

    def __init__(self, after: int, task: ToyTask | None = None) -> None:
        super().__init__(task or ToyTask())
        self.left = after

    def run(self, jobs: Sequence[Job]) -> Any:
        for result in super().run(jobs):
            if self.left == 0:
                raise Stop
            self.left -= 1
            yield result


def settings(rounds: int = 3, candidates: int = 3, **changes: Any) -> SearchSettings:
    return SearchSettings(
        **{"rounds": rounds, "candidates": candidates, "confirm": ConfirmConfig(1, 2, ["identity", "ce"]), **changes}
    )


def search(
    path: Path,
    options: SearchSettings,
    *,
    executor: Any = None,
    observer: Observer | None = None,
    published: list[Finding] | None = None,
    problem: Problem = PROBLEM,
    controller: Any = None,
) -> SearchResult:
    """Search in a new folder, or go on in an old one."""
    fixed = {"metric": "biou", "candidates": options.candidates}
    with RunFolder.create_or_open(path, {"metric": "biou"}, fixed, options.rounds) as folder:
        return run_search(
            folder,
            problem,
            controller or ToyController(),
            executor or InlineExecutor(ToyTask()),
            options,
            published.append if published is not None else (lambda finding: None),
            observer or Observers(),
        )


def outcome(**changes: Any) -> Outcome:
    return Outcome(**{"state": "complete", "scores": {"biou": 0.5}, "seconds": 1.5, **changes})
