"""The evaluator: whole images in, exact metrics out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from autoseg.data import normalize
from autoseg.metrics import Metric, MetricSum, update_all
from autoseg.training.frozen import Stored
from autoseg.training.precision import Precision


class Score(Protocol):
    """What a metric must offer to be evaluated; all of `autoseg.metrics` does."""

    def update(self, pred: Tensor, labels: Tensor) -> None:
        """Adds a batch of predicted and true classes, both (N, H, W) int64."""

    def compute(self) -> Tensor:
        """0-d score over everything added."""


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    rows: Tensor,
    metrics: Mapping[str, Score],
    precision: Precision,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    stored: Stored | None = None,
) -> dict[str, float]:
    """Score a network on whole images at the size they are stored in.

    The model's mode (train or eval) is put back afterwards.

    Args:
        model: images (N, 3, H, W) float to a list of logits whose first is the main one.
        images: (N, 3, H, W) uint8, on the device or memory-mapped for the CPU.
        labels: (N, H, W) uint8, there too.
        rows: (M,) int64 CPU indices of the images to score.
        metrics: by name; they are updated, not reset. Those with `needs_probs` get softmax probabilities
            (N, C, H, W) float32 through `update_probs` instead of classes.
        precision: number format and layout, as in training.
        mean: RGB, 0..255, subtracted from the images.
        std: RGB, by which they are divided then.
        batch_size: images at a time.
        stored: what the frozen backbone makes of these very images, so that they need not be looked at; or None.

    Returns:
        A score per metric, in 0..1 for the paper's; NaN where nothing could be counted.
    """
    with torch.inference_mode():
        for index, logits in _forward(model, images, rows, precision, mean, std, batch_size, stored):
            _update(metrics, logits, labels[index].long())
    return {name: float(metric.compute()) for name, metric in metrics.items()}


def predict(
    model: nn.Module,
    images: Tensor,
    rows: Tensor,
    precision: Precision,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
) -> Tensor:
    """Predicted classes of whole images, (M, H, W) uint8 on the CPU; arguments as in `evaluate`."""
    with torch.inference_mode():
        forward = _forward(model, images, rows, precision, mean, std, batch_size)
        return torch.cat([logits.argmax(1).to("cpu", torch.uint8) for _, logits in forward])


def _forward(
    model: nn.Module,
    images: Tensor,
    rows: Tensor,
    precision: Precision,
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    stored: Stored | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices and (N, C, H, W) float32 logits, batch by batch, in evaluation mode."""
    training = model.training
    model.to(memory_format=precision.layout).eval()
    for number, index in enumerate(rows.to(images.device).split(batch_size)):
        batch = normalize(images[index], mean, std) if stored is None else stored.scored(number)
        batch = batch.to(memory_format=precision.layout)
        with precision.autocast():
            logits = model(batch)[0]
        yield index, logits.float()
    model.train(training)


def _update(metrics: Mapping[str, Score], logits: Tensor, labels: Tensor) -> None:
    pred = logits.argmax(1)
    probs: Tensor | None = None
    alike: list[Metric | MetricSum] = []
    for metric in metrics.values():
        if getattr(metric, "needs_probs", False):
            probs = logits.softmax(1) if probs is None else probs
            metric.update_probs(probs, labels)  # type: ignore[attr-defined]
        elif isinstance(metric, Metric | MetricSum):
            alike.append(metric)
        else:
            metric.update(pred, labels)
    update_all(alike, pred, labels)
