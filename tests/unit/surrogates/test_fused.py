"""The fused pass gives what the reference gives, value and gradient: any θ, space, metric, dtype and layout."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from agreement import ALL, SPACES, C, assert_same, batch, value_and_gradient
from hypothesis import given, settings
from hypothesis import strategies as st

import autoseg
from autoseg.losses import searched_loss
from autoseg.metrics import base
from autoseg.metrics.bits import square
from autoseg.surrogates import CurveSpec, curves
from autoseg.surrogates.fast.cpu import fused
from autoseg.surrogates.fast.cpu.pieces import pieces_of, value_and_slope
from autoseg.surrogates.fast.cpu.windows import dilated, eroded, greatest_around
from autoseg.surrogates.fast.formula_plan import FormulaPlan
from autoseg.surrogates.fast.reading import FusedLogic
from autoseg.surrogates.logic import _max_pool


@pytest.fixture(autouse=True)
def blocks_smaller_than_the_image(monkeypatch):
    monkeypatch.setattr(fused, "BLOCK", 50 * C)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("space", SPACES)
def test_equals_the_reference(name, space):
    space = autoseg.build_space(space, metric=name)
    for seed in range(2):
        theta = np.random.default_rng(seed).random(space.dim)
        loss = searched_loss(space, theta, num_classes=C, tolerance=2, drop_background=bool(seed % 2))
        assert_same(loss, *batch(seed))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_equals_the_reference_in_every_precision(name, dtype):
    space = autoseg.build_space("default", metric=name)
    loss = searched_loss(space, 0.2 + 0.6 * np.random.default_rng(1).random(space.dim), num_classes=C, tolerance=2)
    assert_same(loss, *batch(1, dtype))


@settings(max_examples=25)
@given(st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0]), min_size=12, max_size=12))
def test_equals_the_reference_for_any_theta(theta):
    space = autoseg.build_space("paper-miou")
    loss = searched_loss(space, np.array(theta), num_classes=C)
    logits, labels = batch(2)
    loss.fused = False
    _, scale = value_and_gradient(loss, logits, labels)
    if scale.abs().max() > 1e-6:  # below, the bound is under the rounding of the sums
        assert_same(loss, logits, labels)


@pytest.mark.parametrize("name", ["miou", "biou", "bf1"])
def test_layouts(name):
    loss = autoseg.SurrogateLoss(name, C, tolerance=2)
    logits, labels = batch(3)
    for other in (
        logits.to(memory_format=torch.channels_last),
        logits.transpose(2, 3).contiguous().transpose(2, 3),
        logits[:, :, ::2, ::3],
    ):
        assert_same(loss, other, labels[:, :: 16 // other.shape[2], :: round(20 / other.shape[3])])
    assert_same(loss, logits, labels.to(torch.uint8))
    assert_same(loss, logits, labels.transpose(1, 2).contiguous().transpose(1, 2))


def test_a_formula_with_every_kind_of_total(monkeypatch):
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))

    @autoseg.register_metric
    class Mixed(autoseg.Metric):
        """Totals within planes and regions, with and without void, of prediction, label and their boundaries."""

        name = "mixed"
        summary = "for this test"

        def sums(self, p, y, logic):
            band = logic.anywhere(logic.dilate(logic.boundary(y), 1))
            edge = logic.boundary(y)
            return {
                "and": logic.total(logic.and_(p, edge), within=band) + logic.total(p, void=True),
                "or": logic.total(logic.or_(y, p), void=True) + logic.total(p, within=edge),
                "within": logic.total(logic.boundary(p, 2), within=band) + logic.total(edge, within=p),
                "wide": logic.total(y, within=logic.dilate(edge, 1)) + logic.total(logic.dilate(edge, 2), within=edge),
                "label": logic.total(y),
            }

        def scores(self, s, ratio):
            return ratio(s["and"] + s["within"], s["or"] + s["label"] + s["wide"])

    for space in SPACES:
        bound = autoseg.build_space(space, metric="mixed")
        loss = searched_loss(bound, 0.1 + 0.8 * np.random.default_rng(3).random(bound.dim), num_classes=C)
        assert_same(loss, *batch(4))
        loss.compiled = any(map(shutil.which, ["c++", "g++", "clang++"]))
        assert_same(loss, *batch(4, torch.float32))


@pytest.mark.parametrize("classes", [31, 32, 62, 63, 70])
def test_labels_of_many_classes_are_bits_of_several_words(classes):
    """BF1 keeps the classes of its dilated labels as bits: the ends of a word and of its halves."""
    torch.manual_seed(classes)
    logits = torch.randn(1, classes, 10, 11, dtype=torch.float64)
    labels = torch.randint(0, classes, (1, 10, 11))
    labels[0, :2, :3] = 255
    space = autoseg.build_space("bf1")
    loss = searched_loss(space, np.full(space.dim, 0.4), num_classes=classes, tolerance=2)
    assert_same(loss, logits, labels)


def test_only_planes_with_neighbours_leave_the_pass(monkeypatch):
    def refuse(*_):
        raise AssertionError("this formula is pointwise")

    monkeypatch.setattr("autoseg.surrogates.fast.reading.channel_totals", refuse)
    for name in ("miou", "fwiou", "macc", "gacc", "biou", "dice", "miou_c"):
        assert autoseg.SurrogateLoss(name, C)(*batch(0)).isfinite()
    with pytest.raises(AssertionError):
        autoseg.SurrogateLoss("bf1", C)(*batch(0))


@pytest.mark.parametrize("name", ALL)
def test_empty_batches(name):
    loss = autoseg.SurrogateLoss(name, C)
    for n in (0, 2):
        logits = torch.randn(n, C, 8, 8)
        value, grad = value_and_gradient(loss, logits, torch.full((n, 8, 8), 255))
        assert float(value) == 0 and not grad.any() and grad.shape == logits.shape


def test_the_gradient_takes_the_place_of_what_the_graph_kept():
    logits, labels = batch(0, torch.float32)
    loss = autoseg.SurrogateLoss("miou", C)
    leaf = logits.requires_grad_()
    value = loss(leaf, labels)
    first, second = (torch.autograd.grad(value, leaf, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second) and first.data_ptr() != second.data_ptr()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        value = loss(leaf, labels)
    assert {t.data_ptr() for t in kept if t.numel() == logits.numel()} == {leaf.data_ptr()}


def test_forward_without_gradient_saves_nothing():
    logits, labels = batch(0)
    loss = autoseg.SurrogateLoss("biou", C)
    with torch.no_grad():
        value = loss(logits, labels)
    assert value == loss(logits.clone().requires_grad_(), labels).detach() and not value.requires_grad


@pytest.mark.slow  # imports half of torch
def test_functorch_transforms_take_the_reference():
    logits, labels = batch(0)
    loss = autoseg.SurrogateLoss("miou", C)
    grad = torch.func.grad(lambda x: loss(x, labels))(logits)
    torch.testing.assert_close(grad, value_and_gradient(loss, logits, labels)[1])


def test_the_answer_does_not_depend_on_what_was_asked_before():
    logits, labels = batch(0)
    loss = autoseg.SurrogateLoss("miou", C)
    metric = loss.terms[0][1]
    curves = {key: loss.curve(name) for key, name in loss.space.keys("miou").items()}
    first = FusedLogic(logits, labels, curves).read(FormulaPlan(metric.sums, kernels=False))
    logic = FusedLogic(logits, labels, curves)
    other = lambda p, y, words: {"or": words.total(words.or_(p, y), void=True), "label": words.total(y)}  # noqa: E731
    logic.read(FormulaPlan(other, kernels=False))
    for key, total in logic.read(FormulaPlan(metric.sums, kernels=False)).items():
        assert torch.equal(total, first[key])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ALL)
def test_compiled_on_a_gpu_equals_the_reference(name):
    loss = autoseg.SurrogateLoss(name, C, tolerance=2, compile=True).to("cuda")
    logits, labels = batch(0, torch.float32)
    assert_same(loss, logits.cuda(), labels.cuda())


# ------------------------------------------------------------------------------------------- its parts


@settings(max_examples=100)
@given(st.integers(0, 10**6), st.sampled_from(["bezier", "linear"]), st.integers(1, 4), st.booleans())
def test_pieces_equal_the_curve(seed, family, pieces, constrained):
    spec = CurveSpec(family, pieces if family == "bezier" else pieces + 1, constrained, constrained)
    coefficients = spec.coefficients(spec.decode(np.random.default_rng(seed).random(spec.dim)))
    x = torch.cat([torch.linspace(0, 1, 129), torch.logspace(-9, 0, 33)]).double()
    value, slope = value_and_slope(x, pieces_of(coefficients, x.dtype))
    theirs, their_slope = curves.value_and_slope(x, coefficients)
    torch.testing.assert_close(value, theirs, atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(slope, their_slope, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("px", [0, 1, 2, 5, 30])
def test_windows_equal_pooling(px):
    x = torch.rand(2, 3, 17, 23, dtype=torch.float64)
    x = x.flatten()[torch.randperm(x.numel())].view_as(x)
    assert torch.equal(square(x > 0.95, px), _max_pool((x > 0.95).float(), px) > 0)
    weight = torch.rand_like(x)
    for ours, theirs in (
        (lambda z: dilated(z, px), lambda z: _max_pool(z, px)),
        (lambda z: eroded(z, px, 1.0), lambda z: -_max_pool(-z, px)),
    ):
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        torch.testing.assert_close(ours(a), theirs(b))
        (ours(a) * weight).sum().backward()
        (theirs(b) * weight).sum().backward()
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("px", [1, 2, 30])
@pytest.mark.parametrize("count", [0, 40])
def test_the_greatest_around_some_pixels_is_dilation_there(px, count):
    x = torch.rand(1, 3, 17, 23, dtype=torch.float64)
    pixels, channels = torch.randint(17 * 23, (count,)), torch.randint(3, (count,))
    weight, found = torch.rand(count, dtype=torch.float64), []
    for function in (
        lambda z: greatest_around(z, pixels, channels, px),
        lambda z: dilated(z, px)[0].flatten(1)[channels, pixels],
    ):
        leaf = x.clone().requires_grad_()
        value = function(leaf)
        found.append((value.detach(), *torch.autograd.grad((value * weight).sum(), leaf)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("compiled", [False, any(map(shutil.which, ["c++", "g++", "clang++"]))])
@pytest.mark.parametrize("name", ["miou", "macc", "bf1"])
def test_labels_changed_before_backward_are_noticed(name, compiled):
    """The gradient would be of other labels than the value."""
    loss = autoseg.SurrogateLoss(name, num_classes=3, compile=compiled)
    logits, labels = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randint(0, 3, (2, 8, 8))
    value = loss(logits, labels)
    labels.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()
