"""What a report computes: pulls of losses, details of predictions, the command that repeats a run; kept predictions."""

from __future__ import annotations

import dataclasses
import re
import shlex
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_network import TINY
from torch import Tensor, nn

from autoseg.cli.configuration import compose, stored
from autoseg.cli.configuration.repeat import command_for
from autoseg.config import CompareConfig, DataConfig, ModelConfig, ProxyConfig, SearchConfig
from autoseg.data import open_data
from autoseg.errors import InputError
from autoseg.evidence.comparison.contenders import Contender, contenders
from autoseg.evidence.comparison.matrix import Matrix
from autoseg.evidence.report import comparison_page, gradient
from autoseg.evidence.report.blocks import Key, Text
from autoseg.evidence.report.gallery import _read, difference, most_different
from autoseg.evidence.report.loss_sections import _styles, built_for_two, gradient_section
from autoseg.evidence.report.page import PACKAGE
from autoseg.evidence.report.plots import label
from autoseg.evidence.report.read import _some_complete
from autoseg.evidence.report.theme import BLUE, DARK, GREY, ORANGE, colours
from autoseg.losses import LossCard, build_loss, load_loss
from autoseg.proxy import predictions
from autoseg.proxy.task import ProxyTask
from autoseg.store.records import TrialRecord
from autoseg.surrogates import SurrogateLoss

FEW = np.array([0.1, 0.5, 0.9])


# ------------------------------------------------------------------------------------------ pulls


def test_cross_entropy_pulls_by_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient, "GRID", FEW)
    pull = gradient.pulls({"ce": build_loss("ce", num_classes=2)})["ce"]
    assert pull.target == pytest.approx(1 - FEW) and pull.other == pytest.approx(FEW)


@pytest.mark.parametrize("metric", ["miou", "biou"])
def test_pulls_are_slopes_of_the_loss_itself(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The description, read literally: a square, 0.7 elsewhere; a finite difference instead of autograd."""
    monkeypatch.setattr(gradient, "GRID", FEW)
    theta = [0.4] * SurrogateLoss(metric, 2).space.dim
    loss = SurrogateLoss.from_theta(metric, theta, 2)
    pull = gradient.pulls({"it": loss})["it"]
    labels = torch.zeros(1, 32, 32, dtype=torch.int64)
    labels[:, 8:24, 8:24] = 1

    def value(p: float, row: int, moved: float) -> float:
        probs = torch.full((1, 2, 32, 32), 0.3, dtype=torch.float64).scatter(1, labels[:, None], 0.7)
        probs[0, :, row, 16] = torch.tensor([1 - p, p], dtype=torch.float64)
        logits = probs.log()
        logits[0, 1, row, 16] += moved
        return float(loss(logits, labels))

    for row, sign, found in ((8, -1, pull.target), (7, 1, pull.other)):
        slopes = [1024 * sign * (value(p, row, 1e-5) - value(p, row, -1e-5)) / 2e-5 for p in FEW]
        assert found == pytest.approx(slopes, rel=1e-4, abs=1e-6)


def test_a_loss_that_is_not_finite_there_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradient, "GRID", FEW)

    class Broken(nn.Module):
        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            return logits.sum() * float("nan")

    assert list(gradient.pulls({"broken": Broken(), "ce": build_loss("ce", num_classes=2)})) == ["ce"]


def test_a_loss_for_other_classes_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's own may have fixed weights of seven classes: it fails when it is called, or when it is built."""
    monkeypatch.setattr(gradient, "GRID", FEW)

    class Seven(nn.Module):
        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            return (logits * torch.ones(7, 1, 1)).mean()

    class Unbuilt(nn.Module):
        def __init__(self) -> None:
            raise ZeroDivisionError

    losses, failed = built_for_two({"ce": lambda: build_loss("ce", num_classes=2), "seven": Seven, "none": Unbuilt})
    section = gradient_section(losses, {"ce": "#000", "seven": "#111"}, failed)
    assert section.blocks[-1] == Text("Left out, since they cannot be computed on it: none, seven.", "note")


# ------------------------------------------------------------------------------------------ predictions


def test_lines_of_one_colour_have_different_dashes() -> None:
    names = ["ce", "dice", "jml", "dml", "tversky", "identity/miou", "identity/biou", "asl2021/miou"]
    styles = _styles(names, dict.fromkeys(names, "#000"))
    assert len({*list(styles.values())[:4]}) == 4  # all dashes there are
    turns = _styles(names, colours(names, None, None))
    assert len({*turns.values()}) == len(names)


def test_texts_in_figures_have_no_tags_and_no_entities_that_plotly_does_not_know() -> None:
    assert label('<b>"addmm" & more') == '&lt;b&gt;"addmm" &amp; more'


def test_the_detail_is_where_they_differ_most_along_a_boundary() -> None:
    truth = np.zeros((60, 80), np.uint8)
    truth[:, 40:] = 1
    one, other = truth.copy(), truth.copy()
    other[45:55, 36:44] = 2  # along the boundary
    other[5:20, 2:22] = 2  # more pixels, but far from it
    top, left, side = most_different(one, other, truth)
    assert side == 18 and top <= 45 and top + side >= 55 and left <= 36 and left + side >= 44
    assert most_different(one, one, truth) == (21, 31, 18)
    other[:] = truth
    other[55:, 76:] = 2  # in a corner: the square stays inside
    top, left, side = most_different(one, other, truth)
    assert 0 <= top <= 60 - side and 0 <= left <= 80 - side


def test_differences_say_who_is_right() -> None:
    truth = np.array([[0, 1, 1, 1, 255]], np.uint8)
    one, other = np.array([[0, 0, 1, 2, 0]], np.uint8), np.array([[0, 1, 0, 0, 1]], np.uint8)
    assert difference(one, other, truth).tolist() == [[0, 1, 2, 3, 0]]


def test_padding_is_not_shown(tmp_path: Path) -> None:
    data = open_data(DataConfig(count=[1, 1, 0], cache_dir=str(tmp_path)), (24, 40))
    predictions.save_predictions({0: np.arange(24 * 40, dtype=np.uint8).reshape(24, 40) % 7}, "val", tmp_path / "kept")
    (shown,) = _read(data, {"ce": predictions.saved_predictions(tmp_path / "kept")})
    assert np.array_equal(shown.image, data.images("val")[0, :, :, :24].permute(1, 2, 0).numpy())
    assert np.array_equal(shown.truth, data.labels("val")[0, :, :24].numpy())
    assert shown.predictions["ce"].shape == (24, 24)


def test_kept_predictions_are_found_again_by_their_record(tmp_path: Path) -> None:
    records = [
        TrialRecord(-1, 0, "rival", "0.25*ce+0.75*jml", None, 7),
        TrialRecord(-1, 0, "rival", "0.25*ce-0.75*jml", None, 7),
        TrialRecord(0, 0, "candidate", "candidate 0.0", (0.1, 0.2), 7),
    ]
    places = [predictions.predictions_folder(tmp_path, record.payload) for record in records]
    assert len(set(places)) == 3 and all(place.parent.name == "seed-7" for place in places)
    classes = np.array([[0, 1], [2, 254]], np.uint8)
    predictions.save_predictions({12: classes, 3: classes}, "train", places[0])
    found = predictions.saved_predictions(places[0])
    assert list(found) == [("train", 3), ("train", 12)]
    assert np.array_equal(np.asarray(Image.open(found["train", 12])), classes)
    assert predictions.saved_predictions(tmp_path / "nothing") == {}


def test_predictions_that_cannot_be_written_do_not_end_a_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    predictions.save_predictions({0: np.zeros((2, 2), np.uint8)}, "val", tmp_path / "file" / "folder")
    assert "predictions were not kept" in caplog.text


def test_only_trainings_of_one_seed_are_asked_for_predictions(tmp_path: Path) -> None:
    keep = predictions.KeepPredictions(str(tmp_path), 7)
    assert keep.changes({"loss": "ce", "seed": 8}) == {}
    folder = predictions.predictions_folder(tmp_path, {"loss": "ce", "seed": 7})
    assert keep.changes({"loss": "ce", "seed": 7}) == {"predictions": str(folder)}


@pytest.mark.slow
def test_a_training_that_leaves_predictions_scores_the_same(tmp_path: Path) -> None:
    task = ProxyTask(
        DataConfig(count=[12, 4, 4], cache_dir=str(tmp_path)), ModelConfig(overrides=TINY),
        ProxyConfig(iters=2, batch_size=2, crop=32, size=[48, 64]), ("miou", "biou"), final_split="val",
    )  # fmt: skip
    loss = build_loss("ce", num_classes=7)
    asked = dataclasses.replace(task, predictions=str(tmp_path / "kept"))
    assert asked(loss, 0) == task(loss, 0) == asked(loss, 0)
    found = predictions.saved_predictions(tmp_path / "kept")
    assert list(found) == [("val", row) for row in range(4)]
    for path in found.values():
        mask = Image.open(path)
        assert mask.mode == "L" and mask.size == (64, 48) and np.asarray(mask).max() < 7


# ------------------------------------------------------------------------------------------ small things


@pytest.mark.parametrize(
    ("command", "typed"),
    [
        ("search", ["experiment=smoke", "metric=biou", "seed=3"]),
        ("search", ["metric=miou+0.5*bf1", "controller=cmaes", "space=paper", "search.floor='miou>=0.9*ce'"]),
        ("search", ["data=folder", "data.root=/my images", "data.classes=[road, 'a b']", "proxy=paper"]),
        ("search", ["model.config=_base_/models/pspnet_r50-d8.py", "model.overrides.decode_head.channels=64"]),
        ("compare", ["losses=[ce,0.25*ce+0.75*jml]", "metrics=[miou,biou]", "seeds=[3,4]", "proxy.size=[96,128]"]),
    ],
)
def test_the_command_that_repeats_a_run_composes_to_its_configuration(command: str, typed: list[str]) -> None:
    schema = CompareConfig if command == "compare" else SearchConfig
    config = stored.plain(compose.compose(command, schema, typed))
    program, name, *overrides = shlex.split(
        command_for({**config, "run_dir": "runs/x", "workers": "2"}, Path("runs/x"))
    )
    assert (program, name) == ("autoseg", command)
    assert stored.plain(compose.compose(command, schema, overrides)) == config
    assert len(overrides) <= len(typed) + 8


def test_cards_of_a_comparison_are_found_in_its_folder() -> None:
    config = stored.plain(compose.compose("compare", CompareConfig, ["losses=[ce,cards/miou-1a.json]"]))
    command = command_for(config, Path("runs/compare-x"))
    assert "losses=[ce,runs/compare-x/cards/miou-1a.json]" in shlex.split(command)


@pytest.mark.parametrize("folder", ["runs/x", "my runs/x", "it's"])
def test_a_sum_with_a_card_is_found_in_any_folder(folder: str, tmp_path: Path) -> None:
    run = tmp_path / folder
    LossCard.of(load_loss("identity/miou", 3).surrogate).save(run / "cards" / "miou-1a.json")
    config = stored.plain(compose.compose("compare", CompareConfig, ['losses=["0.5*ce+0.5*cards/miou-1a.json",ce]']))
    _, _, *words = shlex.split(command_for(config, run))
    again = compose.compose("compare", CompareConfig, words)
    first, _ = contenders(again.losses, ["miou"])
    (typed,) = first.typed.values()
    assert typed == str(run / "cards" / "miou-1a.json")


def test_one_loss_has_one_colour_and_every_colour_a_dark_one() -> None:
    hues = colours(["ce", "identity/miou", "mine", "jml", "lovasz"], "mine", "ce")
    assert (hues["mine"], hues["ce"], hues["identity/miou"]) == (BLUE, ORANGE, GREY)
    assert len(set(hues.values())) == 5 and set(hues.values()) <= set(DARK)


def test_a_class_that_nobody_has_learnt_has_no_best() -> None:
    ce, jml = {"miou/sky": 0.6, "miou/pole": 0.0}, {"miou/sky": 0.5, "miou/pole": 1e-5}
    scores = {"ce": {"miou": 0.4} | ce, "jml": {"miou": 0.4} | jml}
    records = [TrialRecord(-1, 0, "x", name, None, 1, "complete", found) for name, found in scores.items()]
    among = [Contender(name, name, name, False) for name in scores]
    (section,) = comparison_page._classes(Matrix(among, ["miou"], [1], "ce", records, ["sky", "pole"]))
    sky, pole = section.blocks[1].rows
    assert [cell.tone for cell in sky] == ["", "best", ""] and [cell.tone for cell in pole] == ["", "", ""]


def test_the_table_shows_what_was_searched_and_what_is_best() -> None:
    records = [
        TrialRecord(-1, 0, "x", name, None, 1, "complete", {"miou": score})
        for name, score in (("ce", 0.4), ("found", 0.5))
    ]
    among = [Contender("ce", "ce", "ce", False), Contender("found", "found", "found", True)]
    table = comparison_page._table(Matrix(among, ["miou"], [1], "ce", records, []))
    assert [[cell.tone for cell in row] for row in table.rows] == [["", "", "quiet"], ["mine", "best", "quiet"]]


@pytest.mark.parametrize(
    ("lovasz", "lines"), [(0.3, ["to ce"]), (0.45, ["to ce", "to the best hand-made loss of the metric"])]
)
def test_the_differences_name_the_lines_that_are_drawn(lovasz: float, lines: list[str]) -> None:
    """To the best hand-made loss none is, where that is the reference."""
    scores = {"ce": 0.4, "lovasz": lovasz, "found": 0.5}
    records = [
        TrialRecord(-1, 0, "x", name, None, seed, "complete", {"miou": score + seed / 100})
        for name, score in scores.items()
        for seed in (1, 2)
    ]
    among = [Contender(name, name, name, name == "found") for name in scores]
    sections = comparison_page._of_matrix(
        Matrix(among, ["miou"], [1, 2], "ce", records, []), dict.fromkeys(scores, BLUE)
    )
    (key,) = [block for block in sections[1].blocks if isinstance(block, Key)]
    assert [name for name, *_ in key.lines] == lines


def test_on_paper_the_page_has_nothing_to_click() -> None:
    css = files(PACKAGE).joinpath("page.css").read_text(encoding="utf-8")
    (rules,) = re.findall(r"@media print \{(.*)\}\s*\Z", css, re.DOTALL)
    hidden = {
        name.strip()
        for names, what in re.findall(r"([^{}]+)\{([^}]*)\}", rules)
        if "none" in what
        for name in names.split(",")
    }
    assert hidden == {"nav", ".choose"} and ".lines" not in rules


@pytest.mark.parametrize(
    ("error", "why"), [("Traceback:\n  a\nValueError: b\n", "ValueError: b"), (" \n", ""), ("", "")]
)
def test_why_a_training_failed_is_the_last_line_of_its_error_however_blank(error: str, why: str) -> None:
    record = TrialRecord(0, 0, "candidate", "candidate 0.0", (0.5,), 1, "failed", error=error)
    assert record.why == why
    with pytest.raises(InputError, match=f"among 1{f'; the first one [(]failed[)]: {why}' if why else ''}"):
        _some_complete(Path("run"), [record])
