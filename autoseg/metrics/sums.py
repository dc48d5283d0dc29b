"""Weighted sums of metrics, written as text: `miou+0.5*bf1`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor

from autoseg.errors import InputError
from autoseg.imports import NAME
from autoseg.metrics.base import Metric, MetricOptions, searchable, update_all
from autoseg.metrics.maps import HardLogic
from autoseg.metrics.worst import find_metric

LONGEST = 10_000  # most characters of a sum, far more than all metrics together have
_TERM = re.compile(rf"(?:(?P<weight>[0-9.]+(?:e-?[0-9]+)?)\*)?(?P<name>{NAME})")


def parse(spec: str) -> list[tuple[float, str]]:
    """Return [(weight, metric name)] of "miou" or "miou+0.5*bf1".

    Raises:
        InputError: not such a sum, one too long, an unknown name, a name twice, an error (lower is better) in a sum, or
            a weight that is not positive or not finite.
    """
    if not isinstance(spec, str):
        raise InputError("metric", "a name or a sum such as miou+0.5*bf1", repr(spec))
    if len(spec) > LONGEST:
        raise InputError("metric", f"a sum of at most {LONGEST:,} characters", f"{len(spec):,}")
    terms: list[tuple[float, str]] = []
    for part in spec.replace(" ", "").split("+"):
        found = _TERM.fullmatch(part)
        if found is None:
            if part.isidentifier():  # mIoU: one name, of no metric
                find_metric(part)
            raise InputError("metric", "a name or a sum such as miou+0.5*bf1", repr(spec))
        name = found["name"]
        find_metric(name)
        try:
            weight = float(found["weight"] or 1.0)
        except ValueError:
            raise InputError("metric", "a number before *", repr(found["weight"])) from None
        terms.append((weight, name))
    if len({name for _, name in terms}) < len(terms):
        raise InputError("metric", "each name once", repr(spec), "Add up the weights.")
    if any(not 0 < weight < math.inf for weight, _ in terms):
        raise InputError("metric", "finite weights above 0", repr(spec))
    errors = [name for _, name in terms if not find_metric(name).higher_is_better]
    if errors and (len(terms) > 1 or terms[0][0] != 1):
        raise InputError("metric", "a sum of scores, higher is better", f"{errors[0]} in it", "Give it by itself.")
    return terms


def score_of(scores: Mapping[str, float], spec: str, of: str = "") -> float:
    """Return the score of a metric or of a sum of metrics; of a class if `of` is "/class"; NaN if it was not scored."""
    return sum(weight * scores.get(name + of, math.nan) for weight, name in parse(spec))


def parse_target(spec: str) -> list[tuple[float, str]]:
    """Call `parse` for a metric that a search can maximise.

    Raises:
        InputError: as in `parse`, or a term that has no surrogate or is better when lower.
    """
    terms = parse(spec)
    for _, name in terms:
        kind = find_metric(name)
        if not kind.searchable:
            why = "has no surrogate" if kind.higher_is_better else "is an error (lower is better) without a surrogate"
            hint = f"It is reported only. These can: {', '.join(searchable())}."
            raise InputError("metric", "one that can be searched for", f"{name}, which {why}", hint)
    return terms


class MetricSum:
    """A weighted sum of metrics, with the interface of `Metric`.

    Args:
        terms: [(weight, metric)].
    """

    needs_probs = False
    higher_is_better = True

    def __init__(self, terms: list[tuple[float, Metric]]) -> None:
        self.terms = terms

    @property
    def name(self) -> str:
        """The sum as text."""
        return "+".join((f"{w:g}*" if w != 1 else "") + m.name for w, m in self.terms)

    @property
    def options(self) -> MetricOptions:
        """The options, shared by all terms."""
        return self.terms[0][1].options

    def update(self, pred: Tensor, labels: Tensor) -> None:
        """See `Metric.update`."""
        update_all([metric for _, metric in self.terms], pred, labels)

    @property
    def counts_itself(self) -> bool:
        """See `Metric.counts_itself`."""
        return any(metric.counts_itself for _, metric in self.terms)

    def count(self, logic: HardLogic) -> None:
        """See `Metric.count`."""
        for _, metric in self.terms:
            metric.count(logic)

    def reset(self) -> None:
        """Reset all terms."""
        for _, metric in self.terms:
            metric.reset()

    def merge(self, other: Self) -> None:
        """See `Metric.merge`."""
        if not isinstance(other, MetricSum) or other.name != self.name:
            raise InputError("merge", f"a {self.name}", repr(other))
        for (_, mine), (_, theirs) in zip(self.terms, other.terms, strict=True):
            mine.merge(theirs)

    def per_class(self) -> Tensor:
        """Return the weighted sum of the terms' per-class scores; a pooled score counts for every class.

        Raises:
            InputError: a term has neither one score nor one for each class.
        """
        scores, classes = [m.per_class() for _, m in self.terms], self.options.num_classes
        for (_, metric), own in zip(self.terms, scores, strict=True):
            if own.shape not in ((classes,), (1,)):
                expected = f"one score, or one for each of {classes} classes, in a sum of metrics"
                raise InputError(f"scores of {metric.name}", expected, f"{len(own)} scores")
        return torch.stack([(w * own).expand(classes) for (w, _), own in zip(self.terms, scores, strict=True)]).sum(0)

    def __repr__(self) -> str:
        return f"MetricSum({self.name}, {self.options})"

    def compute(self) -> Tensor:
        """Return the weighted sum of the terms, 0-d float64."""
        return torch.stack([w * m.compute() for w, m in self.terms]).sum()
