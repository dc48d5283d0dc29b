"""Fine-grained metrics against a plain loop over images, and as surrogates."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

import autoseg

C = 4


def draw(seed: int, n: int = 5):
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, C - 1, (n, 3, 4), generator=g).repeat_interleave(3, 1).repeat_interleave(3, 2)
    labels[0, :4] = 255
    labels[1] = 255  # an image without any label
    labels[2] = 3  # a class that one image has
    pred = torch.where(torch.rand(labels.shape, generator=g) < 0.7, labels.clamp(max=C - 1), 0)
    return pred, labels


def loop(pred, labels, kind: str, reduction: str) -> float:
    by_image: list[list[float]] = []
    by_class: list[list[float]] = [[] for _ in range(C)]
    for p, y in zip(pred, labels, strict=True):
        keep = y != 255
        scores = []
        for c in range(C):
            a, b = (p == c) & keep, (y == c) & keep
            if b.any():
                tp = float((a & b).sum())
                score = {
                    "miou": tp / float((a | b).sum()),
                    "dice": 2 * tp / float(a.sum() + b.sum()),
                    "macc": tp / float(b.sum()),
                }[kind]
                scores.append(score)
                by_class[c].append(score)
        if scores:
            by_image.append(scores)
    groups = by_image if reduction == "i" else [s for s in by_class if s]
    return sum(sum(s) / len(s) for s in groups) / len(groups)


@pytest.mark.parametrize("kind", ["miou", "dice", "macc"])
@pytest.mark.parametrize("reduction", ["i", "c"])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_a_loop_over_images(kind, reduction, seed):
    pred, labels = draw(seed)
    whole, parts = (autoseg.build_metric(f"{kind}_{reduction}", C) for _ in range(2))
    whole.update(pred, labels)
    assert float(whole.compute()) == pytest.approx(loop(pred, labels, kind, reduction), abs=1e-12)
    parts.update(pred[:2], labels[:2])
    other = autoseg.build_metric(f"{kind}_{reduction}", C)
    other.update(pred[2:], labels[2:])
    parts.merge(other)
    assert float(parts.compute()) == pytest.approx(float(whole.compute()), abs=1e-12)


@pytest.mark.parametrize("name", ["miou_i", "miou_c"])
def test_surrogate_equals_the_metric_on_one_hot_input(name):
    pred, labels = draw(7, n=7)  # as many images as classes would make I and C weigh alike
    metric = autoseg.build_metric(name, C)
    metric.update(pred, labels)
    logits = 200.0 * F.one_hot(pred, C).permute(0, 3, 1, 2).float()
    loss = autoseg.SurrogateLoss(name, C)
    assert float(loss(logits, labels)) == pytest.approx(1 - float(metric.compute()), abs=1e-6)
    small = torch.randn(2, C, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels[2:4, :3, :4]), small)


def test_per_class_shapes():
    pred, labels = draw(1)
    for name in ("miou_i", "miou_c"):  # both say how each class fares; only the mean differs
        metric, by_class = autoseg.build_metric(name, C), autoseg.build_metric("miou_c", C)
        assert math.isnan(metric.compute()) and metric.per_class().shape == (C,)
        metric.update(pred, labels)
        by_class.update(pred, labels)
        assert torch.equal(metric.per_class().nan_to_num(-1), by_class.per_class().nan_to_num(-1))
