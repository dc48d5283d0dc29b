"""Checks the user's own metrics, and the surrogates made of them, before anything is trained."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

import torch

from autoseg import metrics
from autoseg.errors import InputError, in_a_line
from autoseg.metrics.maps import one_hot
from autoseg.metrics.trace import own_line
from autoseg.surrogates.loss import SurrogateLoss

SIDE = 32  # of the two images on which they are tried, in pixels


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
    for own in metrics.own_metrics():
        try:
            if own.name in scored:
                metric: Any = own(options)
                metric.update_probs(one_hot(pred, classes), labels) if own.needs_probs else metric.update(pred, labels)
                float(metric.compute())
            if own.name in trained:
                logits, given = one_hot(pred, classes).requires_grad_(), asdict(options)
                SurrogateLoss(own.name, **given)(logits, labels).backward()
        except InputError as error:
            raise InputError(f"metric {own.name}: {error.field}", error.expected, error.got, error.hint) from error
        except Exception as error:
            expected = f"a formula that can be computed for {classes} classes"
            hint = "sums gives totals of each class, 'label' among them, scores a score of each, weights their weights."
            got = f"{in_a_line(error)}{own_line(error)}"
            raise InputError(f"metric {own.name}", expected, got, hint) from error
