"""Measures how long a search will take, in its own workers, all of them busy, just before it starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from autoseg.execution import Executor, Job
from autoseg.proxy.candidate import CandidateTask
from autoseg.proxy.task import ProxyTask
from autoseg.store.records import COMPLETE

# Iterations of the two trainings from whose difference the rest is extrapolated: of a short one, and how many more the
# other has. On a GPU an iteration is so fast that five more would be lost in what a training needs before it.
SHORT, MORE, MORE_ON_GPU = 1, 5, 25
FEW, MANY = 1, 4  # the same for batches of scored images: with thousands of these, scoring is most of a training


class TimedTask(CandidateTask):
    """A candidate task around the proxy that can also measure how long a training takes."""

    train: ProxyTask

    def __call__(self, payload: dict[str, Any], device: str) -> dict[str, float]:
        """Return the scores of a payload.

        For `{"timing": <payload>}`, the seconds that one whole training would take.
        """
        if "timing" not in payload:
            return super().__call__(payload, device)
        payload = payload["timing"]
        own = self.train.proxy.iters - self.train.proxy.warmup  # the others are done once, for all
        few, more = self._iterations(own, device)
        self._seconds(few, FEW, payload, device)  # imports, data, what candidates share, first use of every kernel
        short, long = (self._seconds(iters, FEW, payload, device) for iters in (few, more))
        per_iteration = max(0.0, long - short) / max(1, more - few)
        batches = self.train.scored_batches()
        many = min(MANY, batches)
        scoring = self._seconds(few, many, payload, device) if many > FEW else short
        per_batch = max(0.0, scoring - short) / max(1, many - FEW)
        return {"seconds": short + per_iteration * max(0, own - few) + per_batch * (batches - FEW)}

    def _iterations(self, own: int, device: str) -> tuple[int, int]:
        """Return the iterations of the two trainings, at most `own`; those that differ are all alike."""
        few = self.train.settling + SHORT
        more = few + (MORE if device == "cpu" else MORE_ON_GPU)
        return min(few, own), min(more, own)

    def _seconds(self, iters: int, batches: int, payload: dict[str, Any], device: str) -> float:
        """Return the seconds of a short training; its scores are not used, since few images may give none."""
        start, limited = time.monotonic(), replace(self.train, limit=(iters, batches))
        limited(self.build(payload).to(device), payload["seed"], device)
        return time.monotonic() - start


def seconds_per_training(executor: Executor, theta: Sequence[float], seed: int) -> float | None:
    """Measure the seconds of one training with every worker busy; None if a measurement failed.

    Args:
        executor: an executor of a `TimedTask`; its workers are warm afterwards.
        theta: raw θ of the loss to measure with.
        seed: seed of the trainings; no result of theirs is stored.
    """
    payload = {"timing": {"theta": list(theta), "seed": seed}}
    # a kind of its own: so short a job must set no time limit for trainings
    jobs = [Job(f"timing {i}", payload, "timing") for i in range(executor.workers)]
    seconds = [outcome.scores["seconds"] for _, outcome in executor.run(jobs) if outcome.state == COMPLETE]
    return fmean(seconds) if seconds else None
