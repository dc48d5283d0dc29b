"""Precision, recall and F1 of a foreground against torchmetrics, and as surrogates."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import autoseg
from autoseg.losses import searched_loss
from autoseg.metrics import labels
from autoseg.metrics.base import registry

REFERENCE = {"precision": "binary_precision", "recall": "binary_recall", "f1": "binary_f1_score"}


def draw(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(4, 9, 11, generator=generator) < 0.2).long()
    pred = torch.where(torch.rand(labels.shape, generator=generator) < 0.8, labels, 1 - labels)
    labels[:, :2] = 255
    return pred, labels


@pytest.mark.parametrize("name", REFERENCE)
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_torchmetrics_on_class_one(name: str, seed: int) -> None:
    from torchmetrics.functional import classification

    pred, labels = draw(seed)
    metric, other = autoseg.build_metric(name, 2), autoseg.build_metric(name, 2)
    metric.update(pred[:1], labels[:1])
    other.update(pred[1:], labels[1:])
    metric.merge(other)
    keep = labels != 255
    expected = getattr(classification, REFERENCE[name])(pred[keep], labels[keep])
    assert float(metric.compute()) == pytest.approx(float(expected), abs=1e-6)
    assert metric.per_class().isnan().tolist() == [True, False]


def test_a_class_nothing_is_predicted_as_has_no_precision_and_an_absent_one_is_undefined() -> None:
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[0, 0] = 1
    scores = {}
    for name in REFERENCE:
        metric = autoseg.build_metric(name, 3)
        metric.update(torch.zeros_like(labels), labels)
        scores[name] = metric.per_class().tolist()
    assert all(values[1] == 0 and math.isnan(values[0]) and math.isnan(values[2]) for values in scores.values())
    wrong = autoseg.build_metric("precision", 3)
    wrong.update(torch.full_like(labels, 2), labels)
    assert wrong.per_class()[2] == 0  # predicted and never right: that is a score, though no label has the class


@pytest.mark.parametrize("name", REFERENCE)
def test_surrogate_equals_the_metric_on_one_hot_input_and_rises_with_it(name: str) -> None:
    pred, labels = draw(5)
    metric = autoseg.build_metric(name, 2)
    metric.update(pred, labels)
    logits = 200.0 * F.one_hot(pred, 2).permute(0, 3, 1, 2).double()
    space = autoseg.build_space(f"paper-{name}")
    loss = searched_loss(space, torch.rand(space.dim, generator=torch.Generator().manual_seed(1)).numpy(), 2)
    assert float(loss(logits, labels)) == pytest.approx(1 - float(metric.compute()), abs=1e-7)
    small = torch.randn(2, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    identity = autoseg.SurrogateLoss(name, 2)
    assert torch.autograd.gradcheck(lambda x: identity(x, labels[:2, :6, :6]), small)


def test_identity_surrogate_of_precision_is_soft_precision() -> None:
    _, labels = draw(0)
    logits = torch.randn(4, 2, 9, 11, generator=torch.Generator().manual_seed(0))
    keep = labels != 255
    p, y = logits.softmax(1)[:, 1][keep].double(), (labels == 1)[keep].double()
    assert float(autoseg.SurrogateLoss("precision", 2)(logits, labels)) == pytest.approx(
        1 - float((p * y).sum() / p.sum()), abs=1e-6
    )


@pytest.mark.parametrize("classes", [2, 4])
def test_f1_is_dice_without_the_background_which_drop_background_is_not(classes: int) -> None:
    """As the docstring of `build_metric` says."""
    pred, true = torch.randint(0, classes, (2, 3, 9, 8), generator=torch.Generator().manual_seed(0))
    scores = {}
    for name in registry():
        for drop in (False, True):
            metric = autoseg.build_metric(name, classes, tolerance=0, drop_background=drop)
            if not metric.needs_probs:
                metric.update(pred, true)
                scores[name, drop] = metric.compute()
    dice = autoseg.build_metric("dice", classes)
    dice.update(pred, true)
    assert torch.allclose(scores["f1", False], dice.per_class()[1:].mean())
    assert {name for name, drop in scores if scores[name, drop] != scores[name, False]} <= {"biou", "bf1"}


def evaluated(names: list[str], masks: Tensor, **options: int) -> Tensor:
    """The first metric's score of predictions without a foreground, of images that come one by one and are merged."""
    merged = [autoseg.build_metric(name, 2, **options) for name in names]
    for mask in masks:
        for metric in merged:
            one = autoseg.build_metric(metric.name, 2, **options)
            one.update(torch.zeros_like(mask[None]), mask[None])
            metric.merge(one)  # type: ignore[arg-type]
    scores = [metric.compute() for metric in merged]
    merged[-1].reset()
    merged[-1].compute()  # of nothing there is nothing to say
    return scores[0]


def masks(count: int = 8) -> Tensor:
    """Files of 0 and 255: an object in the middle, one at the border."""
    saved = torch.zeros(count, 8, 9, dtype=torch.uint8)
    saved[:, 2:5, 3:6], saved[1:, :2, :2] = 255, 255
    return saved


@pytest.fixture
def silent_so_far() -> None:
    labels._warn_of_saved_masks.cache_clear()


@pytest.mark.usefixtures("silent_so_far")
@pytest.mark.parametrize("name", ["miou", "f1", "bf1", "dice_i", "dice_i_q10", "miou+0.5*bf1"])
def test_masks_of_0_and_255_are_warned_of_once(name: str) -> None:
    said = r"no label is 1, and many are 255, the ignore_index: .* Pass \(mask > 0\)\.long\(\)"
    with pytest.warns(UserWarning, match=said) as found:
        evaluated([name, "macc"], masks())
        evaluated([name], masks())
    assert len(found) == 1


@pytest.mark.usefixtures("silent_so_far")
def test_labels_with_void_pixels_are_not_warned_of() -> None:
    padded, few, one_object = masks(), masks(7), masks()
    padded[0] = 0
    padded[:, :3] = 255  # batches without a foreground may be padded
    one_object[5, 0, 8] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for usual in (padded, few, one_object, masks() * 0, masks() // 255):
            evaluated(["miou", "bf1", "dice_i"], usual)
        evaluated(["miou"], masks() // 255 * 100, ignore_index=100)
        many = autoseg.build_metric("miou", 3)
        many.update(torch.zeros_like(masks()), masks())
        many.compute()
