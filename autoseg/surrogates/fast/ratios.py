"""Finds out whether a metric is the mean of one ratio of its totals, so that a kernel can compute it
(`gpu.kernels.score`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from numbers import Real

from autoseg.metrics.base import Metric

Row = tuple[float, ...]  # factors of totals


class _Sum:
    """A linear combination of totals, recorded from a formula; operations that leave this form raise."""

    def __init__(self, factors: Row, pooled: bool = False) -> None:
        self.factors, self.pooled = factors, pooled

    def __add__(self, other: object) -> _Sum:
        if not isinstance(other, _Sum) or other.pooled != self.pooled:
            return NotImplemented
        return _Sum(tuple(a + b for a, b in zip(self.factors, other.factors, strict=True)), self.pooled)

    def __sub__(self, other: object) -> _Sum:
        return self + other * -1 if isinstance(other, _Sum) else NotImplemented

    def __mul__(self, factor: object) -> _Sum:
        if not isinstance(factor, Real):
            return NotImplemented
        return _Sum(tuple(a * float(factor) for a in self.factors), self.pooled)

    __rmul__ = __mul__

    def __bool__(self) -> bool:
        raise TypeError("nobody knows its value")

    def sum(self, dim: int, keepdim: bool = False) -> _Sum:
        """Sum over the classes."""
        if dim != -1 or not keepdim or self.pooled:
            raise TypeError("not the sum over the classes")
        return _Sum(self.factors, pooled=True)


@dataclass(frozen=True)
class Ratio:
    """Scores (a T) / (b T) of totals T, and their weights.

    Attributes:
        rows: factors of the totals in a, in b, and in the weights; only two rows if weights are equal.
        pooled: whether totals are added up over the classes first.
        label: index of the total with the pixels of each class in the labels.
    """

    rows: tuple[Row, ...]
    pooled: bool
    label: int


def ratio_of(metric: Metric, places: Mapping[str, int], count: int, counts: Collection[int]) -> Ratio | None:
    """Return the ratio that a metric is; None if it is another formula.

    Args:
        metric: its `scores` and `weights` are called with `_Sum` objects instead of numbers.
        places: index of each of its totals among those of the pass.
        count: number of totals of the pass.
        counts: indices of the totals of labels alone.
    """
    totals = {name: _Sum(tuple(float(at == k) for k in range(count))) for name, at in places.items()}
    noted: list[tuple[_Sum, _Sum]] = []
    mark = object()

    def ratio(numerator: _Sum, denominator: _Sum, empty: float = math.nan) -> object:
        noted.append((numerator, denominator))
        return mark if empty == 0 or math.isnan(empty) else None  # a kernel has 0 for 0 / 0

    equal = type(metric).weights is Metric.weights
    try:
        score = metric.scores(totals, ratio)  # type: ignore[arg-type]
        weights = [] if equal else [metric.weights(totals)]  # type: ignore[arg-type]
    except Exception:  # whatever a formula does with what is no tensor
        return None
    parts = [*noted[0], *weights] if score is mark and len(noted) == 1 else []
    sums = [part for part in parts if isinstance(part, _Sum)]
    if not sums or len(sums) < len(parts) or len({part.pooled for part in sums}) > 1:
        return None
    if sums[0].pooled and equal:  # one score, as many weights as classes
        return None
    if any(factor and at not in counts for part in sums[2:] for at, factor in enumerate(part.factors)):
        return None  # weights would have a gradient
    return Ratio(tuple(part.factors for part in sums), sums[0].pooled, places["label"])
