from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor

from autoseg.controllers.base import FloatArray
from autoseg.controllers.ppo import PPOController, PPOSettings
from autoseg.errors import AutosegError, InputError


def build(dim: int = 6, **options: Any) -> PPOController:
    return PPOController(PPOSettings(dim=dim, **options))


def release_update(
    mean: FloatArray,
    rounds: list[tuple[FloatArray, FloatArray]],
    epochs: int,
    joint: bool = False,
    own_baseline: bool = False,
    dtype: torch.dtype = torch.float64,
    lr: float = 0.2,
    clip: float = 0.2,
    std: float = 0.2,
) -> FloatArray:
    """The release's update in plain torch, from its formula; returns the mean after the last round."""

    def log_prob(thetas: Tensor, mean_x: Tensor) -> Tensor:
        mu = torch.sigmoid(mean_x)
        low, high = (0.0 - mu) / std, (1.0 - mu) / std
        inside = 0.5 * (1 + torch.erf(high / math.sqrt(2))) - 0.5 * (1 + torch.erf(low / math.sqrt(2)))
        density = torch.exp(-0.5 * ((thetas - mu) / std) ** 2) / (std * math.sqrt(2 * math.pi) * inside)
        return torch.log(density)

    mean_x = torch.logit(torch.tensor(mean, dtype=dtype)).requires_grad_()
    step, first, second = 0, torch.zeros_like(mean_x), torch.zeros_like(mean_x)  # of Adam
    for told, rewards in rounds:
        thetas, reward = torch.tensor(told, dtype=dtype), torch.tensor(rewards, dtype=dtype)
        advantage = (reward - (reward[0] if own_baseline else reward.mean()))[:, None]
        old = log_prob(thetas, mean_x).detach()
        for _ in range(epochs):
            difference = log_prob(thetas, mean_x) - old
            ratio = torch.exp(difference.sum(1, keepdim=True) if joint else difference)
            gain = torch.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
            (slope,) = torch.autograd.grad(-gain.sum(1).mean(), mean_x)
            step, first, second = step + 1, 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
            change = lr * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
            mean_x = (mean_x - change).detach().requires_grad_()
    return torch.sigmoid(mean_x).detach().numpy().astype(np.float64)


def drawn_round(seed: int, n: int = 32, dim: int = 12) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    return rng.random((n, dim)), 0.4 + 0.1 * rng.random(n)


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("own_baseline", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_update_equals_the_release(joint: bool, own_baseline: bool, dtype: torch.dtype) -> None:
    """Parity: the same mean within 2e-4 after 20 steps; in float64, rounding aside, to 1e-9."""
    mean = np.random.default_rng(1).uniform(0.2, 0.8, 12)
    thetas, rewards = drawn_round(2)
    if own_baseline:
        thetas[0] = mean
    ratio, baseline = "joint" if joint else "per_dimension", "mean_policy" if own_baseline else "mean"
    controller = build(12, mean=mean, epochs=20, ratio=ratio, baseline=baseline)
    controller.tell(thetas, rewards)
    expected = release_update(mean, [(thetas, rewards)], 20, joint, own_baseline, dtype)
    assert np.abs(expected - mean).max() > 0.02
    assert_allclose(controller.mean, expected, rtol=0, atol=1e-9 if dtype == torch.float64 else 2e-4)


@pytest.mark.parametrize("option", [{"lr": 0.05}, {"clip": 0.05}, {"std": 0.4}])
def test_update_equals_the_release_with_another(option: dict[str, float]) -> None:
    mean = np.random.default_rng(1).uniform(0.2, 0.8, 12)
    told = drawn_round(2)
    controller = build(12, mean=mean, epochs=20, **option)
    controller.tell(*told)
    assert_allclose(controller.mean, release_update(mean, [told], 20, **option), rtol=0, atol=1e-9)
    assert np.abs(controller.mean - release_update(mean, [told], 20)).max() > 1e-3


def test_whole_rounds_equal_the_release_with_adam_kept_over_them() -> None:
    mean = np.full(12, 0.5)
    rounds = [(thetas, 100 * rewards) for thetas, rewards in map(drawn_round, range(3))]  # in percent
    controller = build(12)
    for told in rounds:
        controller.tell(*told)
    assert_allclose(controller.mean, release_update(mean, rounds, 60), rtol=0, atol=1e-6)
    fresh_adam = mean
    for told in rounds:
        fresh_adam = release_update(fresh_adam, [told], 60)
    assert np.abs(controller.mean - fresh_adam).max() > 1e-3


@pytest.mark.parametrize("baseline", ["mean", "mean_policy"])
def test_failed_candidates_take_no_part(baseline: str) -> None:
    thetas, rewards = drawn_round(0, 8, 6)
    failed = rewards.copy()
    failed[[3, 6]] = np.nan
    with_failed, without = build(baseline=baseline, epochs=6), build(baseline=baseline, epochs=6)
    with_failed.tell(thetas, failed)
    without.tell(np.delete(thetas, [3, 6], 0), np.delete(rewards, [3, 6]))
    assert_array_equal(with_failed.mean, without.mean)
    assert with_failed.state_dict()["adam"] == without.state_dict()["adam"]


def test_failed_mean_falls_back_to_the_mean_of_the_rewards() -> None:
    thetas, rewards = drawn_round(0, 8, 6)
    rewards[0] = np.nan
    own, plain = build(baseline="mean_policy", epochs=6), build(baseline="mean", epochs=6)
    own.tell(thetas, rewards)
    plain.tell(thetas, rewards)
    assert_array_equal(own.mean, plain.mean)


def test_round_of_failures_updates_nothing_but_the_count() -> None:
    controller = build(epochs=6)
    controller.tell(*drawn_round(0, 8, 6))
    before = controller.state_dict()
    controller.tell(controller.ask(8), np.full(8, np.nan))
    after = controller.state_dict()
    assert (after["mean_logits"], after["adam"]) == (before["mean_logits"], before["adam"])
    assert after["round"] == before["round"] + 1


@pytest.mark.parametrize("baseline", ["mean", "mean_policy"])
def test_fewer_than_its_least_teach_it_nothing(baseline: str) -> None:
    for n in (1, 2):
        controller = build(2, baseline=baseline, epochs=2)
        before = controller.mean
        controller.tell(controller.ask(n), np.arange(float(n)))
        assert (controller.mean == before).all() == (n < controller.least)


def test_mean_policy_proposes_the_mean_first() -> None:
    mean = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    thetas = build(mean=mean, baseline="mean_policy").ask(4)
    assert_allclose(thetas[0], mean, atol=1e-15)
    assert_array_equal(thetas[1:], build(mean=mean).ask(4)[1:])


def test_mean_on_a_bound_starts_inside_and_can_leave() -> None:
    controller = build(2, mean=[0.0, 1.0], seed=1)
    assert_allclose(controller.mean, [0.001, 0.999], atol=1e-12)
    for _ in range(3):
        thetas = controller.ask(16)
        controller.tell(thetas, -np.abs(thetas - 0.5).sum(1))
    assert 0.1 < controller.mean[0] < controller.mean[1] < 0.9


def test_candidates_scatter_with_std_around_the_mean() -> None:
    thetas = build(1, mean=[0.5], std=0.05).ask(4000)[:, 0]
    assert thetas.mean() == pytest.approx(0.5, abs=0.005)
    assert thetas.std() == pytest.approx(0.05, rel=0.05)


def test_std_falls_linearly_and_then_stays() -> None:
    controller = build(1, std=0.3, std_end=0.1, rounds=3, epochs=1)
    stds = []
    for _ in range(5):
        stds.append(controller.std)
        thetas = controller.ask(100)
        assert thetas.std() < 1.2 * controller.std
        controller.tell(thetas, np.zeros(100))
    assert stds == pytest.approx([0.3, 0.2, 0.1, 0.1, 0.1])


def test_moves_to_a_known_optimum() -> None:
    optimum = np.array([0.2, 0.8, 0.5, 0.3, 0.7, 0.9])
    start = np.linalg.norm(0.5 - optimum)
    for ratio in ("per_dimension", "joint"):
        controller = build(seed=3, ratio=ratio)
        for _ in range(10):
            thetas = controller.ask(16)
            controller.tell(thetas, -((thetas - optimum) ** 2).sum(1))
        assert np.linalg.norm(controller.mean - optimum) < 0.5 * start, ratio


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"lr": 0.0}, "controller lr"),
        ({"epochs": 0}, "controller epochs"),
        ({"clip": -0.1}, "controller clip"),
        ({"ratio": "per_dim"}, "Did you mean per_dimension"),
        ({"baseline": "median"}, "controller baseline"),
        ({"std": 0.01}, "controller std"),
        ({"std_end": 0.01, "rounds": 3}, "controller std_end"),
        ({"std_end": 0.1}, "controller rounds"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        build(**options)


def test_overflowing_update_is_an_error_not_a_nan() -> None:
    thetas = np.stack([np.full(400, 0.5), np.full(400, 0.99)])
    with pytest.raises(AutosegError, match="overflowed"):
        build(400, ratio="joint", std=0.05).tell(thetas, [0.0, 1.0])
