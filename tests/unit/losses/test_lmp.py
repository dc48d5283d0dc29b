from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from autoseg.errors import InputError
from autoseg.losses import build_loss
from autoseg.losses.lmp import LossMaxPooling


def lmp(p: float, share: float) -> LossMaxPooling:
    loss = build_loss("lmp", num_classes=2, p=p, share=share)
    assert isinstance(loss, LossMaxPooling)
    return loss


def bounds(n: int, p: float, share: float) -> tuple[float, float]:
    """The radius of the p-norm ball and the cap."""
    q, m = p / (p - 1), max(1.0, share * n)
    gamma = n ** (-1 / q)
    return gamma, gamma * m ** (-1 / p)


def solver(losses: np.ndarray, p: float, share: float) -> float:
    """The maximum by SLSQP, losses brought to a maximum of 1."""
    n = len(losses)
    gamma, tau = bounds(n, p, share)
    found = minimize(
        lambda u: -(u @ losses) * tau,
        np.full(n, 1 / n / tau),
        jac=lambda u: -losses * tau,
        bounds=[(0, 1)] * n,
        constraints={
            "type": "ineq",
            "fun": lambda u: (gamma / tau) ** p - (u**p).sum(),
            "jac": lambda u: -p * u ** (p - 1),
        },
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-13},
    )
    return -found.fun


CASES = {
    "random": np.random.default_rng(0).exponential(size=20),
    "many zeros": np.r_[np.zeros(14), np.random.default_rng(1).exponential(size=6)],
    "ties": np.repeat([0.1, 0.5, 0.5, 2.0], 5),
    "zeros and ties": np.r_[np.zeros(10), np.full(10, 0.7)],
    "one loss": np.r_[np.zeros(15), 1.0],
    "spread": np.logspace(-6, 0, 15),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("p", "share"), [(1.3, 0.25), (1.7, 0.5), (3.0, 0.1), (1.3, 0.33)])
def test_equal_to_a_convex_solver(case: str, p: float, share: float) -> None:
    losses = CASES[case]
    value = (lmp(p, share).weights(torch.from_numpy(losses)).numpy() @ losses).item()
    assert value == pytest.approx(solver(losses, p, share), rel=2e-5)


@settings(max_examples=150)
@given(
    st.lists(st.just(0.0) | st.sampled_from([0.5, 1.0]) | st.floats(1e-12, 1e4), min_size=1, max_size=40),
    st.floats(1.0001, 60),
    st.floats(0.01, 1),
)
def test_constraints_hold_and_it_bounds_the_mean(values: list[float], p: float, share: float) -> None:
    losses = torch.tensor(values, dtype=torch.float64)
    w = lmp(p, share).weights(losses)
    gamma, tau = bounds(len(values), p, share)
    assert w.min() >= 0 and w.max() <= tau * (1 + 1e-9)
    assert (w / gamma).pow(p).sum() <= 1 + 1e-6
    assert (w * losses).sum() >= losses.mean() * (1 - 1e-9)
    more, less = losses[:, None], losses[None]
    assert bool((w[:, None] >= w[None] * (1 - 1e-12))[more >= less].all())  # harder pixels weigh no less


def test_uniform_where_all_losses_are_equal_or_zero() -> None:
    for value in (0.0, 0.3):
        torch.testing.assert_close(lmp(1.3, 0.25).weights(torch.full((10,), value)), torch.full((10,), 0.1))


def test_limits() -> None:
    losses = torch.from_numpy(np.random.default_rng(3).exponential(size=1000))
    top, mean = losses.sort().values[-250:].mean().item(), losses.mean().item()

    def value(p: float, share: float = 0.25) -> float:
        return (lmp(p, share).weights(losses) * losses).sum().item()

    assert value(1 + 1e-9) == pytest.approx(top, rel=1e-6)
    assert value(1e6) == pytest.approx(mean, rel=1e-4)
    assert value(math.inf) == pytest.approx(mean, rel=1e-12)
    assert value(1.3, share=1.0) == pytest.approx(mean, rel=1e-9)
    falling = [value(p) for p in (1.0001, 1.1, 1.3, 1.7, 2, 5, 50, math.inf)]
    assert falling == sorted(falling, reverse=True)


def test_by_hand() -> None:
    """n = 2, p = q = 2, m = 1: nothing is capped but the sphere, w = l / (|l| sqrt(2)), value |l| / sqrt(2)."""
    w = lmp(2.0, 0.5).weights(torch.tensor([3.0, 4.0], dtype=torch.float64))
    torch.testing.assert_close(w, torch.tensor([0.6, 0.8], dtype=torch.float64) / math.sqrt(2))


def test_ignored_pixels_take_no_part() -> None:
    losses = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    valid = torch.ones_like(losses, dtype=torch.bool)
    valid[0] = False
    w = lmp(1.3, 0.3).weights(losses, valid)
    torch.testing.assert_close(w[1:], lmp(1.3, 0.3).weights(losses[1:]))
    assert w[0].abs().max() == 0


def test_loss_is_the_weighted_sum_of_cross_entropies() -> None:
    logits = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 2, (1, 4, 4), generator=torch.Generator().manual_seed(1))
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    loss = lmp(1.3, 0.25)
    torch.testing.assert_close(loss(logits, labels), (loss.weights(each) * each).sum())


@pytest.mark.parametrize("option", ["p=1", "p=0.5", "share=0", "share=1.5"])
def test_bad_options_are_named(option: str) -> None:
    with pytest.raises(InputError, match=option.split("=")[0]):
        build_loss(f"lmp({option})", num_classes=2)


def test_negative_losses_are_refused() -> None:
    with pytest.raises(InputError, match="pixel losses"):
        lmp(1.3, 0.25).weights(torch.tensor([1.0, -1.0]))
