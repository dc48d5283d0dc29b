"""Weighted sums of metrics, written as users type them: `miou+0.5*bf1`."""

from __future__ import annotations

import re
from typing import Self

import torch
from torch import Tensor

from autoseg.errors import InputError, unknown_name
from autoseg.metrics.base import Metric, MetricOptions, registry

_TERM = re.compile(r"(?:(?P<weight>[0-9.]+(?:e-?[0-9]+)?)\*)?(?P<name>[a-z_][a-z0-9_]*)")


def parse(spec: str) -> list[tuple[float, str]]:
    """[(weight, metric name)] of "miou" or "miou+0.5*bf1".

    Raises:
        InputError: not such a sum, an unknown name, a name twice, or a weight that is not positive.
    """
    terms: list[tuple[float, str]] = []
    for part in spec.replace(" ", "").split("+"):
        found = _TERM.fullmatch(part)
        if found is None:
            raise InputError("metric", "a name or a sum such as miou+0.5*bf1", repr(spec))
        name = found["name"]
        if name not in registry():
            raise unknown_name("metric", name, registry())
        try:
            weight = float(found["weight"] or 1.0)
        except ValueError:
            raise InputError("metric", "a number before *", repr(found["weight"])) from None
        terms.append((weight, name))
    if len({name for _, name in terms}) < len(terms):
        raise InputError("metric", "each name once", repr(spec), "Add up the weights.")
    if any(not weight > 0 for weight, _ in terms):
        raise InputError("metric", "weights above 0", repr(spec))
    return terms


class MetricSum:
    """A weighted sum of metrics, with the interface of `Metric`.

    Args:
        terms: [(weight, metric)].
    """

    needs_probs = False

    def __init__(self, terms: list[tuple[float, Metric]]) -> None:
        self.terms = terms

    @property
    def name(self) -> str:
        """As users type it."""
        return "+".join((f"{w:g}*" if w != 1 else "") + m.name for w, m in self.terms)

    @property
    def options(self) -> MetricOptions:
        """Shared by all terms."""
        return self.terms[0][1].options

    def update(self, pred: Tensor, labels: Tensor) -> None:
        """See `Metric.update`."""
        for _, metric in self.terms:
            metric.update(pred, labels)

    def reset(self) -> None:
        """Forgets everything seen."""
        for _, metric in self.terms:
            metric.reset()

    def merge(self, other: Self) -> None:
        """See `Metric.merge`."""
        if [(w, m.name) for w, m in self.terms] != [(w, m.name) for w, m in other.terms]:
            raise InputError("merge", self.name, other.name)
        for (_, mine), (_, theirs) in zip(self.terms, other.terms, strict=True):
            mine.merge(theirs)

    def per_class(self) -> Tensor:
        """Weighted sum of the terms' per-class scores; a pooled score counts for every class."""
        return torch.stack([(w * m.per_class()).expand(self.options.num_classes) for w, m in self.terms]).sum(0)

    def compute(self) -> Tensor:
        """Weighted sum of the terms, 0-d float64."""
        return torch.stack([w * m.compute() for w, m in self.terms]).sum()
