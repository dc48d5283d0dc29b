"""Loss cards: round trips, published names, and broken files."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

import autoseg
from autoseg.errors import InputError
from autoseg.losses import LossCard, searched_loss


def some_loss(name: str = "default-biou", seed: int = 0):
    space = autoseg.build_space(name)
    return searched_loss(space, np.random.default_rng(seed).random(space.dim), num_classes=3, tolerance=2)


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


DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.mark.parametrize(
    ("name", "card"), [("camvid/miou", "camvid-miou/loss.json"), ("crackforest/f1", "crackforest-f1/loss.json")]
)
def test_a_loss_found_by_us_is_that_of_its_card(name, card):
    by_name, found = autoseg.load_loss(name, num_classes=3), autoseg.load_loss(DOCS / card, num_classes=3)
    assert by_name.control_points.tolist() == found.control_points.tolist()
    assert by_name.space == found.space and len(set(values(by_name, found))) == 1


def values(*losses):
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 9, 9), torch.randint(0, 3, (2, 9, 9))
    return [float(loss(logits, labels)) for loss in losses]


def test_identity_curves_and_run_folders_are_losses_like_any_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space = autoseg.build_space("default", metric="biou")
    plain = searched_loss(space, space.identity, 3, tolerance=2)
    own = {"tolerance": 2, "space": "default"}
    built = [
        autoseg.load_loss("identity/biou", num_classes=3, tolerance=2),
        autoseg.build_loss("identity/biou(tolerance=2)", num_classes=3),
        autoseg.build_loss("identity/biou", num_classes=3, defaults=own),
        autoseg.build_loss("identity/biou(tolerance=2)", num_classes=3, defaults={"tolerance": 4}),
        autoseg.build_loss("0.5*identity/biou+0.5*identity/biou", num_classes=3, defaults=own),
    ]
    assert values(*built) == pytest.approx(values(plain) * 5)
    assert all(loss.options.tolerance == 2 for loss in built[:4])
    published = autoseg.build_loss("asl2021/bf1", num_classes=3, defaults=own)
    assert published.options.tolerance == 2 and published.space == autoseg.load_loss("asl2021/bf1", 3).space
    written = autoseg.build_loss("asl2021/bf1(tolerance=4)", num_classes=3, defaults=own)
    assert written.options.tolerance == 4
    of_a_sum = autoseg.build_loss("identity/miou+0.5*dice", num_classes=3)  # a sum of metrics
    assert of_a_sum.metric == "miou+0.5*dice"
    assert autoseg.load_loss("identity/miou", num_classes=3, space="paper-biou").metric == "miou"
    assert len(autoseg.build_loss("identity/miou+0.5*ce", num_classes=3).losses) == 2  # of losses
    autoseg.save_loss(plain, "run/loss.json")
    (tmp_path / "ce").mkdir()  # a folder does not hide a loss
    for text in ("run", "run/loss.json", "1*run+0*ce"):
        assert values(autoseg.build_loss(text, num_classes=3)) == pytest.approx(values(plain))
    assert values(autoseg.load_loss("run")) == values(plain)
    for text in ("identity/biou", "asl2021/bf1", "run"):
        assert autoseg.build_loss(text, num_classes=3, ignore_index=7).options.ignore_index == 7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("jmll", "expected one of asl2021/bf1, .*wmse, got 'jmll'. Did you mean jml.*run folder, identity curves"),
        ("identity", "For example identity/miou"),
        ("identity/mio", "Did you mean miou"),
        ("asl2021/mio", "Did you mean asl2021/miou"),
        ("asl2021/miou(tolerence=3)", "option of asl2021/miou.*Did you mean tolerance"),
        ("nowhere/loss.json", "nowhere/loss.json: expected an existing file"),
        ("run", "a run folder with a loss.json, got run without one"),
    ],
)
def test_what_is_no_loss_is_told_what_there_is(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match=words):
        autoseg.build_loss(text, num_classes=3)
    with pytest.raises(InputError, match=words):  # of a rival, hours before it is built
        autoseg.losses.check_text(text)


def test_names():
    assert autoseg.load_loss("asl2021/bf1", num_classes=4).metric == "bf1"
    with pytest.raises(InputError, match="num_classes"):
        autoseg.load_loss("asl2021/bf1")
    with pytest.raises(InputError, match="asl2021/miou"):
        autoseg.load_loss("asl2021/mious", num_classes=4)


def trained_with(card: str, loss: str) -> str:
    content = json.loads(card)
    return json.dumps({**content, "space": {**content["space"], "loss": loss}})


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
        (
            lambda text: json.dumps({**json.loads(text), "theta": [0.1] * 6}),
            ["control_points", "leave control_points out"],
        ),
        (lambda text: json.dumps({**json.loads(text), "theta": [10**400] * 6}), ["theta", "a list of numbers"]),
        (lambda text: json.dumps({**json.loads(text), "control_points": 3}), ["control_points", "a mapping, got 3"]),
        (lambda text: json.dumps({**json.loads(text), "control_points": {"or": [[{}]]}}), ["control_points.or"]),
        (lambda text: json.dumps({**json.loads(text), "control_points": {"AND": [[0.5, 0.5]]}}), ["'AND'", "and, or"]),
        (lambda text: json.dumps({**json.loads(text), "metric": "mioo"}), ["mioo"]),
        (lambda text: json.dumps({**json.loads(text), "space": {}}), ["space"]),
        (lambda text: json.dumps({**json.loads(text), "_target_": "os.system"}), ["_target_"]),
        (lambda text: "[" * 100_000, ["JSON"]),
        (lambda text: json.dumps({**json.loads(text), "scores": {"a": float("nan")}}), ["finite numbers"]),
        (lambda text: text.replace('"scores": {}', '"scores": {"a": 1e999}'), ["finite numbers"]),
        (
            lambda text: text.replace('"scores": {}', '"scores": {"a": ' + "[" * 800 + "]" * 800 + "}"),
            ["at most 100 levels"],
        ),
        (lambda text: trained_with(text, "(" * 3000 + "surrogate" + ")" * 3000), ["loss", "nested so deep"]),
        (lambda text: trained_with(text, "surrogate" + "+ce" * 200_000), ["loss", "10,000 characters, got 600,009"]),
        (lambda text: json.dumps({**json.loads(text), "metric": "miou" + "+miou" * 200_000}), ["10,000 characters"]),
        (lambda text: json.dumps({**json.loads(text), "metric": None}), ["metric", "text, got None"]),
        (lambda text: json.dumps({**json.loads(text), "theta": 0.5}), ["theta", "a list of numbers, got 0.5"]),
        (lambda text: json.dumps({**json.loads(text), "options": [1]}), ["options", "a mapping, got [1]"]),
        (lambda text: json.dumps({**json.loads(text), "options": {"_target_": "os.system"}}), ["_target_", "eps"]),
        (lambda text: json.dumps({**json.loads(text), "options": {"eps": "small"}}), ["eps", "a number, got 'small'"]),
        (
            lambda text: json.dumps({**json.loads(text), "options": {"ignore_index": 10**30}}),
            ["ignore_index", "a whole number, got 1000"],
        ),
        (
            lambda text: json.dumps({**json.loads(text), "options": {"tolerance": True}}),
            ["tolerance", "a whole number, got True"],
        ),
        (
            lambda text: json.dumps({**json.loads(text), "space": {**json.loads(text)["space"], "metric": 3}}),
            ["metric", "text, got 3"],
        ),
    ],
)
def test_broken_cards_are_one_clear_message(tmp_path, damage, words):
    path = tmp_path / "loss.json"
    autoseg.save_loss(some_loss(), path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(InputError) as error:
        autoseg.load_loss(path)
    assert all(w in str(error.value) for w in [*words, str(path)]), str(error.value)
    with pytest.raises(InputError, match="existing file"):
        autoseg.load_loss(tmp_path / "none.json")


@pytest.mark.parametrize("name", ["m.py];touch x;[", "m.py\ntouch x", "it's.py"])
def test_the_code_a_card_asks_for_is_one_word_of_the_shell(tmp_path, name):
    path = tmp_path / "loss.json"
    autoseg.save_loss(some_loss(), path, provenance={"imports": [name]})
    path.write_text(json.dumps({**json.loads(path.read_text()), "metric": "mioo"}))
    with pytest.raises(InputError) as error:
        autoseg.load_loss(path)
    asked = error.value.hint.removeprefix("It was made with ").partition(": look at")[0]
    assert shlex.split(asked) == [f"imports=[{name}]"]


@pytest.mark.parametrize("text", ["jml", "0.25*ce+0.75*jml"])
def test_a_hand_made_loss_has_no_card(text, tmp_path):
    with pytest.raises(InputError, match="their text"):
        autoseg.save_loss(autoseg.build_loss(text, num_classes=3), tmp_path / "loss.json")


def test_a_failed_write_leaves_the_old_card(tmp_path):
    path = tmp_path / "loss.json"
    autoseg.save_loss(some_loss(), path)
    before = path.read_text()
    with pytest.raises(ValueError):  # NaN is not JSON
        autoseg.save_loss(some_loss(), path, scores={"search": float("nan")})
    assert path.read_text() == before and [p.name for p in tmp_path.iterdir()] == ["loss.json"]


def test_a_small_coordinate_that_was_edited_is_noticed(tmp_path):
    """At x1 = 5.7e-4 a change by a thousandth is another slope."""
    autoseg.save_loss(autoseg.load_loss("asl2021/miou", num_classes=3), tmp_path / "loss.json")
    content = json.loads((tmp_path / "loss.json").read_text())
    content["control_points"]["and"][0][0] += 1e-3
    (tmp_path / "loss.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"control_points\.and"):
        autoseg.load_loss(tmp_path / "loss.json")


def test_what_a_card_cannot_hold_and_what_is_none(tmp_path):
    loss = some_loss()
    for wrong in (float("nan"), torch.zeros(2)):
        with pytest.raises(InputError, match="scores or provenance: expected plain data"):
            autoseg.save_loss(loss, tmp_path / "loss.json", scores={"search": wrong})
    assert not (tmp_path / "loss.json").exists()
    with pytest.raises(TypeError, match="confirmd"):
        autoseg.save_loss(loss, tmp_path / "loss.json", confirmd=True)

    class Result:
        run_dir = tmp_path

    with pytest.raises(InputError, match=r"card: expected a card, .* got Result\. .*load_loss\(result\.run_dir\)"):
        autoseg.load_loss(Result())
    with pytest.raises(InputError, match="loss"):
        autoseg.load_loss("x" * 5000, 3)
    with pytest.raises(InputError, match="Did you mean tolerance"):
        autoseg.load_loss(LossCard.of(loss), tolerence=3)
