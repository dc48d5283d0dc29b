"""What every controller promises, run on each of them."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from omegaconf import OmegaConf

from autoseg.config import ControllerConfig
from autoseg.controllers import CONTROLLERS, Controller, build_controller
from autoseg.controllers.base import FloatArray
from autoseg.errors import InputError

ROOT = Path(__file__).resolve().parents[3]
DIM = 6
OPTIMUM = np.array([0.2, 0.8, 0.5, 0.3, 0.7, 0.9])
STEPS = {"epochs": 6}  # of PPO's 60 after each round: what is promised here holds after any number
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("random", {}),
    "cmaes": ("cmaes", {"mean": [0.4] * DIM}),
    "tpe": ("tpe", {"startup": 6, "mean": [0.4] * DIM}),
    "gp": ("gp", {"startup": 6, "mean": [0.4] * DIM}),
    "ppo": ("ppo", STEPS),
    "ppo-joint": ("ppo", {**STEPS, "ratio": "joint", "baseline": "mean_policy", "std_end": 0.1, "rounds": 4}),
}

# Runs in another process, with another hash seed: loads states from stdin, plays on, prints every bit.
RESUME = """
import json, sys
import numpy as np
from autoseg.controllers import build_controller
for name, state, rounds, optimum in json.load(sys.stdin):
    controller = build_controller(name, dim=len(optimum), seed=99)
    controller.load_state_dict(state)
    proposed = []
    for _ in range(rounds):
        thetas = controller.ask(4)
        controller.tell(thetas, -((thetas - optimum) ** 2).sum(1))
        proposed.append(thetas.tolist())
    print(json.dumps([proposed, controller.state_dict()]))
"""


def build(variant: str, seed: int = 0) -> Controller:
    name, options = VARIANTS[variant]
    return build_controller(name, dim=DIM, seed=seed, **options)


def score(thetas: FloatArray) -> FloatArray:
    """A smooth hill on the cube with its top, 0, at OPTIMUM."""
    return -((thetas - OPTIMUM) ** 2).sum(1)


def play(controller: Controller, rounds: int, n: int = 4) -> list[FloatArray]:
    proposed = []
    for _ in range(rounds):
        proposed.append(controller.ask(n))
        controller.tell(proposed[-1], score(proposed[-1]))
    return proposed


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_controller_is_under_contract() -> None:
    assert {name for name, _ in VARIANTS.values()} == set(CONTROLLERS)


def test_what_is_known_of_it_without_importing_it_is_true(variant: str) -> None:
    kind, controllers = CONTROLLERS[VARIANTS[variant][0]], []
    for begin in (0.3, 0.7):
        name, options = VARIANTS[variant]
        controllers.append(build_controller(name, DIM, **{**options, "mean": [begin] * DIM}))
    low, high = (controller.ask(1) for controller in controllers)
    assert (low < high).all() if kind.begins else (low == high).all()
    assert hasattr(controllers[0], "mean") == kind.has_mean


def test_proposals_have_shape_type_and_bounds(variant: str) -> None:
    controller = build(variant)
    for n in (1, 5, 8):
        thetas = controller.ask(n)
        assert thetas.shape == (n, DIM) and thetas.dtype == np.float64
        assert (thetas >= 0).all() and (thetas <= 1).all()
        controller.tell(thetas, score(thetas))


def test_seed_decides_everything(variant: str) -> None:
    first, again, other = play(build(variant), 3), play(build(variant), 3), play(build(variant, seed=1), 3)
    assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_global_generators_are_neither_read_nor_touched(variant: str) -> None:
    np.random.seed(1)
    first = play(build(variant), 3)
    untouched = np.random.rand()
    np.random.seed(1)
    assert untouched == np.random.rand()
    np.random.seed(2)
    assert_array_equal(first, play(build(variant), 3))


@pytest.mark.slow  # another process, which imports torch, stable-baselines3 and Optuna
def test_resumed_in_another_process_equals_never_stopped() -> None:
    states, expected = [], []
    for variant, (name, _) in VARIANTS.items():
        controller = build(variant)
        play(controller, 2)
        states.append((name, controller.state_dict(), 3, OPTIMUM.tolist()))
        expected.append([[thetas.tolist() for thetas in play(controller, 3)], controller.state_dict()])
    run = subprocess.run(
        [sys.executable, "-c", RESUME],
        input=json.dumps(states),
        env={**os.environ, "PYTHONHASHSEED": "123"},
        capture_output=True,
        text=True,
        check=True,
    )
    resumed = [json.loads(line) for line in run.stdout.splitlines()]
    assert resumed == json.loads(json.dumps(expected))


def test_resumed_between_ask_and_tell_equals_never_stopped(variant: str) -> None:
    controller, resumed = build(variant), build(variant, seed=7)
    play(controller, 1)
    thetas = controller.ask(5)
    resumed.load_state_dict(json.loads(json.dumps(controller.state_dict())))
    for each in (controller, resumed):
        each.tell(thetas, score(thetas))
    assert controller.state_dict() == resumed.state_dict()
    assert_array_equal(play(controller, 2), play(resumed, 2))


def test_saving_changes_nothing_and_is_a_copy(variant: str) -> None:
    controller, other = build(variant), build(variant)
    play(controller, 1)
    state = controller.state_dict()
    before = json.dumps(state)
    played = play(controller, 2)
    assert json.dumps(state) == before
    assert_array_equal(play(other, 3)[1:], played)


def test_failed_candidates_are_survived(variant: str) -> None:
    controller = build(variant)
    for rewards in ([np.nan, 1.0, 2.0, np.nan, 0.5], [np.nan] * 5, [0.1, 0.2, 0.3, 0.4, 0.5]):
        thetas = controller.ask(5)
        controller.tell(thetas, rewards)
        assert np.isfinite(thetas).all()
    assert controller.round == 3
    json.dumps(controller.state_dict(), allow_nan=False)


def test_unasked_candidates_may_be_told(variant: str) -> None:
    controller = build(variant)
    controller.tell(np.stack([OPTIMUM, np.zeros(DIM), np.ones(DIM)]), [0.0, -1.0, -2.0])
    thetas = controller.ask(4)
    controller.tell(thetas[[2, 0]], score(thetas[[2, 0]]))
    assert np.isfinite(controller.ask(4)).all()


@pytest.mark.parametrize(
    ("thetas", "rewards", "complaint"),
    [
        (np.full((2, DIM - 1), 0.5), [1, 2], r"thetas: expected the shape \(n, 6\)"),
        (np.full(DIM, 0.5), [1], "thetas: expected the shape"),
        (np.zeros((0, DIM)), [], "thetas: expected the shape"),
        (np.full((1, DIM), 1.01), [1], r"thetas: expected raw θ, every entry in \[0, 1\], got 1.01"),
        (np.full((1, DIM), np.nan), [1], "thetas: expected raw θ"),
        ([["a"] * DIM], [1], "thetas: expected numbers"),
        (np.full((2, DIM), 0.5), [1], r"rewards: expected the shape \(2,\)"),
        (np.full((1, DIM), 0.5), [[1.0]], "rewards: expected the shape"),
        (np.full((2, DIM), 0.5), [0.5, np.inf], "rewards: expected finite numbers"),
        (np.full((1, DIM), 0.5), ["good"], "rewards: expected 1 numbers"),
    ],
)
def test_bad_tell_is_refused_and_changes_nothing(variant: str, thetas: Any, rewards: Any, complaint: str) -> None:
    controller = build(variant)
    before = controller.state_dict()
    with pytest.raises(InputError, match=complaint):
        controller.tell(thetas, rewards)
    assert controller.state_dict() == before


@pytest.mark.parametrize("n", [0, -1, 2.5, True, "3"])
def test_bad_ask_is_refused(variant: str, n: Any) -> None:
    with pytest.raises(InputError, match="candidates asked for"):
        build(variant).ask(n)


def test_foreign_or_damaged_state_is_refused_and_changes_nothing(variant: str) -> None:
    controller = build(variant)
    play(controller, 1)
    before = controller.state_dict()
    bigger = build_controller(controller.name, dim=DIM + 1).state_dict()
    foreign = build_controller("cmaes" if controller.name == "random" else "random", dim=DIM).state_dict()
    needed = [key for key in before if key != "most"]  # of gp; earlier versions had none
    damaged = [{key: value for key, value in before.items() if key != gone} for gone in needed]
    for state in [bigger, foreign, *damaged, {**before, "settings": None}, {**before, "round": "x"}]:
        with pytest.raises(InputError, match="controller state"):
            controller.load_state_dict(state)
    assert controller.state_dict() == before


def test_unknown_controller_names_the_nearest() -> None:
    with pytest.raises(InputError, match="Did you mean cmaes"):
        build_controller("cmae", dim=DIM)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"dim": 0}, "controller dim"),
        ({"dim": 2.0}, "controller dim"),
        ({"std": 0.0}, "controller std"),
        ({"std": "wide"}, "controller std"),
        ({"seed": -1}, "controller seed"),
        ({"seed": 2**32}, "controller seed"),
        ({"mean": [0.5] * (DIM - 1)}, "controller mean"),
        ({"mean": [0.5] * (DIM - 1) + [1.5]}, "controller mean"),
        ({"bogus": 1}, "controller option"),
    ],
)
def test_bad_settings_are_refused(variant: str, arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        build_controller(VARIANTS[variant][0], **{"dim": DIM, **arguments})


def test_every_config_builds_its_controller() -> None:
    files = {path.stem: path for path in (ROOT / "configs" / "controller").glob("*.yaml")}
    assert files.keys() == CONTROLLERS.keys()
    for name, path in files.items():
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ControllerConfig), OmegaConf.load(path)))
        assert isinstance(config, ControllerConfig) and config.name == name
        assert build_controller(config.name, dim=DIM, **config.options).ask(2).shape == (2, DIM)


@pytest.mark.parametrize("name", ["cmaes", "tpe", "gp", "ppo"])
def test_learns_where_random_does_not(name: str) -> None:
    """Mean reward of the last round: random stays near -0.9, PPO's spread costs 0.15; gp needs less."""
    options = {} if name == "ppo" else VARIANTS[name][1]  # PPO with all its steps
    rounds, n, seeds = (7, 6, 1) if name == "gp" else (8, 12, 2)
    last, first = [], []
    for seed in range(seeds):
        played = play(build_controller(name, dim=DIM, seed=seed, **options), rounds, n)
        first.append(score(played[0]).mean())
        last.append(score(played[-1]).mean())
    control = np.mean([score(play(build("random", seed), 8, n=12)[-1]).mean() for seed in range(2)])
    assert np.mean(last) > control + 0.4
    assert np.mean(last) > np.mean(first) + 0.15


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_brief_state_and_the_rounds_go_on_as_the_whole_does(variant: str) -> None:
    whole, rounds, sizes = build(variant), [], []
    for number in range(4):
        sizes.append(len(json.dumps(whole.brief_state())))
        thetas = whole.ask(5)
        rewards = score(thetas)
        rewards[: 5 if number == 1 else number % 2] = np.nan  # one failed, and a round of which all did
        whole.tell(thetas, rewards)
        rounds.append((thetas, rewards))
    again = build(variant, seed=99)
    again.load_brief_state(json.loads(json.dumps(whole.brief_state())), rounds)
    assert again.state_dict() == whole.state_dict()
    assert sizes[3] < sizes[1] + 100
    assert_array_equal(again.ask(5), whole.ask(5))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_copy_proposes_the_same(variant: str) -> None:
    name, options = VARIANTS[variant]
    first = build_controller(name, dim=DIM, seed=3, **options)
    thetas = first.ask(8)
    first.tell(thetas, -((thetas - OPTIMUM) ** 2).sum(1))
    copies = [copy.deepcopy(first), pickle.loads(pickle.dumps(first))]
    expected = first.ask(4)
    for other in copies:
        assert_array_equal(other.ask(4), expected)


def test_numbers_of_numpy_are_numbers() -> None:
    made = build_controller("ppo", dim=np.int64(3), mean=np.full(3, 0.5), std=np.float32(0.25), seed=np.int64(2))
    assert_array_equal(made.ask(np.int64(2)), build_controller("ppo", dim=3, std=0.25, seed=2).ask(2))
    json.dumps(made.state_dict())
