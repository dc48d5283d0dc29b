"""A response surface: the reward as a function of θ, fitted to trainings that a search has recorded.

Racing controllers on real trainings would take weeks; on a surface fitted to real trainings it takes minutes. What
the surface cannot explain (another seed, misfit) is kept as noise, and its error on unseen trainings is stated.
"""

from __future__ import annotations

import csv
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are used

from autoseg.evidence.comparison.tables import csv_text
from autoseg.files import write_atomic
from autoseg.store.ledger import Ledger
from autoseg.store.records import COMPLETE
from autoseg.store.run_files import read_config
from autoseg.surrogates import build_space

DATA = Path(__file__).parent / "data"  # behind the tables in docs
FOLDS = 10
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Recorded:
    """Trainings of one proxy.

    Attributes:
        names: of the d coordinates of θ.
        thetas: (n, d) raw θ in [0, 1].
        rewards: (n,) the target metric on held-out images.
        identity: (d,) the θ of the identity curves, where searches start.
    """

    names: tuple[str, ...]
    thetas: FloatArray
    rewards: FloatArray
    identity: FloatArray


def record(run: Path, file: Path) -> None:
    """Write the trainings of a search run, of its rounds and its confirmation, to a CSV file."""
    config = read_config(run)
    space = build_space(config["space"]["name"], metric=config["metric"])
    with Ledger(run / "trials.db", space.names, read_only=True) as ledger:
        records = [r for study in ("search", "confirm") for r in ledger.records(study)]
    rows: list[list[object]] = [
        ["name", "seed", "reward", "seconds", *space.names],
        ["identity curves", "", "", "", *map(repr, space.identity.tolist())],
    ]
    for r in records:
        if r.state == COMPLETE and r.theta is not None:
            rows.append([r.name, r.seed, f"{r.reward:.6f}", f"{r.seconds:.1f}", *map(repr, r.theta)])
    write_atomic(file, csv_text(rows))


def load(*paths: Path) -> Recorded:
    """Trainings from files that `record` wrote, of searches with one proxy; those of the most frequent seed only, so
    that all are comparable.
    """
    head, start, *_ = csv.reader(paths[0].open(encoding="utf-8"))
    rows = [row for path in paths for row in list(csv.reader(path.open(encoding="utf-8")))[2:]]
    seeds = [row[1] for row in rows]
    common = max(set(seeds), key=seeds.count)
    kept = [row for row in rows if row[1] == common]
    return Recorded(
        tuple(head[4:]),
        np.array([row[4:] for row in kept], dtype=float),
        np.array([row[2] for row in kept], dtype=float),
        np.array(start[4:], dtype=float),
    )


class Surface:
    """A Gaussian process with one length scale per coordinate, fitted by maximum likelihood, or a forest.

    Args:
        data: what it is fitted to.
        trees: averaged over extremely randomized trees (Geurts et al. 2006) instead: steps, not smooth, so that a
            controller which models the reward as a Gaussian process has no better model of it than the others.

    Attributes:
        noise: standard deviation of a reward around the process, as estimated by its fit.
        rmse: root mean square error on trainings left out of the fit (`FOLDS` folds).
        tau: Kendall's tau between these and their predictions.
        spread: standard deviation of the rewards.
    """

    def __init__(self, data: Recorded, trees: bool = False) -> None:
        # Here: seconds to import, for those who fit a surface alone.
        from sklearn.ensemble import ExtraTreesRegressor
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
        from sklearn.model_selection import KFold, cross_val_predict

        self.spread = float(data.rewards.std())
        self._mean, self._scale = data.rewards.mean(), self.spread or 1.0  # all alike: a flat surface
        scaled = (data.rewards - self._mean) / self._scale
        kernel = ConstantKernel() * Matern(np.ones(data.thetas.shape[1]), (0.05, 20.0), nu=2.5) + WhiteKernel(0.1)
        process = GaussianProcessRegressor(kernel, n_restarts_optimizer=2, random_state=0)
        model = ExtraTreesRegressor(200, min_samples_leaf=2, random_state=0) if trees else process
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a coordinate without influence has no best scale
            folds = KFold(min(FOLDS, len(scaled)), shuffle=True, random_state=0)
            left_out = cross_val_predict(model, data.thetas, scaled, cv=folds)
            process.fit(data.thetas, scaled)
            self._model = model.fit(data.thetas, scaled)
        self.rmse = float(np.sqrt(np.mean((left_out - scaled) ** 2)) * self._scale)
        self.tau = float(scipy.stats.kendalltau(left_out, scaled).statistic)
        self.noise = float(np.sqrt(process.kernel_.k2.noise_level) * self._scale)

    def __call__(self, thetas: FloatArray) -> FloatArray:
        """(n,) noise-free rewards of (n, d) θ."""
        values: FloatArray = self._model.predict(np.atleast_2d(thetas)) * self._scale + self._mean
        return values
