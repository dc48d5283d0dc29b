from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from autoseg.controllers import build_controller

nan = float("nan")


@pytest.mark.parametrize("name", ["cmaes", "tpe"])
def test_failed_counts_as_the_worst_of_its_round(name: str) -> None:
    options = {"startup": 2} if name == "tpe" else {}
    told_nan, told_worst = (build_controller(name, dim=3, **options) for _ in range(2))
    for _ in range(3):
        thetas = told_nan.ask(6)
        assert_array_equal(thetas, told_worst.ask(6))
        rewards = thetas[:, 0].copy()
        rewards[rewards.argmax()] = nan  # its own value would have made it the best
        told_nan.tell(thetas, rewards)
        told_worst.tell(thetas, np.where(np.isnan(rewards), np.nextafter(np.nanmin(rewards), -1.0), rewards))


@pytest.mark.parametrize("name", ["cmaes", "tpe", "gp"])
def test_round_of_failures_teaches_nothing(name: str) -> None:
    """As if nobody had told: only the generator has moved on."""
    controller = build_controller(name, dim=3, mean=[0.9, 0.1, 0.5])
    for _ in range(6):
        controller.tell(controller.ask(6), np.full(6, nan))
    control = build_controller(name, dim=3, mean=[0.9, 0.1, 0.5])
    for _ in range(6):
        control.ask(6)
    assert_array_equal(controller.ask(6), control.ask(6))


def test_cmaes_waits_for_a_whole_population() -> None:
    whole, split = build_controller("cmaes", dim=3), build_controller("cmaes", dim=3)
    thetas = whole.ask(6)
    assert_array_equal(thetas, split.ask(6))
    whole.tell(thetas, thetas[:, 0])
    split.tell(thetas[:4], thetas[:4, 0])
    split.tell(thetas[4:], thetas[4:, 0])
    assert_array_equal(whole.ask(6), split.ask(6))


def test_cmaes_starts_at_mean_with_std() -> None:
    thetas = build_controller("cmaes", dim=2, mean=[0.3, 0.6], std=0.05).ask(400)
    np.testing.assert_allclose(thetas.mean(0), [0.3, 0.6], atol=0.01)
    np.testing.assert_allclose(thetas.std(0), 0.05, rtol=0.1)


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_the_mean_is_tried_first(name: str) -> None:
    assert build_controller(name, dim=2, mean=[0.3, 0.6]).ask(3)[0].tolist() == [0.3, 0.6]


def test_cmaes_learns_from_a_whole_population_at_once() -> None:
    controller = build_controller("cmaes", dim=3)
    controller.tell(controller.ask(6), np.arange(6.0))
    assert controller._optimizer._cma.generation == 1 and not controller._optimizer._waiting  # type: ignore[attr-defined]


def test_no_candidate_waits_in_tpe_once_it_was_told() -> None:
    """It would count as a poor one for ever."""
    controller = build_controller("tpe", dim=2)
    controller.tell(controller.ask(5), np.arange(5.0))
    assert [trial.state.name for trial in controller._optimizer._study.trials] == ["COMPLETE"] * 5  # type: ignore[attr-defined]
