"""Tree-structured Parzen estimator (Bergstra et al. 2011; Watanabe 2023, arXiv 2304.11127) by Optuna."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import optuna
from optuna.trial import TrialState

from autoseg.controllers.base import NEAR, FloatArray, Settings, distance
from autoseg.controllers.gp import GPSettings
from autoseg.controllers.replay import Optimizer, ReplayController
from autoseg.quiet import quiet_optuna


@dataclass(frozen=True)
class TPESettings(GPSettings):
    """Options of "tpe", the same as those of "gp"."""

    startup: int = 10


class TPEController(ReplayController):
    """Optuna's TPESampler on a study in memory; the run's own ledger is another study."""

    name: ClassVar[str] = "tpe"
    settings_type: ClassVar[type[Settings]] = TPESettings

    @property
    def jumps(self) -> bool:
        """From the second round on, where the estimator is used: versions of Optuna differ in what it proposes."""
        return self.round > 0

    def _build(self) -> Optimizer:
        return _Study(self.settings)


class _Study:
    """An in-memory study of d floats; candidates without a reward yet count as poor ones."""

    def __init__(self, settings: TPESettings) -> None:
        self._names = [f"x{i:04d}" for i in range(settings.dim)]  # Optuna sorts them
        self._space = {name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in self._names}
        self._pending: dict[tuple[float, ...], list[optuna.trial.Trial]] = {}
        with quiet_optuna():  # options that it needs were once experimental
            sampler = optuna.samplers.TPESampler(
                seed=settings.seed, n_startup_trials=settings.startup, multivariate=True, constant_liar=True
            )
            self._study = optuna.create_study(direction="maximize", sampler=sampler)
        if settings.mean is not None:
            self._study.enqueue_trial(dict(zip(self._names, settings.mean, strict=True)))

    def ask(self, n: int) -> FloatArray:
        """Return (n, d) in [0, 1]."""
        trials = [self._study.ask(dict(self._space)) for _ in range(n)]
        thetas = np.array([[trial.params[name] for name in self._names] for trial in trials])
        for trial, theta in zip(trials, thetas.tolist(), strict=True):
            self._pending.setdefault(tuple(theta), []).append(trial)
        return thetas

    def tell(self, thetas: FloatArray, rewards: FloatArray) -> None:
        """Record the rewards.

        Candidates that this study did not propose are added, failed ones are recorded as failed.
        """
        for theta, reward in zip(thetas.tolist(), rewards.tolist(), strict=True):
            waiting = self._pending.get(tuple(theta), [])
            failed = np.isnan(reward)
            if waiting:
                trial = waiting.pop(0)
                state = TrialState.FAIL if failed else TrialState.COMPLETE
                self._study.tell(trial, None if failed else reward, state=state)
                continue
            if near := self._nearest(theta):  # the same, proposed on another processor: it is told as that one made it
                self._study.tell(near.pop(0), state=TrialState.FAIL)
            if not failed:
                params = dict(zip(self._names, theta, strict=True))
                self._study.add_trial(
                    optuna.trial.create_trial(params=params, distributions=dict(self._space), value=reward)
                )
        for trial in (trial for waiting in self._pending.values() for trial in waiting):
            self._study.tell(trial, state=TrialState.FAIL)  # proposed by this version of Optuna, not by the run's
        self._pending.clear()

    def _nearest(self, theta: list[float]) -> list[optuna.trial.Trial]:
        """Return the waiting trials at the nearest θ that is at most `NEAR` away; none if there is none."""
        apart = {known: distance(known, theta) for known, trials in self._pending.items() if trials}
        nearest = min(apart, key=apart.__getitem__, default=())
        return self._pending[nearest] if nearest and apart[nearest] <= NEAR else []
