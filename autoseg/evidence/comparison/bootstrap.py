"""The hierarchical bootstrap: how sure a difference is for other seeds *and* other images.

Seeds and images are crossed: every seed is scored on the same images. So both are drawn with replacement, the images
once for all seeds and both losses (the pigeonhole bootstrap, Owen, Annals of Applied Statistics 2007). Percentiles
of such draws over five seeds are too narrow, as those over seeds alone are; here the draws give the standard error,
corrected for the few seeds, and the interval is a t interval with Satterthwaite's degrees of freedom. Without any
spread over images it is the paired t interval over seeds.

Measured (`tests/unit/evidence/test_bootstrap.py`: 1000 differences that do not exist, five seeds, 60 images), the share
marked by this interval, by plain percentiles of the same draws, and by the t interval over seeds:
6.6, 17.5 and 6.5 % where seeds cause most of the spread, 4.7, 5.2 and 88.7 % where images do, 5.5, 6.5 and 17.9 % where
both do. (The t interval over seeds is about the given images, so this is not an error of it.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import variance

import numpy as np
import numpy.typing as npt
import scipy  # its parts are imported when they are used
import torch

from autoseg.errors import InputError
from autoseg.metrics import MetricOptions, find_metric, parse
from autoseg.metrics.base import Sums
from autoseg.store.paired import CONFIDENCE, LEAST_SEEDS, Paired

DRAWS = 2000
SEED = 20261

FloatArray = npt.NDArray[np.float64]
Parts = Mapping[str, Sums]  # metric to the contribution of each image to its totals


def widened(point: Paired, ours: FloatArray, theirs: FloatArray, images: int) -> Paired:
    """Return the difference of two losses with the interval over seeds and images.

    Args:
        point: the paired difference on the images themselves, each once.
        ours: (n, B) scores by seed on B draws of the images; only the n seeds that both have.
        theirs: the same for the other loss, on the same draws.
        images: number of images.
    """
    if point.n < 2:
        return point
    drawn = ours - theirs
    drawn = drawn[:, ~np.isnan(drawn).any(0)]  # a draw may lack every image with anything to score
    if drawn.shape[1] < 2:
        return Paired(point.differences, point.n, point.mean, math.nan, math.nan, False)
    seeds = variance(d for d in point.differences if not math.isnan(d)) / point.n
    picks = np.random.default_rng(SEED).integers(point.n, size=(drawn.shape[1], point.n))
    means = drawn[picks.T, np.arange(drawn.shape[1])].mean(0)
    # Resampling n seeds shows (n - 1) / n of their variance: the rest is added.
    whole = max(float(means.var(ddof=1)) + seeds / point.n, seeds)
    spread = seeds**2 / (point.n - 1) + (whole - seeds) ** 2 / max(images - 1, 1)
    freedom = whole**2 / spread if spread > 0 else point.n - 1
    reach = float(scipy.special.stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(whole)
    significant = point.n >= LEAST_SEEDS and abs(point.mean) > reach and not point.constant
    return Paired(point.differences, point.n, point.mean, point.mean - reach, point.mean + reach, significant)


class Bootstrap:
    """Draws images for the trainings of a comparison and scores every training on every draw.

    Args:
        parts: returns the counts of a loss and a seed; raises `InputError` if they were not stored.
        options: options of the metrics.
    """

    def __init__(self, parts: Callable[[str, int], Parts], options: MetricOptions) -> None:
        self._parts, self._options = parts, options
        self._kept: dict[tuple[str, int], Parts] = {}
        self._scores: dict[tuple[str, int, str], FloatArray] = {}
        self._draws: FloatArray | None = None
        self.images = 0

    def missing(self, metric: str, trainings: Sequence[tuple[str, int]]) -> str:
        """Return why a metric has no such interval, in words; empty if it has one."""
        for _, name in parse(metric):
            if not find_metric(name).adds_over_images:
                return f"{name} does not add up over images"
            for loss, seed in trainings:
                try:
                    kept = self._of(loss, seed)
                except InputError:
                    return f"the counts by image of {loss}, seed {seed}, were not kept"
                if name not in kept:
                    return f"the counts by image of {name} were not kept"
        return ""

    def widen(self, point: Paired, ours: str, theirs: str, seeds: Sequence[int], metric: str) -> Paired:
        """Return the difference of two losses, see `widened`; `seeds` are those of `point.differences`."""
        both = [seed for seed, d in zip(seeds, point.differences, strict=True) if not math.isnan(d)]
        if len(both) < 2:
            return point
        a, b = (np.stack([self._score(loss, seed, metric) for seed in both]) for loss in (ours, theirs))
        return widened(point, a, b, self.images)

    def _of(self, loss: str, seed: int) -> Parts:
        if (loss, seed) not in self._kept:
            self._kept[loss, seed] = self._parts(loss, seed)
        return self._kept[loss, seed]

    def _score(self, loss: str, seed: int, metric: str) -> FloatArray:
        """Return the (B,) scores of a training on every draw."""
        key = (loss, seed, metric)
        if key not in self._scores:
            parts = self._of(loss, seed)
            terms = [weight * self._drawn(name, parts[name]) for weight, name in parse(metric)]
            self._scores[key] = np.sum(terms, axis=0)
        return self._scores[key]

    def _drawn(self, metric: str, parts: Sums) -> FloatArray:
        """Return the (B,) scores of one metric: the images' contributions, times how often each draw has each image."""
        images = len(next(iter(parts.values())))
        if self._draws is None:
            self.images = images
            random = np.random.default_rng(SEED)
            self._draws = random.multinomial(images, [1 / images] * images, size=DRAWS).astype(np.float64)
        if images != self.images:
            raise InputError("counts by image", f"{self.images} images in all trainings", f"{images} in one")
        times = torch.from_numpy(self._draws)
        totals = {name: times @ part.double() for name, part in parts.items()}
        score_of = find_metric(metric)(self._options).score_of
        try:
            scores = torch.vmap(score_of)(totals)
        except RuntimeError:  # a formula that looks at its numbers, `if s["and"] > 0`: one draw after the other
            draws = ({name: total[i] for name, total in totals.items()} for i in range(len(self._draws)))
            scores = torch.stack([score_of(draw) for draw in draws])
        return scores.numpy()
