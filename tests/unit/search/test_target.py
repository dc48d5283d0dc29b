"""Where a search begins."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autoseg
from autoseg.errors import InputError
from autoseg.search.target import start_theta
from autoseg.surrogates import build_space, known_losses

KNOWN = "camvid/miou"
DEFAULT, BIOU = build_space("default", metric="miou"), build_space("default", metric="biou")


def test_without_a_start_it_begins_at_the_identity_curves_and_a_policy_inside_the_cube() -> None:
    assert start_theta(DEFAULT, None, "gp") == DEFAULT.identity.tolist()
    free = build_space("paper-unconstrained", metric="miou")
    assert (free.identity.min(), free.identity.max()) == (0.0, 1.0)
    for controller in ("gp", "tpe", "cmaes", "random"):
        assert start_theta(free, None, controller) == free.identity.tolist()
    assert 0.0 < min(start_theta(free, None, "ppo")) < max(start_theta(free, None, "ppo")) < 1.0


@pytest.mark.parametrize("space", [DEFAULT, BIOU], ids=["its own metric", "another metric of the same curves"])
def test_a_known_loss_is_where_its_points_are(space: Any) -> None:
    theta = start_theta(space, KNOWN, "gp")
    np.testing.assert_allclose(space.decode(theta), known_losses()[KNOWN].control_points)


def test_a_card_a_run_and_theta_are_taken_exactly(tmp_path: Path) -> None:
    theta = np.random.default_rng(0).random(DEFAULT.dim).tolist()
    loss = autoseg.SurrogateLoss.from_theta("miou", theta, num_classes=19, space=DEFAULT)
    autoseg.save_loss(loss, tmp_path / "loss.json")
    for given in (str(tmp_path / "loss.json"), str(tmp_path), theta, np.array(theta)):
        assert start_theta(DEFAULT, given, "tpe") == theta


def test_a_space_with_scalars_takes_its_own_losses_alone(tmp_path: Path) -> None:
    mix = build_space("ce-mix", metric="miou")
    theta = np.random.default_rng(1).random(mix.dim).tolist()
    autoseg.save_loss(autoseg.losses.searched_loss(mix, theta, 3), tmp_path / "loss.json")
    assert start_theta(mix, str(tmp_path / "loss.json"), "gp") == theta
    with pytest.raises(InputError, match=r"search\.start, space: expected that of this search, ce-mix-miou"):
        start_theta(mix, KNOWN, "gp")
    with pytest.raises(InputError, match=r"got ce-mix-miou\. .* space=ce-mix-miou"):
        start_theta(DEFAULT, str(tmp_path / "loss.json"), "gp")


@pytest.mark.parametrize(
    ("given", "controller", "said"),
    [
        (KNOWN, "random", "search.start: expected null with controller=random"),
        ("lovasz", "gp", "search.start, loss: expected a card, or the name of a loss with curves, got 'lovasz'"),
        ("camvid/mio", "gp", "Did you mean camvid/miou?"),
        ("asl2021/miou", "gp", "got paper-miou. It takes the place of the identity curves in its own space"),
        ("nowhere.json", "gp", "search.start, loss card nowhere.json: expected an existing file"),
        ([0.5, 0.5], "gp", "search.start, theta: expected 6 numbers"),
        ([[0.5] * 6], "gp", "search.start, theta: expected 6 numbers"),
        ([1.5] * 6, "gp", "search.start, theta: expected numbers in [0, 1]"),
        (["a"] * 6, "gp", "search.start, theta: expected numbers"),
        (3, "gp", "search.start, theta: expected 6 numbers"),
    ],
)
def test_what_no_search_can_begin_with(given: Any, controller: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        start_theta(DEFAULT, given, controller)


@pytest.mark.parametrize("controller", ["gp", "tpe"])
def test_the_first_candidate_is_what_it_begins_with(quick_path: Path, controller: str) -> None:
    told: list[Any] = []

    def train(loss: Any, seed: int, device: str) -> float:
        told.append(getattr(loss, "control_points", None))
        return 0.5

    options: dict[str, Any] = {
        "num_classes": 3, "rounds": 1, "candidates": 2, "confirm_seeds": 0, "inline": True, "controller": controller,
    }  # fmt: skip
    run = quick_path / "run"
    autoseg.search("miou", train, start=KNOWN, run_dir=run, **options)
    np.testing.assert_allclose(told[0], known_losses()[KNOWN].control_points)
    with pytest.raises(InputError, match=r"controller\.settings\.mean"):
        autoseg.search("miou", train, run_dir=run, **options)


def test_a_controller_has_its_own_start(quick_path: Path) -> None:
    controller = autoseg.build_controller("gp", DEFAULT.dim)
    with pytest.raises(InputError, match="start: expected none beside a controller"):
        autoseg.search("miou", lambda loss, seed, device: 0.5, start=KNOWN, controller=controller)
