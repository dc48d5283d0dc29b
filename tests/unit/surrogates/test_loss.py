"""SurrogateLoss: equals the metric on one-hot input, parity with the release, gradients, edge cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import autoseg
from autoseg import metrics
from autoseg.errors import InputError
from autoseg.losses import searched_loss
from autoseg.metrics.labels import check_labels
from autoseg.surrogates import known_losses
from autoseg.surrogates.logic import CurveLogic

C = 4
WHOLE = [name for name in metrics.searchable() if not metrics.base.registry()[name].per_image]


def batch(seed: int, n: int = 2, c: int = C, size=(16, 20), void: bool = True, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, c, *size, generator=g, dtype=torch.float64).to(dtype)
    coarse = torch.randint(0, c, (n, size[0] // 4, size[1] // 4), generator=g)
    labels = coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)
    if void:
        labels[:, :4, :9] = 255
    return logits, labels


# ------------------------------------------------------------------------------------------- truth table


@pytest.mark.parametrize("family", ["bezier", "linear"])
@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_equals_the_exact_metric_on_one_hot_input_for_any_theta(name, family, seed):
    logits, labels = batch(seed, n=3)
    kept = torch.rand(labels.shape, generator=torch.Generator().manual_seed(seed)) < 0.6
    pred = torch.where(kept, labels.clamp(max=C - 1), logits.argmax(1))
    exact = autoseg.build_metric(name, C, tolerance=2)
    exact.update(pred, labels)

    space = autoseg.build_space(name, parameterization=family)
    loss = autoseg.SurrogateLoss.from_theta(
        name, np.random.default_rng(seed).random(space.dim), C, space=space, tolerance=2, absent="skip"
    )
    one_hot = F.one_hot(pred, C).permute(0, 3, 1, 2).double()
    keys = space.keys(name)
    logic = CurveLogic(one_hot, labels, {key: loss.curve(curve) for key, curve in keys.items()})
    (_, metric), = loss.terms  # fmt: skip
    scores = metric.scores(metric.sums(logic.pred, logic.label, logic), loss._ratio)
    occurs = ~exact.scores(exact._state, metrics.base.exact_ratio).isnan()
    expected = exact.scores(exact._state, metrics.base.exact_ratio)
    torch.testing.assert_close(scores[occurs], expected[occurs], atol=1e-7, rtol=0)


def test_hard_logits_give_one_minus_the_metric():
    _, labels = batch(0)
    pred = labels.clamp(max=C - 1).roll(1, 1)
    logits = 200.0 * F.one_hot(pred, C).permute(0, 3, 1, 2).float()
    for name in ("miou", "biou", "bf1", "gacc", "miou+0.5*bf1"):
        exact = autoseg.build_metric(name, C, tolerance=1)
        exact.update(pred, labels)
        loss = autoseg.SurrogateLoss(name, C, absent="skip", tolerance=1)
        worst = 1.5 if "+" in name else 1.0
        assert float(loss(logits, labels)) == pytest.approx(worst - float(exact.compute()), abs=1e-5)


# ------------------------------------------------------------------------------------------- the release


def release_curve(x, points):
    """Bezier curve as the release's formula has it (float64, so its cancellation does not matter)."""
    flat = [0.0, 0.0, *points, 1.0, 1.0]
    xy = list(zip(flat[::2], flat[1::2], strict=True))
    y = torch.zeros_like(x)
    for k in range(0, len(xy) - 1, 2):
        (x0, y0), (x1, y1), (x2, y2) = xy[k : k + 3]
        here = ((x > x0) | (k == 0)) & (x <= x2)
        a = (x1 - x0) / (x2 - x0)
        u = torch.where(here, (x - x0) / (x2 - x0), torch.ones_like(x))
        t = (a - torch.sqrt(a * a + (1 - 2 * a) * u)) / (2 * a - 1)
        y = torch.where(here, (1 - t) ** 2 * y0 + 2 * t * (1 - t) * y1 + t * t * y2, y)
    return y


def release_loss(metric, points, logits, labels, drop_bg, tol=5, eps=1e-8):
    """The released losses from their formulas, dense and plain."""
    c = logits.shape[1]
    p = logits.softmax(1)
    y = F.one_hot(torch.where(labels < c, labels, c), c + 1).permute(0, 3, 1, 2)[:, :-1].to(p)
    mask = (labels < c).to(p)[:, None]
    n = len(points)

    def total(z):
        return z.sum((0, 2, 3))

    def dilate(z):
        return F.max_pool2d(z, 2 * tol + 1, 1, tol)

    def erode(z):
        return -F.max_pool2d(-F.pad(z, (1,) * 4, value=1.0), 3, 1)

    if metric == "bf1":
        e, edge_y = erode(p), (erode(y) != y).to(p)
        g = [release_curve(z, points[i * n // 4 : (i + 1) * n // 4]) for i, z in enumerate((p, e, p, e))]
        edge = g[2] + g[3] - g[2] * g[3] - g[0] * g[1]
        precision = total(edge * dilate(edge_y)) / (total(edge) + eps)
        recall = total(dilate(edge) * edge_y) / (total(edge_y) + eps)
        f1 = 2 * precision * recall / (precision + recall + eps)
        keep = total(edge_y) != 0
        return 1 - (f1[1:][keep[1:]] if drop_bg else f1[keep]).mean()
    if metric in ("macc", "gacc"):
        hit = total(release_curve(p, points) * y)
        per_class = hit / (total(y) + eps)
        return 1 - (per_class.mean() if metric == "macc" else hit.sum() / (y.sum() + eps))
    if metric == "biou":
        average = F.avg_pool2d(y, 3, 1, 1, count_include_pad=False)
        band = dilate((y != average).to(p) * y)
        mask = mask * ((band[:, 1:] if drop_bg else band).amax(1, keepdim=True) > 0.5)
    g_and, g_or = release_curve(p, points[: n // 2]), release_curve(p, points[n // 2 :])
    iou = total(g_and * y * mask) / (total((g_or + y - g_or * y) * mask) + eps)
    area = total(y)
    if metric == "fwiou":
        return 1 - (iou * area)[area > 0].sum() / area[area > 0].sum()
    return 1 - iou.mean()


@pytest.mark.parametrize("drop_bg", [False, True])
@pytest.mark.parametrize("name", [name for name in known_losses() if name.startswith("asl2021/")])
def test_parity_with_the_release(name, drop_bg):
    known = known_losses()[name]
    loose = (1e-7, 2e-6) if known.metric == "bf1" else (1e-8, 1e-7)
    for dtype, (loss_tol, grad_tol) in {torch.float32: (5e-6, 1e-4), torch.float64: loose}.items():
        logits, labels = batch(3, c=6, size=(32, 40), dtype=dtype)
        labels[labels == 5] = 2  # an absent class
        logits.requires_grad_()
        ours = autoseg.load_loss(name, num_classes=6, drop_background=drop_bg)(logits, labels)
        (grad,) = torch.autograd.grad(ours, logits)
        exact = logits.detach().double().requires_grad_()
        theirs = release_loss(known.metric, known.control_points, exact, labels, drop_bg)
        (their_grad,) = torch.autograd.grad(theirs, exact)
        assert ours.dtype == dtype
        assert abs(float(ours) - float(theirs)) < loss_tol
        assert float((grad - their_grad).abs().max() / their_grad.abs().max()) < grad_tol


# ------------------------------------------------------------------------------------------- gradients

SPACES = ["paper-miou", "paper-fwiou", "paper-dice", "paper-macc", "paper-gacc", "paper-biou", "default-biou",
          "default-gacc", "paper-bf1", "paper-boundary_iou", "paper-linear-miou", "paper-unconstrained-miou",
          "default-miou+0.5*bf1"]  # fmt: skip


@pytest.mark.parametrize("name", SPACES)
def test_gradcheck(name):
    space = autoseg.build_space(name)
    theta = 0.2 + 0.6 * np.random.default_rng(0).random(space.dim)
    loss = searched_loss(space, theta, num_classes=3, tolerance=1)
    logits, labels = batch(5, n=1, c=3, size=(4, 8), void=False, dtype=torch.float64)
    logits, labels = logits[..., :3, 2:7], labels[:, :3, 2:7].clone()
    labels[:, 0, :2] = 255
    assert len(labels[:, 1:].unique()) == 2  # there is a boundary
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), logits.requires_grad_(), eps=1e-7, atol=1e-4)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_extreme_logits_stay_finite(name, dtype):
    space = autoseg.build_space(name)
    _, labels = batch(1)
    for theta in (space.identity, np.zeros(space.dim), np.ones(space.dim)):
        loss = searched_loss(space, theta, num_classes=C, tolerance=1)
        for scale in (0.0, 1.0, 1e4) if dtype == torch.float16 else (0.0, 1.0, 1e4, 1e10):
            logits = (scale * torch.randn(2, C, 16, 20)).to(dtype).requires_grad_()
            value = loss(logits, labels)
            (grad,) = torch.autograd.grad(value, logits)
            assert value.isfinite() and grad.isfinite().all() and value.dtype == torch.float32


@pytest.mark.parametrize("metric", [*metrics.searchable(), "miou+0.5*bf1"])
@pytest.mark.parametrize("absent", ["include", "skip"])
def test_nothing_to_count_is_zero_with_zero_gradient(metric, absent):
    logits = torch.randn(1, C, 8, 8, requires_grad=True)
    value = autoseg.SurrogateLoss(metric, C, absent=absent)(logits, torch.full((1, 8, 8), 255))
    (grad,) = torch.autograd.grad(value, logits)
    assert float(value) == 0 and not grad.any()


def test_no_edge_at_all_is_zero_with_zero_gradient():
    logits = torch.randn(1, C, 8, 8, requires_grad=True)
    for metric in ("biou", "bf1"):
        value = autoseg.SurrogateLoss(metric, C)(logits, torch.ones(1, 8, 8, dtype=torch.long))
        (grad,) = torch.autograd.grad(value, logits)
        assert float(value) == 0 and not grad.any()


def test_void_pixels_have_no_gradient_and_no_influence():
    logits, labels = batch(2)
    for metric in ("miou", "fwiou", "macc", "gacc", "biou", "dice"):
        loss = autoseg.SurrogateLoss(metric, C, tolerance=1)
        leaf = logits.clone().requires_grad_()
        value = loss(leaf, labels)
        (grad,) = torch.autograd.grad(value, leaf)
        void = (labels == 255).unsqueeze(1).expand_as(grad)
        assert not grad[void].any() and grad[~void].any()
        changed = torch.where(void, torch.randn_like(logits), logits)
        assert loss(changed, labels) == value


@pytest.mark.parametrize("metric", metrics.searchable())
@pytest.mark.parametrize("fused", [True, False])
def test_an_ignored_class_counts_as_void(metric, fused):
    logits, labels = batch(2, void=False)
    ignoring, void = (autoseg.SurrogateLoss(metric, C, ignore_index=i, tolerance=1) for i in (1, 255))
    ignoring.fused = void.fused = fused
    assert torch.equal(ignoring(logits, labels), void(logits, labels.masked_fill(labels == 1, 255)))
    assert torch.equal(ignoring(logits, labels.byte()), ignoring(logits, labels))


@pytest.mark.parametrize("metric", [*metrics.searchable(), "miou+0.5*bf1"])
def test_second_derivatives_are_right_or_refused(metric):
    logits, labels = batch(3, n=1, c=2, size=(4, 8), dtype=torch.float64)
    leaf = logits.requires_grad_()
    loss = autoseg.SurrogateLoss(metric, 2, tolerance=1)
    (grad,) = torch.autograd.grad(loss(leaf, labels), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match=r"loss\.fused = False"):
        torch.autograd.grad((1 - grad).square().sum(), leaf)
    loss.fused = False
    (exact,) = torch.autograd.grad(loss(leaf, labels), leaf, create_graph=True)
    assert torch.allclose(exact, grad, atol=1e-12)
    space = autoseg.build_space("default", metric=metric)  # with a score curve
    curved = autoseg.SurrogateLoss.from_theta(metric, [0.3] * space.dim, 2, space=space, tolerance=1)
    curved.fused = False
    assert torch.autograd.gradgradcheck(lambda x: curved(x, labels), leaf)
    soft = torch.rand(1, 2, 4, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    assert torch.autograd.gradgradcheck(lambda x: curved(x, soft / soft.sum(1, keepdim=True)), leaf)


def test_an_unknown_metric_is_answered_with_metrics():
    for make in (autoseg.SurrogateLoss, lambda name, c: autoseg.SurrogateLoss.from_theta(name, [0.5], c)):
        with pytest.raises(InputError, match=r"^metric: .*Did you mean miou"):
            make("mious", C)
    with pytest.raises(InputError, match="Did you mean miou"):
        autoseg.build_space("mious")


def test_absent_rules():
    logits, labels = batch(4)
    labels[labels == 3] = 0
    scores = (
        autoseg.SurrogateLoss("miou", C, absent="include"),
        autoseg.SurrogateLoss("miou", C, absent="skip"),
    )
    include, skip = (1 - float(loss(logits, labels)) for loss in scores)
    assert include == pytest.approx(skip * 3 / 4, rel=1e-5)


def test_score_curve_has_a_finite_gradient_at_zero():
    space = autoseg.build_space("default-miou")
    theta = space.identity.copy()
    theta[-2:] = [0.0, 1.0]  # as steep at 0 as the space allows
    loss = searched_loss(space, theta, num_classes=2)
    labels = torch.ones(1, 4, 4, dtype=torch.long)
    logits = torch.zeros(1, 2, 4, 4)
    logits[:, 0] = 60.0
    logits.requires_grad_()
    (grad,) = torch.autograd.grad(loss(logits, labels), logits)
    assert grad.isfinite().all()


def test_identity_curves_are_soft_jaccard():
    logits, labels = batch(6, void=False)
    p, y = logits.softmax(1), F.one_hot(labels, C).permute(0, 3, 1, 2).float()
    inter, union = (p * y).sum((0, 2, 3)), (p + y - p * y).sum((0, 2, 3))
    assert float(autoseg.SurrogateLoss("miou", C)(logits, labels)) == pytest.approx(
        float(1 - (inter / union).mean()), abs=1e-6
    )


# ------------------------------------------------------------------------------------------- a module among others


@pytest.mark.slow
@pytest.mark.parametrize("name", ["default-miou", "paper-biou", "paper-bf1"])
def test_compiles_without_graph_breaks(name):
    loss = searched_loss(autoseg.build_space(name), autoseg.build_space(name).identity, num_classes=C)
    logits, labels = batch(7)
    plain, leaf = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    compiled = torch.compile(loss, fullgraph=True)
    a, b = loss(plain, labels), compiled(leaf, labels)
    a.backward()
    b.backward()
    torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    torch.testing.assert_close(plain.grad, leaf.grad, atol=1e-7, rtol=1e-4)


@pytest.mark.slow
def test_a_sum_is_one_graph_as_users_compile_it():
    """Without `fullgraph`, which lets sizes be unknown: each total broke the graph, 13 times here."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    loss = autoseg.SurrogateLoss("miou+0.5*bf1+biou", C)
    compiled = torch.compile(loss, backend="eager")
    for seed in (9, 10):
        torch.testing.assert_close(compiled(*batch(seed)), loss(*batch(seed)), atol=1e-6, rtol=0)
    assert not counters["graph_break"] and counters["stats"]["unique_graphs"] == 1


def test_half_conversion_keeps_the_curves():
    loss = autoseg.load_loss("asl2021/miou", num_classes=C)
    logits, labels = batch(8)
    before = loss(logits, labels)
    assert loss.to(torch.bfloat16)(logits, labels) == before
    assert loss.half()(logits, labels) == before
    assert not loss.state_dict()


@pytest.mark.parametrize("metric", ["miou", "gacc", "biou", "bf1", "miou_i", "boundary_iou", "miou+0.5*bf1"])
def test_a_default_device_changes_nothing(metric):
    """`torch.set_default_device` is for tensors that users make; "meta" shows each that is made without a device."""
    logits, labels = batch(8)
    logits.requires_grad_()
    loss = autoseg.SurrogateLoss(metric, C)
    expected = torch.autograd.grad(loss(logits, labels), logits)[0]
    with torch.device("meta"):
        for made in (autoseg.SurrogateLoss(metric, C), loss):
            assert torch.equal(torch.autograd.grad(made(logits, labels), logits)[0], expected)


def test_autocast_is_left():
    loss = autoseg.SurrogateLoss("miou", C)
    logits, labels = batch(9)
    with torch.autocast("cpu", torch.bfloat16):
        assert loss(logits, labels) == loss(logits, labels).float()
        assert loss(logits.bfloat16(), labels).dtype == torch.float32


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        ((1, 3, 8, 8), (1, 8, 8), "logits: expected float of shape (N, 4, H, W)"),
        ((1, 4, 8, 8), (1, 8, 9), "labels: expected integer of shape (1, 8, 8)"),
        ((1, 4, 8, 8), (8, 8), "labels: expected integer of shape (1, 8, 8)"),
    ],
)
def test_shapes_are_checked(logits, labels, words):
    with pytest.raises(InputError) as error:
        autoseg.SurrogateLoss("miou", C)(torch.zeros(logits), torch.zeros(labels, dtype=torch.long))
    assert words in str(error.value)


@pytest.mark.parametrize("bad", [C, -1, 254])
def test_labels_out_of_range_raise(bad):
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[0, 0, 0] = bad
    logits = torch.zeros(1, C, 8, 8)
    with pytest.raises(InputError, match=f"also {bad}"):
        autoseg.SurrogateLoss("miou", C)(logits, labels)
    assert autoseg.SurrogateLoss("miou", C, validate=False)(logits, labels).isfinite()


@pytest.mark.parametrize("fused", [True, False])
def test_eps_and_loss_weight_by_hand(fused):
    logits, labels = batch(0)
    loss = autoseg.SurrogateLoss("macc", C, eps=50.0, loss_weight=0.3)
    loss.fused = fused
    of_class = torch.stack([labels == c for c in range(C)], dim=1)
    hits, area = ((x * of_class).sum((0, 2, 3)) for x in (logits.softmax(1), torch.ones_like(logits)))
    torch.testing.assert_close(loss(logits, labels), 0.3 * (1 - (hits / (area + 50)).mean()))


def test_from_theta_keeps_theta_to_the_last_bit():
    theta = np.random.default_rng(0).random(12)
    loss = autoseg.SurrogateLoss.from_theta("miou", theta, C)
    assert np.array_equal(loss.theta, theta)
    assert not np.array_equal(loss.space.encode(loss.space.decode(theta)), theta)


def test_from_theta_takes_the_parameterization():
    loss = autoseg.SurrogateLoss.from_theta("miou", [0.3] * 12, 4, parameterization="linear")
    assert loss.space.curve.family == "linear"


def test_theta_and_space_belong_together():
    miou, linear = autoseg.build_space("miou"), autoseg.build_space("miou", parameterization="linear")
    for theta, said in (
        ([0.3] * 24, "theta: expected 12 numbers"),
        ([[0.3] * 12] * 2, "theta: expected 12 numbers"),
        ("x", "theta: expected numbers, got 'x'"),
        ([1.5] * 12, r"theta: expected numbers in \[0, 1\]"),
    ):
        with pytest.raises(InputError, match=said):
            autoseg.SurrogateLoss.from_theta("miou", theta, C)
    with pytest.raises(InputError, match="theta: expected 24 numbers for space paper-miou"):  # its freedom, for BF1
        autoseg.SurrogateLoss.from_theta("bf1", miou.identity, C, space=miou)
    with pytest.raises(InputError, match="parameterization: expected bezier, as of the space, got linear"):
        autoseg.SurrogateLoss("miou", C, "linear", space=miou)
    assert autoseg.SurrogateLoss("miou", C, "linear", space=linear).space is linear
    for space in ("paper-biou", autoseg.build_space("paper-biou")):  # its freedom, whatever metric it names
        loss = autoseg.SurrogateLoss("macc", C, space=space)
        assert loss.metric == "macc" and list(loss.space.curves) == ["and"]
    with pytest.raises(InputError, match="control_points of and: expected numbers"):
        autoseg.SurrogateLoss("miou", C, control_points={"and": ["a"], "or": []})


def test_labels_on_a_gpu_are_asserted_there_soft_ones_too(monkeypatch):
    """Pretended: what is given to the device's assertion is looked at here."""

    class Cuda(torch.Tensor):
        device = torch.device("cuda")

    said = []
    monkeypatch.setattr(torch, "_assert_async", lambda okay, _: said.append(bool(okay)))
    soft, hard = torch.full((1, C, 2, 2), 1 / C), torch.zeros(1, 2, 2, dtype=torch.long)
    for labels in (soft, 2 * soft, soft * torch.nan, hard, hard + C, hard + 255):
        check_labels(labels.as_subclass(Cuda), C, 255, "auto")
    assert said == [True, False, False, True, False, True]


@pytest.mark.parametrize("fused", [True, False])
def test_a_class_of_one_pixel_is_not_absent(fused):
    logits, labels = batch(4, void=False)
    labels[labels == 3] = 0
    labels[0, 0, 0] = 3
    losses = [autoseg.SurrogateLoss("miou", C, absent=absent) for absent in ("include", "skip")]
    for loss in losses:
        loss.fused = fused
    torch.testing.assert_close(*(loss(logits, labels) for loss in losses))
