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


class Percent(Area):
    def scores(self, s, ratio):
        return 100 * super().scores(s, ratio)


class Rooted(Area):
    def scores(self, s, ratio):
        return ratio(s["and"], s["or"]).sqrt()


class Constant(Area):
    def scores(self, s, ratio):
        return ratio(s["label"], s["label"])


class Tall(Area):
    def sums(self, p, y, logic):
        return {**super().sums(p, y, logic), "skeleton": logic.total(logic.skeleton(p))}


class Clamped(Area):
    def sums(self, p, y, logic):
        return super().sums(torch.clamp(p, 0, 1), y, logic)


class Thin(Area):
    def sums(self, p, y, logic):
        return {**super().sums(p, y, logic), "edge": logic.total(logic.boundary(p, 0))}


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (Percent, r"metric area: score: expected a share of 1, got .* Divide it by its largest value"),
        (Rooted, r"metric area: surrogate: expected a finite loss with a finite gradient, got NaN .* shift it"),
        (Constant, r"metric area: surrogate: expected a gradient, got 0 everywhere"),
        (Tall, r"logic has no skeleton\. It has and_, or_, boundary, .* space=default-miou"),
        (Clamped, r"p and y are no tensors but expressions"),
        (Thin, r"px of logic\.boundary: expected a whole number of pixels, 1 or more, got 0"),
    ],
)
def test_what_would_only_show_in_trainings_is_found_before(monkeypatch, broken, words):
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    autoseg.register_metric(broken)
    with pytest.raises(InputError, match=words):
        check_own_metrics(["area"], ["area"], metrics.MetricOptions(3))


def test_what_cannot_be_registered(monkeypatch):
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))

    class Lesion(autoseg.Metric):
        name, summary, per_image = "lesion", "Dice per image", True

    autoseg.register_metric(Area)
    for wrong, said in (
        (Lesion, r"per_image of Lesion: expected True of a subclass of autoseg\.metrics\.PerImage"),
        (Fewer, r"name of Fewer: expected one of its own, got its base's, 'area'"),
        (Area(metrics.MetricOptions(2)), r"register_metric: expected a subclass of autoseg\.Metric"),
    ):
        with pytest.raises(InputError, match=said):
            autoseg.register_metric(wrong)
    with pytest.raises(InputError, match=r"options of Area: expected MetricOptions, got 21\. .*build_metric\('area'"):
        Area(21)
    autoseg.register_metric(Area)  # a cell of a notebook, run again


def test_a_metric_that_is_no_formula_counts_itself(monkeypatch):
    """Its `update` is called where several metrics share the counting, in a sum too."""
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))

    @autoseg.register_metric
    class Corner(autoseg.Metric):
        name, summary, searchable = "corner", "the share of images whose first pixel is right", False

        def update(self, pred, labels):
            right = (pred == labels)[:, 0, 0]
            self._add({"right": right.sum(), "label": torch.tensor(len(right))})

        def per_class(self):
            return (self._state["right"] / self._state["label"]).double().view(1)

        def compute(self):
            return self.per_class()[0]

    check_own_metrics(["corner"], [], metrics.MetricOptions(3))
    pred, labels = torch.randint(0, 3, (2, 4, 9, 9)).unbind(0)
    corner, both, miou = (autoseg.build_metric(name, 3) for name in ("corner", "corner+miou", "miou"))
    metrics.update_all([corner, both, miou], pred, labels)
    expected = float((pred == labels)[:, 0, 0].double().mean())
    assert float(corner.compute()) == pytest.approx(expected)
    assert float(both.compute()) == pytest.approx(expected + float(miou.compute()))
    assert both.counts_itself and not miou.counts_itself


class Uncounted(Area):
    searchable = False

    def update(self, pred, labels):
        self._add({"right": (pred == labels).sum()})

    def compute(self):
        return self._state["rihgt"]


class UncountedProbs(autoseg.Metric):
    name, summary, searchable, needs_probs = "area", "no formula", False, True

    def update_probs(self, probs, labels):
        self._add({"sure": probs.amax(1).sum()})

    def compute(self):
        return self._state["srue"]


class Unbuilt(Uncounted):
    def __init__(self, options):
        raise ValueError("a file that is missing")


@pytest.mark.parametrize("broken", [Uncounted, UncountedProbs, Unbuilt])
def test_what_is_said_of_a_metric_that_counts_itself_is_not_of_sums_and_scores(monkeypatch, broken):
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    autoseg.register_metric(broken)
    with pytest.raises(InputError, match=r"expected a metric that can .* update adds .* compute and per_class") as told:
        check_own_metrics(["area"], [], metrics.MetricOptions(3))
    assert "sums" not in str(told.value) and "test_user_metric.py, line" in str(told.value)


def test_a_score_beyond_0_and_1_can_be_learnt_in_the_default_space(monkeypatch):
    """A score curve ends there; clamped to it, such a score had no gradient at all."""
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))

    @autoseg.register_metric
    class Signed(Area):
        name = "signed"

        def scores(self, s, ratio):
            return 2 * ratio(s["and"], s["or"]) - 1

    space = autoseg.build_space("default-signed")
    loss = autoseg.SurrogateLoss.from_theta("signed", np.full(space.dim, 0.4), 3, space=space)
    logits = torch.randn(2, 3, 9, 9, requires_grad=True)
    labels = torch.randint(0, 3, (2, 9, 9))
    value = loss(logits, labels)
    value.backward()
    assert float(value) > 1 and float(logits.grad.abs().max()) > 1e-5
    loss.fused = False
    torch.testing.assert_close(loss(logits, labels), value)
    perfect = 50 * torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    assert float(loss(perfect, labels)) == pytest.approx(0, abs=1e-5)


def test_a_ratio_of_nothing_has_the_same_value_in_the_surrogate(monkeypatch):
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))

    @autoseg.register_metric
    class Specific(Area):
        name = "kept"

        def scores(self, s, ratio):  # a class that nobody has or predicts is right
            return ratio(s["and"], s["or"], empty=1.0)

    labels = torch.randint(0, 2, (2, 9, 9))  # of three classes
    pred = labels.roll(1, 2)
    metric = autoseg.build_metric("kept", 3)
    metric.update(pred, labels)
    logits = 60 * torch.nn.functional.one_hot(pred, 3).permute(0, 3, 1, 2).double()
    logits[:, 2] = -800  # exactly 0
    loss = autoseg.SurrogateLoss("kept", 3, absent="include")
    for fused in (True, False):
        loss.fused = fused
        assert float(1 - loss(logits, labels)) == pytest.approx(float(metric.compute()), abs=1e-6)


def test_a_formula_without_and_and_or_has_a_space(monkeypatch):
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))

    @autoseg.register_metric
    class Near(autoseg.Metric):
        name, summary = "near", "share of the prediction within 2 pixels of the label"

        def sums(self, p, y, logic):
            within = logic.total(p, within=logic.dilate(y, 2))
            return {"within": within, "pred": logic.total(p), "label": logic.total(y)}

        def scores(self, s, ratio):
            return ratio(s["within"], s["pred"], empty=0.0)

    assert autoseg.build_space("near").dim == 0 and autoseg.build_space("default-near").dim == 2
    check_own_metrics(["near"], ["near"], metrics.MetricOptions(3))


def test_a_class_left_out_of_a_mean_over_images(monkeypatch):
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))

    class Left(PerImage, MIoU):
        by_class = False

        def weights(self, s):
            weights = super().weights(s).clone()
            weights[..., 0] = 0
            return weights

    pred, labels = torch.randint(0, 3, (2, 4, 9, 9)).unbind(0)
    left = Left(metrics.MetricOptions(3))
    left.update(pred, labels)
    expected = []
    for one, truth in zip(pred, labels, strict=True):
        ious = [((one == c) & (truth == c)).sum() / ((one == c) | (truth == c)).sum() for c in (1, 2)]
        expected.append(sum(ious) / 2)
    assert float(left.compute()) == pytest.approx(float(sum(expected) / 4))


def test_scores_of_groups_do_not_go_into_a_sum(monkeypatch):
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    autoseg.register_metric(Fewer)
    both = autoseg.build_metric("area+miou", 3)
    both.update(torch.zeros(1, 4, 4, dtype=torch.int64), torch.zeros(1, 4, 4, dtype=torch.int64))
    with pytest.raises(InputError, match=r"scores of area: expected one score, or one for each of 3 classes"):
        both.per_class()
