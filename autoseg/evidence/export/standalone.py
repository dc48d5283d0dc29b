"""The loss that an exported Python file holds. Written here with imports; `gather.py` copies what it reaches.

It must stay free of everything but torch and the formulas, and gives the same values as `SurrogateLoss`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoseg.metrics.base import Metric
from autoseg.metrics.labels import check_ids, check_shapes, check_tensors
from autoseg.surrogates.curves import evaluate
from autoseg.surrogates.logic import CurveLogic


@dataclass
class Term:
    """One metric of a sum with the curves found for it.

    Attributes:
        weight: its factor.
        metric: the formula.
        curves: coefficients of each curve, by operation and operand.
        score: coefficients of the curve each class's score passes through, None for none.
    """

    weight: float
    metric: Metric
    curves: dict[tuple[str, str], list[list[float]]]
    score: list[list[float]] | None


class FoundLoss(nn.Module):
    """1 - surrogate of a metric, with curves that were found by a search.

    Args:
        terms: the metrics and their curves.
        absent: "include" averages over all classes, "skip" over those the labels of the batch have.
        eps: added to denominators.
        loss_weight: factor of the result.
    """

    def __init__(self, terms: Sequence[Term], absent: str, eps: float, loss_weight: float) -> None:
        super().__init__()
        self.terms, self.absent, self.eps, self.loss_weight = list(terms), absent, eps, loss_weight

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            logits: (N, C, H, W) float; gradients flow.
            labels: (N, H, W) integer class ids, `ignore_index` where there is no label.

        Returns:
            0-d; 0 with zero gradient if the batch has nothing to count.

        Raises:
            InputError: shapes or dtypes that do not belong together; on the CPU, an id that is neither a class nor
                `ignore_index`.
        """
        options = self.terms[0].metric.options
        check_tensors(logits=logits, labels=labels)
        if labels.device.type == "cpu" or labels.is_floating_point():
            check_ids(labels, "labels", options.num_classes, options.ignore_index)
        check_shapes(logits, labels, options.num_classes)
        with torch.autocast(logits.device.type, enabled=False):
            work = logits if logits.dtype == torch.float64 else logits.float()
            probs = work.softmax(1)
            ids = options.without_ignored(labels).long()
            total = torch.stack([term.weight * self._term(term, probs, ids) for term in self.terms]).sum()
            return (self.loss_weight * total).to(work.dtype)

    def _term(self, term: Term, probs: Tensor, labels: Tensor) -> Tensor:
        metric = term.metric
        curves = {key: _coefficients(rows, probs) for key, rows in term.curves.items()}
        logic = CurveLogic(probs, labels, curves, metric.per_image)
        sums = metric.sums(logic.pred, logic.label, logic)
        scores = metric.scores(sums, self._ratio)
        if term.score is not None:
            scores = evaluate(scores.clamp(0, 1), _coefficients(term.score, scores))
        weights = metric.weights(sums).to(scores.dtype)
        label = sums["label"]
        if label.shape == weights.shape and not (metric.absent_rule and self.absent == "include"):
            weights = weights * (label > 0)
        whole = weights.sum()
        mean = (scores * weights).sum() / torch.where(whole > 0, whole, 1.0)
        return torch.where((whole > 0) & (label.sum() > 0), 1 - mean, 0.0)

    def _ratio(self, numerator: Tensor, denominator: Tensor, empty: float = math.nan) -> Tensor:
        return numerator / (denominator + self.eps)


def _coefficients(rows: list[list[float]], like: Tensor) -> Tensor:
    dtype = torch.float32 if like.device.type == "mps" else torch.float64
    return torch.tensor(rows, dtype=dtype, device=like.device)
