"""A user's metric is one small class: its curves, surrogate and exact form follow from the formula."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

import autoseg
from autoseg import metrics
from autoseg.errors import InputError
from autoseg.losses import searched_loss
from autoseg.metrics import base
from autoseg.metrics.logic import Logic
from autoseg.metrics.per_image import PerImage
from autoseg.metrics.region import MIoU
from autoseg.metrics.trace import curves_of
from autoseg.surrogates import check_own_metrics


@pytest.fixture
def fbeta(monkeypatch):
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))

    @autoseg.register_metric
    class FBeta(autoseg.Metric):
        """F-beta: (1+b²) TP / (TP + FP + b² (TP + FN)), with TP + FP + FN = S(p OR y) and TP + FN = S(y)."""

        name = "f2"
        summary = "F-beta of areas, beta = 2"
        beta = 2.0

        def sums(self, p, y, logic):
            return {
                "and": logic.total(logic.and_(p, y)),
                "or": logic.total(logic.or_(p, y)),
                "label": logic.total(y),
            }

        def scores(self, s, ratio):
            b2 = self.beta**2
            return ratio((1 + b2) * s["and"], s["or"] - s["label"] + s["and"] + b2 * s["label"])

    return FBeta


def test_everything_follows_from_the_formula(fbeta):
    pred, labels = torch.randint(0, 3, (2, 2, 20, 20)).unbind(0)
    metric = autoseg.build_metric("f2", num_classes=3)
    metric.update(pred, labels)
    tp = np.array([((pred == c) & (labels == c)).sum() for c in range(3)])
    precision, recall = tp / torch.bincount(pred.flatten()), tp / torch.bincount(labels.flatten())
    expected = 5 * precision * recall / (4 * precision + recall)
    assert metric.per_class().tolist() == pytest.approx(expected.tolist())
    space = autoseg.build_space("f2")
    assert list(space.curves) == ["and", "or"] and space.dim == 12
    logits = torch.randn(2, 3, 20, 20, requires_grad=True)
    searched_loss(space, space.identity, num_classes=3)(logits, labels).backward()
    assert logits.grad.any()
    assert autoseg.build_space("default-f2+miou").dim == 12


@pytest.mark.parametrize("per_image", [False, True])
def test_factors_of_a_formula_leave_it_exact(per_image):
    """torch makes float32 of counts times a number such as 0.3."""

    class TverskyScore(*((PerImage,) if per_image else ()), MIoU):
        name, summary, by_class = "tversky_score", "TP / (TP + 0.3 FP + 0.7 FN)", False

        def scores(self, s, ratio):
            return ratio(s["and"], 0.3 * s["or"] + 0.4 * s["label"] + 0.3 * s["and"])

        def weights(self, s):
            return super().weights(s) if per_image else 0.1 * s["label"]

    g = torch.Generator().manual_seed(0)
    pred, labels = torch.randint(0, 3, (2, 1, 40, 41), generator=g).unbind(0)
    metric = TverskyScore(base.MetricOptions(3))
    metric.update(pred, labels)
    hit = np.array([int(((pred == c) & (labels == c)).sum()) for c in range(3)])
    said, true = (np.bincount(ids.flatten().numpy(), minlength=3) for ids in (pred, labels))
    expected = hit / (hit + 0.3 * (said - hit) + 0.7 * (true - hit))
    assert metric.per_class().tolist() == pytest.approx(expected.tolist(), abs=1e-14)
    mean = expected.mean() if per_image else np.average(expected, weights=true)
    assert float(metric.compute()) == pytest.approx(mean, abs=1e-14)


class Weighed(autoseg.Metric):
    """A formula that knows how many classes there are, and names one by its number."""

    name, summary = "weighed", "IoU without class 0"

    def sums(self, p, y, logic):
        counts = torch.ones(self.options.num_classes, dtype=torch.float64)
        counts[0] = 0
        both, label = logic.total(logic.and_(p, y)), logic.total(y)
        assert label[self.options.num_classes - 1] >= 0
        return {"and": counts.to(both) * both, "or": logic.total(logic.or_(p, y)), "label": label}

    def scores(self, s, ratio):
        return ratio(s["and"], s["or"])


@pytest.mark.parametrize(
    ("total", "made"),
    [
        (lambda p, y, logic: logic.total(logic.and_(p, logic.dilate(y, 1))), "dilate"),
        (lambda p, y, logic: logic.total(logic.dilate(p, 1)), "dilate"),
        (lambda p, y, logic: logic.total(logic.and_(p, logic.or_(p, y))), "or"),
        (lambda p, y, logic: logic.total(logic.dilate(p, 1), within=logic.dilate(y, 1)), "dilate"),
    ],
)
def test_what_cannot_be_counted_is_said(total, made):
    class Own(autoseg.Metric):
        name, summary = "own", "counts what may have several classes a pixel"

        def sums(self, p, y, logic):
            return {"label": total(p, y, logic)}

    labels = torch.zeros(1, 3, 3, dtype=torch.long)
    with pytest.raises(InputError, match=f"formula: expected at most one class a pixel .* made by '{made}'"):
        Own(base.MetricOptions(2)).update(labels, labels)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda p, y: p[:, 1:],
        lambda p, y: 1 - p,
        lambda p, y: p & y,
        lambda p, y: p.sum((2, 3)),
        lambda p, y: torch.ones(3) * y,
    ],
)
def test_prediction_and_label_say_what_they_are(wrong):
    """They look like tensors, and Python names a class that no user has seen."""

    class Own(autoseg.Metric):
        name, summary = "own", "takes them for tensors"

        def sums(self, p, y, logic):
            return {"label": logic.total(wrong(p, y))}

    labels = torch.zeros(1, 3, 3, dtype=torch.long)
    with pytest.raises((TypeError, AttributeError), match=r"expressions: combine them by logic\.and_.* give weights"):
        Own(base.MetricOptions(2)).update(labels, labels)
    with pytest.raises(InputError, match=r"Own\.sums: .*expressions: .* give weights\(\) \(.*py, line \d+\)"):
        curves_of(Own(base.MetricOptions(2)).sums)


def test_an_expression_is_copied_and_sent():
    plane = Logic().boundary(Logic.pred)
    assert pickle.loads(pickle.dumps(plane)) == copy.deepcopy(plane) == plane


def test_a_formula_may_know_the_classes(monkeypatch):
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    autoseg.register_metric(Weighed)
    logits, labels = torch.randn(2, 5, 12, 12), torch.randint(0, 5, (2, 12, 12))
    loss = autoseg.SurrogateLoss("weighed", 5)
    fused = loss(logits, labels)
    loss.fused = False
    torch.testing.assert_close(fused, loss(logits, labels))


class Area(MIoU):
    """A metric of the user's, to be broken."""

    name, summary = "area", "IoU"


class Sliced(Area):
    def sums(self, p, y, logic):
        return super().sums(p[:, 1:], y, logic)


class Fewer(Area):
    def scores(self, s, ratio):
        return super().scores(s, ratio)[1:]


class Misspelled(Area):
    def scores(self, s, ratio):
        return ratio(s["adn"], s["or"])


class Unlabelled(Area):
    def sums(self, p, y, logic):
        return {"and": logic.total(logic.and_(p, y)), "or": logic.total(logic.or_(p, y))}


class Seventh(Area):
    def scores(self, s, ratio):
        assert len(s["or"]) >= 7, "which has a seventh class"
        return super().scores(s, ratio)


class OfCounts(Area):
    def scores(self, s, ratio):
        return torch.from_numpy(s["and"].numpy()) / s["or"]  # needs no gradient as a metric


class OfProbs(Area):
    needs_probs = True

    def update_probs(self, probs, labels):
        assert probs.shape == (len(labels), self.options.num_classes, *labels.shape[1:])
        self.update(probs.argmax(1), labels)


@pytest.mark.parametrize(
    ("broken", "trained", "words"),
    [
        (Sliced, [], r"metric area: expected .* for 3 classes, got TypeError: .* \(.*py, line \d+\)"),
        (Fewer, [], r"metric area: weights of area: expected as many as there are scores, got \(3,\) for .* \(2,\)"),
        (Misspelled, [], r"metric area: expected a formula .* for 3 classes, got KeyError: 'adn' \(.*py, line \d+\)"),
        (
            Unlabelled,
            ["area"],
            r"metric area: expected .* got KeyError: 'label'.* each class, 'label' among them",
        ),
        (Seventh, [], r"metric area: expected .*AssertionError: which has a seventh class \("),
        (
            OfCounts,
            ["area"],
            r"metric area: expected .*Can't call numpy\(\) on Tensor that requires grad",
        ),
    ],
)
def test_a_metric_that_fails_is_found_before_any_training(monkeypatch, broken, trained, words):
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    autoseg.register_metric(broken)
    with pytest.raises(InputError, match=words):
        check_own_metrics(["area"], trained, metrics.MetricOptions(3))
    check_own_metrics([], [], metrics.MetricOptions(3))  # nobody asked for it


@pytest.mark.parametrize("whole", [Area, Seventh, OfProbs, Weighed])
@pytest.mark.parametrize("options", [{}, {"ignore_index": 0, "tolerance": 40}, {"ignore_index": -100}])
def test_a_metric_that_works_is_let_through(monkeypatch, whole, options):
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    autoseg.register_metric(whole)
    state = torch.get_rng_state()
    check_own_metrics([whole.name], [whole.name], metrics.MetricOptions(7, **options))
    assert torch.equal(state, torch.get_rng_state())


def test_every_metric_of_ours_would_pass(monkeypatch):
    """So what is tried asks for nothing that a right one may lack."""
    monkeypatch.setattr(metrics, "is_ours", lambda _: False)
    for num_classes in (2, 21):
        check_own_metrics(metrics.names(), metrics.searchable(), metrics.MetricOptions(num_classes))
