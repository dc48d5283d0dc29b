"""Loss cards: round trips, published names, and broken files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import autoseg
from autoseg.errors import InputError
from autoseg.losses import LossCard


def some_loss(name: str = "default-biou", seed: int = 0):
    space = autoseg.build_space(name)
    return space.build_loss(np.random.default_rng(seed).random(space.dim), num_classes=3, tolerance=2)


@pytest.mark.parametrize(
    "name", ["default-biou", "paper-no-truth-table-miou", "default-miou+0.5*bf1", "paper-linear-macc"]
)
def test_a_card_gives_the_same_loss(tmp_path, name):
    loss = some_loss(name)
    autoseg.save_loss(loss, tmp_path / "loss.json", confirmed=True, scores={"confirm": {"biou": 0.4}})
    again = autoseg.load_loss(tmp_path / "loss.json")
    logits, labels = torch.randn(2, 3, 9, 9), torch.randint(0, 3, (2, 9, 9))
    assert again(logits, labels) == loss(logits, labels)
    assert again.theta.tolist() == loss.theta.tolist() and again.absent == loss.absent
    card = LossCard.load(tmp_path / "loss.json")
    assert card.confirmed and card.scores == {"confirm": {"biou": 0.4}}
    assert autoseg.load_loss(card, num_classes=5).options.num_classes == 5


def test_names():
    assert autoseg.load_loss("asl2021/bf1", num_classes=4).metric == "bf1"
    with pytest.raises(InputError, match="num_classes"):
        autoseg.load_loss("asl2021/bf1")
    with pytest.raises(InputError, match="asl2021/miou"):
        autoseg.load_loss("asl2021/mious", num_classes=4)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[: len(text) // 2], ["JSON", "cut off"]),
        (lambda text: "", ["JSON"]),
        (lambda text: "[1, 2]", ["schema 1"]),
        (lambda text: json.dumps({**json.loads(text), "schema": 99}), ["schema 1", "99"]),
        (lambda text: json.dumps({**json.loads(text), "theta": [0.5] * 3}), ["theta", "6 numbers"]),
        (lambda text: json.dumps({**json.loads(text), "theta": [2.0] * 6}), ["theta", "[0, 1]"]),
        (lambda text: json.dumps({**json.loads(text), "theta": ["a"] * 6}), ["theta"]),
        (lambda text: json.dumps({**json.loads(text), "metric": "mioo"}), ["mioo"]),
        (lambda text: json.dumps({**json.loads(text), "space": {}}), ["space"]),
        (lambda text: json.dumps({**json.loads(text), "_target_": "os.system"}), ["_target_"]),
    ],
)
def test_broken_cards_are_one_clear_message(tmp_path, damage, words):
    path = tmp_path / "loss.json"
    autoseg.save_loss(some_loss(), path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError) as error:
        autoseg.load_loss(path)
    assert all(w in str(error.value) for w in words), str(error.value)
    with pytest.raises(InputError, match="existing file"):
        autoseg.load_loss(tmp_path / "none.json")


def test_a_failed_write_leaves_the_old_card(tmp_path):
    path = tmp_path / "loss.json"
    autoseg.save_loss(some_loss(), path)
    before = path.read_text()
    with pytest.raises(ValueError):  # NaN is not JSON
        autoseg.save_loss(some_loss(), path, scores={"search": float("nan")})
    assert path.read_text() == before and [p.name for p in tmp_path.iterdir()] == ["loss.json"]
