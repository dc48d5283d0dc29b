from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from stable_baselines3 import PPO
from torch import Tensor

from autoseg.controllers.truncated_normal import (
    TruncatedNormal,
    TruncatedNormalDistribution,
    TruncatedNormalPolicy,
)
from autoseg.search.env import SearchEnv

unit = st.floats(0.0, 1.0)
scales = st.floats(0.04, 50.0)


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def reference(loc: float, scale: float) -> stats.rv_continuous:
    return stats.truncnorm(-loc / scale, (1.0 - loc) / scale, loc, scale)


@settings(max_examples=60, deadline=None)
@given(loc=unit, scale=scales, value=unit)
def test_density_agrees_with_scipy(loc: float, scale: float, value: float) -> None:
    ours = TruncatedNormal(scalar(loc), scale).log_prob(scalar(value)).item()
    assert ours == pytest.approx(reference(loc, scale).logpdf(value), rel=1e-9, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(loc=unit, scale=scales, probability=unit)
def test_quantile_inverts_the_distribution_function(loc: float, scale: float, probability: float) -> None:
    theta = TruncatedNormal(scalar(loc), scale).icdf(scalar(probability)).item()
    assert 0.0 < theta < 1.0
    assert reference(loc, scale).cdf(theta) == pytest.approx(probability, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(loc=unit, scale=st.floats(0.04, 5.0))
def test_density_integrates_to_one_and_entropy_to_its_definition(loc: float, scale: float) -> None:
    normal = TruncatedNormal(scalar(loc), scale)
    # Midpoint rule: its error on 4000 cells is below 1e-5 even for the narrowest density.
    cells = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    log_density = normal.log_prob(cells)
    assert log_density.exp().mean().item() == pytest.approx(1.0, abs=1e-5)
    assert normal.entropy().item() == pytest.approx(-(log_density.exp() * log_density).mean().item(), abs=1e-4)


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
        draws = TruncatedNormal(scalar(loc), scale).sample((4000,)).numpy()
        assert stats.kstest(draws, reference(loc, scale).cdf).pvalue > 0.01


def test_follows_the_distribution_interface_of_sb3() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0]], dtype=torch.float64)
    distribution = TruncatedNormalDistribution(3)
    assert distribution.proba_distribution_net().shape == (3,)
    actions, log_prob = distribution.log_prob_from_params(logits, 0.2)
    assert actions.shape == (1, 3) and log_prob.shape == distribution.entropy().shape == (1,)
    torch.testing.assert_close(distribution.distribution.log_prob(actions).sum(1), log_prob)
    torch.testing.assert_close(distribution.get_actions(deterministic=True), torch.sigmoid(logits))


def test_policy_serves_plain_sb3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy is an ordinary one: SB3's own collection loop learns with it on the environment."""
    monkeypatch.setenv("SB3_LOGDIR", str(tmp_path))  # its logger makes a folder in any case
    env = SearchEnv(lambda theta: 1.0 - float(np.abs(theta - 0.8).max()), dim=2, metric="toy")
    policy = {"mean": [0.5, 0.5], "std": 0.2, "per_dimension": False}
    ppo = PPO(TruncatedNormalPolicy, env, 0.1, n_steps=16, batch_size=16, seed=0, policy_kwargs=policy)
    ppo.learn(160)
    action, _ = ppo.predict(np.zeros(1), deterministic=True)
    assert (action > 0.55).all()
