from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from autoseg.controllers.truncated_normal import TruncatedNormal

unit = st.floats(0.0, 1.0)
scales = st.floats(0.04, 50.0)


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def reference(loc: float, scale: float) -> stats.rv_continuous:
    return stats.truncnorm(-loc / scale, (1.0 - loc) / scale, loc, scale)


@settings(max_examples=60)
@given(loc=unit, scale=scales, value=unit)
def test_density_agrees_with_scipy(loc: float, scale: float, value: float) -> None:
    ours = TruncatedNormal(scalar(loc), scale).log_prob(scalar(value)).item()
    assert ours == pytest.approx(reference(loc, scale).logpdf(value), rel=1e-9, abs=1e-9)


@settings(max_examples=60)
@given(loc=unit, scale=scales, probability=unit)
def test_quantile_inverts_the_distribution_function(loc: float, scale: float, probability: float) -> None:
    theta = TruncatedNormal(scalar(loc), scale).icdf(scalar(probability)).item()
    assert 0.0 < theta < 1.0
    assert reference(loc, scale).cdf(theta) == pytest.approx(probability, abs=1e-9)


@settings(max_examples=20)
@given(loc=unit, scale=st.floats(0.04, 5.0))
def test_density_integrates_to_one(loc: float, scale: float) -> None:
    normal = TruncatedNormal(scalar(loc), scale)
    # Midpoint rule: its error on 4000 cells is below 1e-5 even for the narrowest density.
    cells = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    log_density = normal.log_prob(cells)
    assert log_density.exp().mean().item() == pytest.approx(1.0, abs=1e-5)


def test_gradient_flows_through_the_normaliser() -> None:
    value = torch.rand(7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loc = torch.linspace(0.0, 1.0, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda at: TruncatedNormal(at, 0.2).log_prob(value), (loc,))
    # The score has expectation 0; without the normaliser's gradient it would not, least of all at a bound.
    grid = (torch.arange(20_000, dtype=torch.float64) + 0.5)[:, None] / 20_000
    expectation = (TruncatedNormal(loc, 0.2).log_prob(grid).exp()).mean(0).sum()
    (gradient,) = torch.autograd.grad(expectation, loc)
    assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("scale", [0.01, 1e-3])
def test_tails_stay_finite(scale: float) -> None:
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    for loc in ends:
        at = loc.clone().requires_grad_()
        log_prob = TruncatedNormal(at, scale).log_prob(ends)
        log_prob.sum().backward()
        assert log_prob.isfinite().all() and at.grad is not None and at.grad.isfinite()
        expected = [reference(loc.item(), scale).logpdf(end) for end in (0.0, 1.0)]
        assert log_prob.tolist() == pytest.approx(expected, rel=1e-9)


def test_draws_are_distributed_as_claimed() -> None:
    torch.manual_seed(0)
    for loc, scale in ((0.1, 0.2), (1.0, 0.2), (0.5, 2.0)):
        draws = TruncatedNormal(scalar(loc), scale).icdf(torch.rand(4000, dtype=torch.float64)).numpy()
        assert stats.kstest(draws, reference(loc, scale).cdf).pvalue > 0.01


@pytest.mark.parametrize("scale", [1e-3, 0.2, 50.0])
@pytest.mark.parametrize("loc", [0.0, 0.5, 1.0])
def test_the_outermost_quantiles_are_inside(loc: float, scale: float) -> None:
    ends = TruncatedNormal(scalar(loc), scale).icdf(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert 0.0 < ends.min() and ends.max() < 1.0
