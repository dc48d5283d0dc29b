"""Curves: exact ends, monotone, accurate in float32, and the table of published values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import autoseg
from autoseg.surrogates import CurveSpec, known_losses
from autoseg.surrogates.curves import END_SLOPE, evaluate, prepare, value_and_slope

unit = st.floats(0, 1, allow_nan=False)
specs = st.builds(CurveSpec, st.just("bezier"), st.integers(1, 3)) | st.builds(
    CurveSpec, st.just("linear"), st.integers(2, 5)
)


@st.composite
def curve_and_raw(draw, **fixed):
    spec = draw(specs)
    spec = CurveSpec(spec.family, spec.pieces, **fixed)
    coarse = st.sampled_from([0.0, 0.5, 1.0])  # ends and halves: jumps and coinciding knots
    return spec, np.array(draw(st.lists(unit | coarse, min_size=spec.dim, max_size=spec.dim)))


@settings(max_examples=300)
@given(curve_and_raw(), st.sampled_from([torch.float32, torch.float64]))
def test_monotone_with_exact_ends_for_any_theta(drawn, dtype):
    spec, raw = drawn
    coefficients = spec.coefficients(spec.decode(raw))
    x = torch.linspace(0, 1, 257, dtype=dtype)
    g = evaluate(x, coefficients)
    assert g.dtype == dtype
    assert g[0] == 0 and g[-1] == 1
    assert (g.diff() >= 0).all() or float(g.diff().min()) >= -4 * torch.finfo(dtype).eps
    assert ((g >= 0) & (g <= 1)).all()
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(evaluate(leaf, coefficients).sum(), leaf)
    assert slope.isfinite().all() and (slope >= 0).all()


@settings(max_examples=60)
@given(curve_and_raw(truth_table=False, monotone=False))
def test_without_constraints_ends_are_free_but_in_range(drawn):
    spec, raw = drawn
    decoded = spec.decode(raw)
    g = evaluate(torch.linspace(0, 1, 33, dtype=torch.float64), spec.coefficients(decoded))
    assert float(g[0]) == pytest.approx(raw[-2]) and float(g[-1]) == pytest.approx(raw[-1])
    assert ((g >= 0) & (g <= 1)).all()


@pytest.mark.parametrize("spec", [CurveSpec("bezier", k) for k in (1, 2, 3)] + [CurveSpec("linear", 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identity(spec, dtype):
    x = torch.linspace(0, 1, 1001, dtype=dtype)
    g = evaluate(x, spec.coefficients(spec.decode(spec.identity)))
    assert float((g - x).abs().max()) < 4 * torch.finfo(dtype).eps


def test_float32_is_accurate_near_one_half():
    # the release's own initial means (.3333) give a control point almost, not exactly, halfway
    raw = np.array([0.25, 0.25, 0.3333, 0.3333, 0.5, 0.5])
    spec = CurveSpec()
    coefficients = spec.coefficients(spec.decode(raw))
    x = torch.linspace(0, 1, 4097)
    exact = evaluate(x.double(), coefficients)
    assert float((evaluate(x, coefficients) - exact).abs().max()) < 5e-7


@settings(max_examples=100)
@given(curve_and_raw())
def test_float32_agrees_with_float64_where_slopes_are_moderate(drawn):
    spec, raw = drawn
    raw = 0.1 + 0.8 * raw
    coefficients = spec.coefficients(spec.decode(raw))
    x = torch.linspace(0, 1, 513)
    assert float((evaluate(x, coefficients) - evaluate(x.double(), coefficients)).abs().max()) < 2e-5


@settings(max_examples=30)
@given(curve_and_raw())
def test_gradcheck(drawn):
    spec, raw = drawn
    coefficients = spec.coefficients(spec.decode(0.1 + 0.8 * raw))
    x = torch.rand(12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.98 + 0.01
    knots = coefficients[:, 0]
    x = x[((x[:, None] - knots).abs() > 1e-4).all(1)].requires_grad_()
    assert torch.autograd.gradcheck(lambda v: evaluate(v, coefficients), x)


TABLE_X = [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99]
A = {
    "and": [0.1892, 0.3962, 0.5311, 0.7477, 0.9101, 0.9762, 0.9904, 0.9921, 0.9968],
    "or": [0.0075, 0.0377, 0.0756, 0.1903, 0.3863, 0.7512, 0.9059, 0.9536, 0.9908],
}
C = {"and": [0.1629, 0.3978, 0.5411, 0.7341, 0.8253, 0.9038, 0.9560, 0.9757, 0.9943]}
TABLE = {  # values of the released control points, computed outside this project
    "asl2021/miou": {
        "and": [0.2026, 0.4079, 0.5273, 0.6766, 0.7562, 0.8644, 0.9429, 0.9710, 0.9941],
        "or": [0.0002, 0.0022, 0.0072, 0.0412, 0.1912, 0.6059, 0.9742, 0.9854, 0.9966],
    },
    "asl2021/miou-log": A,
    "asl2021/fwiou": A,
    "asl2021/biou": A,
    "asl2021/fwiou-log": {
        "and": [0.0556, 0.2633, 0.4833, 0.7297, 0.8147, 0.9057, 0.9620, 0.9809, 0.9962],
        "or": [0.0057, 0.0285, 0.0572, 0.1450, 0.3002, 0.5238, 0.7996, 0.8979, 0.9792],
    },
    "asl2021/macc": C,
    "asl2021/gacc": C,
    "asl2021/bf1": {
        "and_p": [0.0105, 0.0525, 0.1049, 0.2614, 0.5190, 0.7698, 0.9132, 0.9582, 0.9920],
        "and_eroded": [0.0025, 0.0207, 0.0538, 0.1823, 0.4363, 0.7121, 0.8837, 0.9417, 0.9883],
        "or_p": [0.0208, 0.0946, 0.1732, 0.3635, 0.6109, 0.8170, 0.9290, 0.9648, 0.9930],
        "or_eroded": [0.0860, 0.2724, 0.4094, 0.6458, 0.8453, 0.9479, 0.9838, 0.9926, 0.9986],
    },
}


@pytest.mark.parametrize("name", TABLE)
def test_published_curves(name):
    loss = autoseg.load_loss(name, num_classes=3)
    for curve, values in TABLE[name].items():
        g = evaluate(torch.tensor(TABLE_X), loss.curve(curve))
        assert g.tolist() == pytest.approx(values, abs=6e-5), curve


def test_the_table_has_all_published_curves():
    """But one, of which the log has only the points: C with another first x."""
    published = {name for name in known_losses() if name.startswith("asl2021/")}
    assert published == {*TABLE, "asl2021/gacc-log"}
    log, config = (autoseg.load_loss(f"asl2021/{name}", num_classes=3).control_points for name in ("gacc-log", "gacc"))
    assert log.ravel().tolist() == [0.221453928, *config.ravel().tolist()[1:]]


@pytest.mark.parametrize("narrow", [[0.001, 0.5, 0.002, 0.8, 0.6, 0.9], [0.0, 0.9, 0.001, 0.95, 0.5, 1.0]])
def test_a_bounded_slope_makes_no_cliff(narrow):
    points = torch.tensor([0.0, 0.0, *narrow, 1.0, 1.0], dtype=torch.float64).reshape(-1, 2)
    rows = prepare(points, max_slope=100.0)
    x = torch.linspace(0, 1, 20001, dtype=torch.float64)
    y = evaluate(x, rows)
    steps = y.diff() / x.diff()
    assert steps.min() >= 0 and steps.max() <= 100 + 1e-6 and y[0] == 0 and y[-1] == 1


@settings(max_examples=300)
@given(curve_and_raw())
def test_the_slope_where_probabilities_are_one_is_bounded(drawn):
    spec, raw = drawn
    coefficients = spec.coefficients(spec.decode(raw))
    slope = value_and_slope(torch.ones((), dtype=torch.float64), coefficients)[1]
    assert 0 <= float(slope) <= END_SLOPE * (1 + 1e-5)


def test_a_straight_piece_without_width_stays_straight():
    knots = np.array([0.2, 0.5, 1.0, 0.7, 1.0, 0.8])  # two interior knots at x = 1
    coefficients = CurveSpec("linear", 3).coefficients(knots)
    assert torch.allclose(coefficients[:, 2], torch.full((3,), 0.5, dtype=torch.float64), atol=1e-4)


@pytest.mark.parametrize("jump", ["and", "or"])
@pytest.mark.parametrize("space", ["paper", "paper-linear", "extended"])
def test_gradients_of_saturated_pixels_are_those_of_float64(space, jump):
    """With a jump just before p = 1, where float32 has no number between 1 - 6e-8 and 1; a tenth are wrong."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (2, 24, 24), generator=generator)
    seen = torch.where(torch.rand(2, 24, 24, generator=generator) < 0.1, (labels + 1) % 4, labels)
    margins = 25 * torch.rand(2, 1, 24, 24, generator=generator, dtype=torch.float64)
    logits = torch.randn(2, 4, 24, 24, generator=generator, dtype=torch.float64)
    logits += margins * torch.nn.functional.one_hot(seen, 4).permute(0, 3, 1, 2)
    bound = autoseg.build_space(space, metric="miou")
    theta = np.array(bound.identity)
    for name, start in zip(bound.names, range(bound.dim), strict=True):
        if name.startswith(jump) and name.endswith(".x"):
            theta[start] = 1.0
    loss = autoseg.SurrogateLoss.from_theta("miou", theta, 4, space=bound)
    grads = []
    for dtype in (torch.float64, torch.float32):
        leaf = logits.to(dtype, copy=True).requires_grad_()
        loss(leaf, labels).backward()
        grads.append(leaf.grad.double())
    exact, found = grads
    assert float((found - exact).norm() / exact.norm()) < 0.02
