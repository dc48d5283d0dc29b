"""Checks the user's own metrics, and the surrogates made of them, before anything is trained."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from autoseg import metrics
from autoseg.errors import InputError, in_a_line
from autoseg.metrics.maps import one_hot
from autoseg.metrics.trace import own_line
from autoseg.surrogates.loss import SurrogateLoss

SIDE = 32  # of the two images on which they are tried, in pixels
MOST = 1 + 1e-9  # score, rounding apart


def check_own_metrics(scored: Collection[str], trained: Collection[str], options: metrics.MetricOptions) -> None:
    """Raise if a metric of the user's fails on a few pixels: it would fail every training, at its end.

    Args:
        scored: metrics that trainings will be scored with; those of autoseg among them are passed over.
        trained: metrics whose surrogates will be trained with; likewise.
        options: those of the data: a formula may know how many classes there are.

    Raises:
        InputError: one fails; names it, and the line of its file.
    """
    classes = options.num_classes
    labels = (torch.arange(2 * SIDE**2) // 7 % classes).view(2, SIDE, SIDE)
    pred = labels.roll(3, dims=2)  # right and wrong in every class
    fewer, predicted = labels.clamp(max=max(0, classes - 2)), pred.clamp(min=min(1, classes - 1))  # lack a class each
    for own in metrics.own_metrics():
        try:
            if own.name in scored:
                _check_score(own(options), pred, labels)
            if own.name in trained:
                loss = SurrogateLoss(own.name, **asdict(options))
                _check_gradient(loss, one_hot(pred, classes), labels, least=1e-12)
                _check_gradient(loss, one_hot(predicted, classes), fewer, least=-1.0)
        except InputError as error:
            raise InputError(f"metric {own.name}: {error.field}", error.expected, error.got, error.hint) from error
        except Exception as error:
            hint = "sums gives totals of each class, 'label' among them, scores a score of each, weights their weights."
            what = "formula"
            if own.update is not metrics.Metric.update or (own.needs_probs and own.sums is metrics.Metric.sums):
                hint = "It counts itself: what update adds (self._add) compute and per_class must read (self._state)."
                what = "metric"
            expected = f"a {what} that can be computed for {classes} classes"
            got = f"{in_a_line(error)}{own_line(error)}"
            raise InputError(f"metric {own.name}", expected, got, hint) from error


def _check_score(metric: Any, pred: Tensor, labels: Tensor) -> None:
    if metric.needs_probs:
        metric.update_probs(one_hot(pred, metric.options.num_classes), labels)
    else:
        metrics.update_all([metric], pred, labels)  # as a training does
    score = float(metric.compute())
    metric.per_class()
    if score > MOST and metric.higher_is_better:
        raise InputError("score", "a share of 1", f"{score:g}", "Divide it by its largest value.")


def _check_gradient(loss: SurrogateLoss, logits: Tensor, labels: Tensor, least: float) -> None:
    """Raise unless loss and gradient are finite, and the largest is above `least`: from nothing else can be learnt."""
    logits.requires_grad_()
    value = loss(logits, labels)
    found = torch.autograd.grad(value, logits, allow_unused=True)[0] if value.requires_grad else None
    gradient = torch.zeros_like(logits) if found is None else found
    if not (value.isfinite() and gradient.isfinite().all()):
        hint = "A root, log or power has none at 0, and 0/0 is none: shift it, or give ratio(..., empty=0.0)."
        raise InputError("surrogate", "a finite loss with a finite gradient", "NaN or infinity", hint)
    if float(gradient.abs().max()) <= least:
        hint = "Nothing can be learnt from it: totals of the prediction must take part."
        raise InputError("surrogate", "a gradient", "0 everywhere", hint)
