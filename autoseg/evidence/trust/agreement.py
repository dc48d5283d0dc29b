"""Measures how similar two rankings are: Kendall's tau-b, Spearman's rho, and intervals over other candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are used

DRAWS = 2000
SEED = 20261
PAIRS = 2**20  # pairs of candidates that are looked at together, 8 MB of each number about them
LEAST = 8  # fewest candidates for a verdict
INTERVAL = (2.5, 97.5)

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Correlation:
    """A rank correlation."""

    value: float  # NaN for fewer than two candidates, or if all of one ranking are tied
    low: float  # lower end of the 95 % percentile interval over candidates drawn with replacement
    high: float  # upper end

    def __str__(self) -> str:
        return "–" if np.isnan(self.value) else f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Agreement:
    """Two rankings of the same candidates."""

    n: int  # candidates that both score
    tau: Correlation  # Kendall's tau-b
    rho: Correlation  # Spearman's rho


def agreement(one: Sequence[float], other: Sequence[float]) -> Agreement:
    """Compare two sequences of one score per candidate; NaN means that it has none."""
    a, b = _both(one, other)
    if len(a) < 2:
        nothing = Correlation(np.nan, np.nan, np.nan)
        return Agreement(len(a), nothing, nothing)
    picks = _picks(len(a))
    tau = _correlation(float(scipy.stats.kendalltau(a, b).statistic), _taus(a[picks], b[picks]))
    rho = _correlation(_spearman(a, b), _rhos(a[picks], b[picks]))
    return Agreement(len(a), tau, rho)


def tau_difference(one: Sequence[float], other: Sequence[float], truth: Sequence[float], among: int = 1) -> Correlation:
    """Return tau(one, truth) - tau(other, truth), with the same draws of candidates for both.

    If the best `among` several differences is looked for, their intervals hold together: each is wider (Bonferroni).
    """
    a, b, y = _both(one, other, truth)
    if len(a) < 2:
        return Correlation(np.nan, np.nan, np.nan)
    picks = _picks(len(a))
    value = float(scipy.stats.kendalltau(a, y).statistic - scipy.stats.kendalltau(b, y).statistic)
    return _correlation(value, _taus(a[picks], y[picks]) - _taus(b[picks], y[picks]), among)


def _both(*scores: Sequence[float]) -> FloatArray:
    """Return the (k, n) scores of the candidates that all of them score."""
    table = np.array(scores, dtype=np.float64)
    known: FloatArray = table[:, ~np.isnan(table).any(0)]
    return known


def _picks(n: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(SEED).integers(n, size=(DRAWS, n))


def _correlation(value: float, draws: FloatArray, among: int = 1) -> Correlation:
    known = draws[~np.isnan(draws)]  # a draw of a single candidate has no ranking
    ends = (INTERVAL[0] / among, 100 - (100 - INTERVAL[1]) / among)
    low, high = np.percentile(known, ends) if len(known) and not np.isnan(value) else (np.nan, np.nan)
    return Correlation(value, float(low), float(high))


def _spearman(a: FloatArray, b: FloatArray) -> float:
    return float(scipy.stats.spearmanr(a, b).statistic) if np.ptp(a) and np.ptp(b) else np.nan


def _taus(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return Kendall's tau-b of every row of (B, n), some rows at a time: each needs n * n numbers."""
    step = max(1, PAIRS // a.shape[1] ** 2)
    return np.concatenate([_taus_of(a[at : at + step], b[at : at + step]) for at in range(0, len(a), step)])


def _taus_of(a: FloatArray, b: FloatArray) -> FloatArray:
    signs_a, signs_b = (np.sign(x[:, :, None] - x[:, None, :]) for x in (a, b))
    pairs = (signs_a**2).sum((1, 2)) * (signs_b**2).sum((1, 2))
    return np.divide((signs_a * signs_b).sum((1, 2)), np.sqrt(pairs), out=np.full(len(a), np.nan), where=pairs > 0)


def _rhos(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return Spearman's rho of every row of (B, n)."""
    ranks = [scipy.stats.rankdata(x, axis=1) for x in (a, b)]
    x, y = (r - r.mean(1, keepdims=True) for r in ranks)
    whole = (x * x).sum(1) * (y * y).sum(1)
    return np.divide((x * y).sum(1), np.sqrt(whole), out=np.full(len(a), np.nan), where=whole > 0)
