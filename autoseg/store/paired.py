"""Statistics of a loss over seeds, and of two losses seed by seed: the one place that says how sure a difference is.

It is a t interval over seeds, not a bootstrap over them: resampling three or five numbers understates their spread so
much that it marks 33 % (three seeds) or 16 % (five) of differences that do not exist. The interval is about other seeds
on the same images; that other images could rank the losses differently is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

LEAST_SEEDS = 5  # for a mark of significance: with fewer, intervals mislead
CONFIDENCE = 0.95
ROUNDING = 1e-9  # scores that differ by less, as a share of the larger, are the same; so are differences


@dataclass(frozen=True)
class Summary:
    """Scores over seeds.

    Args:
        values: one per seed; NaN if the training did not complete.
        n: number of completed trainings.
        mean: mean of the completed ones; NaN if there is none.
        std: their standard deviation (n - 1); NaN for fewer than two.
    """

    values: tuple[float, ...]
    n: int
    mean: float
    std: float


def summary(values: Sequence[float]) -> Summary:
    """Return the mean and standard deviation of the values that are not NaN."""
    known = [value for value in values if not math.isnan(value)]
    mean = fmean(known) if known else math.nan
    return Summary(tuple(values), len(known), mean, stdev(known) if len(known) > 1 else math.nan)


@dataclass(frozen=True)
class Paired:
    """The difference of two losses trained with the same seeds.

    Args:
        differences: ours minus theirs, by seed; NaN if one of the two did not complete.
        n: number of differences.
        mean: mean difference; NaN if there is none.
        low: lower end of the 95 % t interval of the mean; NaN below two seeds.
        high: upper end of the interval.
        significant: at least five seeds, whose differences are not all the same, and the interval excludes zero.
    """

    differences: tuple[float, ...]
    n: int
    mean: float
    low: float
    high: float
    significant: bool

    @property
    def constant(self) -> bool:
        """Whether several differences are all the same but for rounding: seeds that change nothing are one seed."""
        return constant(self.differences)


def constant(differences: Sequence[float]) -> bool:
    """Return whether two or more differences are known and all of them are the same but for rounding."""
    known = [difference for difference in differences if not math.isnan(difference)]
    return len(known) > 1 and max(known) - min(known) <= ROUNDING * max(map(abs, known))


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Paired:
    """Compare two sequences of one score per seed, in the same order of seeds; NaN means that it did not complete."""
    from scipy.special import stdtrit  # here: a part of a second, and what a search hands around is made of this module

    differences = tuple(
        0.0 if math.isclose(a, b, rel_tol=ROUNDING) else a - b for a, b in zip(ours, theirs, strict=True)
    )
    known = [difference for difference in differences if not math.isnan(difference)]
    n = len(known)
    mean = fmean(known) if known else math.nan
    reach = math.nan
    if n > 1:
        reach = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * stdev(known) / math.sqrt(n)
    significant = n >= LEAST_SEEDS and abs(mean) > reach and not constant(known)
    return Paired(differences, n, mean, mean - reach, mean + reach, significant)


def p_value(differences: Sequence[float]) -> float:
    """Return the two-sided p value of the paired t test; NaN for fewer than two differences, or if all are the same."""
    from scipy.special import stdtr  # here, as in `paired`

    known = [difference for difference in differences if not math.isnan(difference)]
    if len(known) < 2 or constant(known):
        return math.nan
    t = fmean(known) / (stdev(known) / math.sqrt(len(known)))
    return 2 * float(stdtr(len(known) - 1, -abs(t)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p values for their number by Holm's step-down method: below 0.05, with 95 % certainty none is by luck.

    NaN stays NaN and does not count.
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    adjusted, least = [math.nan] * len(p_values), 0.0
    for rank, (p, place) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p))
        adjusted[place] = least
    return adjusted
