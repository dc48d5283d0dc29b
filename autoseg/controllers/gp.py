"""Bayesian optimisation with a Gaussian process (Snoek et al. 2012, arXiv 1206.2944) by Optuna.

Optuna's `GPSampler`: a Matern 5/2 kernel with one length scale a coordinate, noise fitted too, and the logarithm of the
expected improvement (Ament et al. 2023, arXiv 2310.20708) given the candidates of the round already chosen. Where that
is highest is sought here, among samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import optuna

from autoseg.controllers.base import Controller, FloatArray, Round, Settings, check_integer, check_rewards, check_thetas
from autoseg.quiet import quiet_optuna

MOST = 300  # most candidates that the process is fitted to: its time grows with their cube

EVERYWHERE = 1024  # samples of the whole cube, a power of two
AROUND, BEST = 510, 4  # samples around the best candidates, and how many these are
DISTANCES = (0.05, 0.1, 0.2)  # standard deviations of those, a third of them each
MOVED = 3  # coordinates of each that move, on average; at least half of them


@dataclass(frozen=True)
class GPSettings(Settings):
    """Options of "gp"; `std` is not used, and `mean`, if given, is its first candidate.

    Args:
        startup: number of rewards before the model is used; candidates before that are drawn uniformly.
    """

    startup: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("controller startup", self.startup, least=1)


class GPController(Controller):
    """A study is built again at every `ask` from all rewards: the record and the number of asks are the whole state.

    Asking for 8 candidates of 6 numbers takes 1 s of a CPU after 300 rewards, and would take 7 s after 1,000: above
    300, the process only sees the `MOST` that `informative` chooses. (docs/search_efficiency.md says what that costs.)
    """

    name: ClassVar[str] = "gp"
    settings_type: ClassVar[type[Settings]] = GPSettings

    def __init__(self, settings: GPSettings) -> None:
        super().__init__(settings)
        self._names = [f"x{i:04d}" for i in range(settings.dim)]  # Optuna sorts them
        self._space: dict[str, optuna.distributions.BaseDistribution] = {
            name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in self._names
        }
        self._asks = 0  # number of asks so far: each has random numbers of its own
        self._thetas: list[list[float]] = []
        self._rewards: list[float] = []

    @property
    def jumps(self) -> bool:
        """Once the process is used: of two optima that are nearly as good, rounding decides."""
        return self._started

    def _propose(self, n: int) -> FloatArray:
        with quiet_optuna(), _one_thread() if self._started else nullcontext():
            study = self._study()
            self._asks += 1
            trials = [study.ask(self._space) for _ in range(n)]
        return np.array([[trial.params[name] for name in self._names] for trial in trials])

    @property
    def _started(self) -> bool:
        """Whether there are enough rewards for the process, not all of them alike, of which it would learn nothing.

        The rounds before import neither SciPy nor torch.
        """
        seen = far_below_for_failed(np.array(self._rewards))
        return len(self._rewards) >= self.settings.startup and len(np.unique(seen)) > 1

    def _study(self) -> optuna.Study:
        seed = int(np.random.SeedSequence([self.settings.seed, self._asks]).generate_state(1)[0])
        rewards = far_below_for_failed(np.array(self._rewards))
        sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed)
        if self._started:
            sampler = _Sampling(seed, np.array(self._thetas)[np.argsort(-rewards, kind="stable")[:BEST]])
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for index in self._seen(rewards):
            params = dict(zip(self._names, self._thetas[index], strict=True))
            value = float(rewards[index])
            study.add_trial(optuna.trial.create_trial(params=params, distributions=self._space, value=value))
        if self._asks == 0 and self.settings.mean is not None:
            study.enqueue_trial(dict(zip(self._names, self.settings.mean, strict=True)))
        return study

    def _seen(self, rewards: FloatArray) -> list[int]:
        """Return the indices of the candidates that the process is fitted to, ascending."""
        if len(rewards) <= MOST:
            return list(range(len(rewards)))
        return informative(np.array(self._thetas), rewards, MOST)

    def _learn(self, thetas: FloatArray, rewards: FloatArray) -> None:
        self._thetas += thetas.tolist()
        self._rewards += rewards.tolist()

    def _state(self) -> dict[str, Any]:
        return {"asks": self._asks}

    def _record(self) -> dict[str, Any]:
        told = [None if np.isnan(reward) else reward for reward in self._rewards]  # NaN is not JSON
        return {"thetas": [list(theta) for theta in self._thetas], "rewards": told}

    def _record_of(self, rounds: Sequence[Round]) -> dict[str, Any]:
        return {
            "thetas": [theta for thetas, _ in rounds for theta in thetas.tolist()],
            "rewards": [reward for _, rewards in rounds for reward in rewards.tolist()],
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._asks = int(state["asks"])
        rewards = check_rewards(state["rewards"], len(state["thetas"]))
        self._rewards = rewards.tolist()
        if self._rewards:
            self._thetas = check_thetas("controller state, thetas", state["thetas"], self.settings.dim).tolist()


class _Sampling(optuna.samplers.GPSampler):
    """Optuna's, but for how the acquisition is maximised: over samples instead of along its gradient.

    The gradient ends on the cube's faces, where the process knows least: of a recorded search's candidates 71 % of all
    coordinates were exactly 0 or 1. (docs/search_efficiency.md says what the samples gain.)

    Args:
        seed: of all its random numbers.
        best: (k, d) the candidates to sample around.
    """

    def __init__(self, seed: int, best: FloatArray) -> None:
        super().__init__(seed=seed, n_startup_trials=1)
        self._best, self._draws = best, np.random.default_rng(seed)

    def _optimize_acqf(self, acqf: Any, best_params: FloatArray | None) -> FloatArray:
        """Called by Optuna for each candidate, to be overridden by whoever wants another optimisation."""
        points = np.vstack([self._everywhere(), self._around_the_best()])
        chosen: FloatArray = points[int(acqf.eval_acqf_no_grad(points).argmax())]
        return chosen

    def _everywhere(self) -> FloatArray:
        from scipy.stats import qmc

        return np.asarray(qmc.Sobol(self._best.shape[1], rng=self._draws).random(EVERYWHERE))

    def _around_the_best(self) -> FloatArray:
        dim, draws = self._best.shape[1], self._draws
        distance = np.repeat(DISTANCES, AROUND // len(DISTANCES))[:, None]
        centre = self._best[draws.integers(len(self._best), size=AROUND)]
        moved = draws.random((AROUND, dim)) < max(0.5, MOVED / dim)
        near = np.abs(centre + moved * distance * draws.standard_normal((AROUND, dim)))  # reflected at the faces
        return np.clip(1 - np.abs(1 - near), 0, 1)


def far_below_for_failed(rewards: FloatArray) -> FloatArray:
    """Replace NaN by the lowest reward of all, less one standard deviation; no rewards at all if all are NaN.

    Of rewards that are all alike, less that reward, or 1 if it is 0.

    They stay in the record, unlike a bound on their round alone: the process must see where losses fail, and that they
    are worse than any that trained, or it proposes them again until the budget is spent.
    """
    failed = np.isnan(rewards)
    if failed.all():
        return rewards[:0]
    trained = rewards[~failed]
    spread = trained.std() if np.ptp(trained) > 0 else abs(trained[0]) or 1.0
    return np.where(failed, trained.min() - spread, rewards)


def informative(thetas: FloatArray, rewards: FloatArray, most: int) -> list[int]:
    """Return a subset of the data for a Gaussian process: half of it the best, half the points farthest from the rest.

    The best say where the optimum is; the others, each the farthest from all chosen before (Gonzalez 1985), that
    it is nowhere else. If the latest were chosen instead, the first ones would be forgotten and tried again.

    Args:
        thetas: (n, d).
        rewards: (n,), no NaN.
        most: number to choose, at most n.

    Returns:
        Their indices, ascending.
    """
    chosen = np.argsort(-rewards, kind="stable")[: most // 2].tolist()
    apart = np.full(len(rewards), np.inf)
    for index in chosen:
        apart = np.minimum(apart, ((thetas - thetas[index]) ** 2).sum(axis=1))
    apart[chosen] = -1.0  # also of two that are the same, one is chosen once
    while len(chosen) < most:
        chosen.append(int(apart.argmax()))
        apart = np.minimum(apart, ((thetas - thetas[chosen[-1]]) ** 2).sum(axis=1))
        apart[chosen[-1]] = -1.0
    return sorted(chosen)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread, so that sums do not depend on the machine's load; the matrices are too small for more."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
