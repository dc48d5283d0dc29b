"""What the Gaussian process sees of a long history."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from autoseg.controllers import build_controller, gp
from autoseg.controllers.gp import informative

RNG = np.random.default_rng(0)


def test_the_best_and_the_farthest_are_chosen() -> None:
    thetas, rewards = np.linspace(0, 1, 101)[:, None], np.linspace(1, 0, 101)
    assert informative(thetas, rewards, 4) == [0, 1, 50, 100]  # 50 and 51 are as far; the first of equals
    assert informative(thetas, rewards, 101) == list(range(101))
    assert informative(np.arange(101.0)[:, None], np.arange(101.0), 4) == [0, 49, 99, 100]  # from the other end


def test_of_equal_candidates_each_is_chosen_once() -> None:
    assert informative(np.zeros((9, 2)), np.zeros(9), 6) == [0, 1, 2, 3, 4, 5]


def test_the_mean_is_asked_for_once_and_the_process_takes_over_after_startup() -> None:
    thetas, mean = RNG.random((4, 3)), [0.1, 0.2, 0.3]
    rising = np.arange(4.0)

    def asked(startup: int, rewards: np.ndarray) -> np.ndarray:
        controller = build_controller("gp", 3, seed=0, startup=startup, mean=mean)
        assert controller.ask(2)[0].tolist() == mean
        controller.tell(thetas, rewards)
        return controller.ask(2)

    assert_array_equal(asked(5, rising), asked(5, rising[::-1]))  # drawn, whatever was told
    assert not np.array_equal(asked(4, rising), asked(4, rising[::-1]))
    assert mean not in asked(5, rising).tolist()


def test_a_long_history_is_cut_and_a_short_one_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    thetas = RNG.random((24, 3))
    rewards = -((thetas - 0.4) ** 2).sum(1)
    asked = []
    for most, told in ((24, slice(None)), (12, slice(None)), (24, informative(thetas, rewards, 12))):
        monkeypatch.setattr(gp, "MOST", most)
        controller = build_controller("gp", 3, seed=0)
        controller.tell(thetas[told], rewards[told])
        asked.append(controller.ask(2))
    assert not np.array_equal(asked[0], asked[1])
    assert_array_equal(asked[1], asked[2])


def test_the_farthest_are_so_in_all_coordinates_together() -> None:
    thetas = np.random.default_rng(1).random((30, 3))
    chosen = informative(thetas, -np.arange(30.0), 8)
    expected = [0, 1, 2, 3]
    while len(expected) < 8:
        apart = np.linalg.norm(thetas[:, None] - thetas[expected], axis=2).min(1)
        expected.append(int(apart.argmax()))
    assert chosen == sorted(expected)
