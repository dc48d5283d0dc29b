"""What the Gaussian process sees of a long history."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from autoseg.controllers import build_controller, gp
from autoseg.controllers.gp import far_below_for_failed, informative


def test_the_best_and_the_farthest_are_chosen() -> None:
    thetas, rewards = np.linspace(0, 1, 101)[:, None], np.linspace(1, 0, 101)
    assert informative(thetas, rewards, 4) == [0, 1, 50, 100]  # 50 and 51 are as far; the first of equals
    assert informative(thetas, rewards, 101) == list(range(101))
    assert informative(np.arange(101.0)[:, None], np.arange(101.0), 4) == [0, 49, 99, 100]  # from the other end


def test_of_equal_candidates_each_is_chosen_once() -> None:
    assert informative(np.zeros((9, 2)), np.zeros(9), 6) == [0, 1, 2, 3, 4, 5]


def test_the_mean_is_asked_for_once_and_the_process_takes_over_after_startup() -> None:
    thetas, mean = np.random.default_rng(0).random((4, 3)), [0.1, 0.2, 0.3]
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
    thetas = np.random.default_rng(0).random((24, 3))
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


def test_candidates_do_not_gather_on_the_faces_of_the_cube() -> None:
    """Where the process knows least, and where climbing the acquisition's gradient ends."""
    draws = np.random.default_rng(0)
    controller = build_controller("gp", dim=4, seed=0)
    for _ in range(2):
        controller.tell(draws.random((8, 4)), draws.random(8))
    asked = controller.ask(8)
    assert ((asked == 0) | (asked == 1)).mean() < 0.1
    assert len(np.unique(asked.round(6), axis=0)) == 8


def test_samples_lie_in_the_cube_and_half_of_them_near_the_best() -> None:
    best = np.array([[0.0, 1.0, 0.02, 0.5]])
    sampler = gp._Sampling(3, best)
    near, everywhere = sampler._around_the_best(), sampler._everywhere()
    assert near.shape == (gp.AROUND, 4) and everywhere.shape == (gp.EVERYWHERE, 4)
    assert all(((points >= 0) & (points <= 1)).all() for points in (near, everywhere))
    moved = near != best
    assert 0.7 < moved.mean() < 0.85 and np.abs(near - best)[moved].mean() == pytest.approx(0.093, abs=0.02)


def test_failed_is_far_below_all_that_trained() -> None:
    nan = float("nan")
    assert far_below_for_failed(np.array([0.5, nan, 0.1, nan])).tolist() == pytest.approx([0.5, -0.1, 0.1, -0.1])
    assert far_below_for_failed(np.array([nan, nan])).size == 0
    for alike, below in (([0.3, nan], 0.0), ([0.3, nan, 0.3, 0.3], 0.0), ([0.0, nan], -1.0), ([-0.5, nan], -1.0)):
        assert far_below_for_failed(np.array(alike))[1] == below  # of one reward the deviation is 0


def test_the_process_is_not_asked_while_all_rewards_are_alike() -> None:
    """It would say nothing, and the acquisition's optimiser would stay in a corner of the cube."""

    def asked(startup: int, second: float) -> np.ndarray:
        controller = build_controller("gp", dim=3, seed=0, startup=startup)
        for told in (0.25, second):
            controller.tell(controller.ask(4), np.full(4, told))
        return controller.ask(4)

    drawn = asked(99, 0.25)
    assert_array_equal(asked(4, 0.25), drawn)
    assert not np.array_equal(asked(4, float("nan")), drawn)  # which losses fail is told


@pytest.mark.parametrize(("dim", "candidates"), [(2, 1), (3, 8)])
def test_where_losses_fail_is_not_proposed_again_and_again(dim: int, candidates: int) -> None:
    """The rewards rise towards a region in which every training diverges."""
    controller = build_controller("gp", dim=dim, seed=0)
    failed = []
    for _ in range(48 // candidates):
        thetas = controller.ask(candidates)
        rewards = np.where(thetas[:, 0] > 0.6, np.nan, thetas[:, 0] - ((thetas[:, 1:] - 0.4) ** 2).sum(1))
        controller.tell(thetas, rewards)
        failed += np.isnan(rewards).tolist()
    assert sum(failed[16:]) <= 12, failed


def test_its_record_keeps_failures_through_json() -> None:
    controller, other = (build_controller("gp", dim=2, startup=2) for _ in range(2))
    rewards = [[0.3, np.nan], [np.nan, np.nan], [0.5, 0.1]]
    rounds = [(controller.ask(2), np.array(each)) for each in rewards]
    for thetas, each in rounds:
        controller.tell(thetas, each)
    other.load_state_dict(json.loads(json.dumps(controller.state_dict(), allow_nan=False)))
    again = build_controller("gp", dim=2, startup=2)
    again.load_brief_state(controller.brief_state(), rounds)
    asked = controller.ask(2)
    assert_array_equal(other.ask(2), asked)
    assert_array_equal(again.ask(2), asked)


def test_samples_lie_around_the_best_of_all_candidates() -> None:
    controller = build_controller("gp", dim=2, seed=0, startup=4)
    thetas = np.random.default_rng(0).random((8, 2))
    controller.tell(thetas, np.array([0.1, 0.9, np.nan, 0.5, 0.7, 0.2, 0.9, 0.3]))
    assert_array_equal(controller._study().sampler._best, thetas[[1, 6, 4, 3]])
