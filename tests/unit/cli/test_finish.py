"""The last words of a search say no more than what was measured."""

from __future__ import annotations

import math
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autoseg.cli import retrain as retrain_command
from autoseg.cli.configuration import compose, resume, stored
from autoseg.cli.jobs import compare as compare_job
from autoseg.cli.jobs import finish, retrain
from autoseg.config import PAPER_METRICS, CompareConfig, RetrainConfig, SearchConfig, TrainConfig
from autoseg.evidence.comparison.contenders import contender
from autoseg.evidence.export.formats import as_files, as_python, title
from autoseg.losses import LossCard, searched_loss
from autoseg.metrics import MetricOptions
from autoseg.search.confirm import compare
from autoseg.search.publish import CardPublisher
from autoseg.store.records import Finding, Row, SearchResult, sentence, table
from autoseg.store.run_folder import write_config
from autoseg.surrogates import build_space

FOUND = Finding("candidate 0.1", (0.5,), 0.4, {"miou": 0.4}, (1, 2), confirmed=True)


def row(name: str, kind: str, values: tuple[float, ...]) -> Row:
    good = [value for value in values if not math.isnan(value)]
    mean = sum(good) / len(good)
    return Row(values, len(good), mean, 0.01, name, kind, None, mean, {"miou": mean, "biou": mean / 2})


def result(rival: tuple[float, ...], found: tuple[float, ...] = (0.42, 0.44, 0.43, 0.45, 0.41)) -> SearchResult:
    rows = (row("candidate 0.1", "candidate", found), row("ce", "rival", rival))
    best = Finding("candidate 0.1", (0.5,), rows[0].mean, rows[0].scores, tuple(range(len(found))), True)
    return SearchResult(Path("runs/x"), "miou", best, rows, (compare(*rows),))


def test_a_clear_lead_is_told_without_a_doubt():
    text = sentence(result((0.32, 0.34, 0.34, 0.35, 0.30)))
    assert text == "Found a loss for miou: 43.0 over 5 fresh seeds; under the same budget: ce 33.0 (+10.0)."


def test_a_lead_within_the_noise_is_told_as_such():
    assert "Not statistically certain against ce" in sentence(result((0.45, 0.41, 0.42, 0.43, 0.43)))
    assert "Not statistically certain against ce" in sentence(result((0.3, 0.3, 0.3), (0.4, 0.4, 0.4)))


def test_a_lead_is_over_the_seeds_that_both_completed():
    """Where the rival failed, the found loss may have had its best seeds."""
    text = sentence(result((math.nan, math.nan, math.nan, 0.33, 0.34), (0.50, 0.51, 0.49, 0.30, 0.31)))
    assert text.startswith("The best loss found is not ahead of every rival for miou: 42.2 over 5 fresh seeds;")
    assert "ce 33.5 (-3.0 over 2 seeds)" in text
    text = sentence(result((0.39, 0.41, 0.46), (0.40, 0.42, math.nan)))  # its mean is higher by a seed that ours lacks
    assert text.startswith("Found a loss for miou: 41.0") and "ce 42.0 (+1.0 over 2 seeds)" in text
    apart = sentence(result((math.nan, 0.3), (0.4, math.nan)))
    assert apart.startswith("The best loss found is not ahead") and "ce 30.0 (no seed in common)" in apart


def test_one_seed_is_one():
    assert sentence(result((0.3,), (0.4,))).startswith("Found a loss for miou: 40.0 over 1 fresh seed;")


def test_a_better_rival_is_not_hidden():
    text = sentence(result((0.5, 0.5, 0.5, 0.5, 0.5)))
    assert text.startswith("The best loss found is behind ce for miou: 43.0") and "(-7.0)" in text


def test_a_rival_that_is_printed_as_equal_is_level():
    for score in (0.4303, 0.43, 0.4297):  # the first is ahead, by less than is printed
        told = result((score,) * 5, (0.43,) * 5)
        text = sentence(told)
        assert text.startswith("The best loss found is level with ce for miou: 43.0") and "ce 43.0 (0.0)." in text
    apart = sentence(replace(told, rows=(*told.rows, row("dice", "rival", (0.5,) * 5))))
    assert apart.startswith("The best loss found is behind dice for miou")


def test_the_best_of_several_is_called_a_little_optimistic():
    found = result((0.32, 0.34, 0.34, 0.35, 0.30))
    other = row("candidate 0.2", "candidate", (0.4, 0.4, 0.41, 0.4, 0.4))
    failed = replace(other, name="candidate 0.3", values=(math.nan,) * 5, n=0)
    text = sentence(replace(found, rows=(*found.rows, other, failed)))
    assert text == (
        f"{sentence(found)} Chosen as the best of 2 with these seeds, so a little optimistic: compare it with fresh"
        " ones."
    )


def test_an_unconfirmed_loss_is_called_so():
    lucky = SearchResult(Path("runs/x"), "miou", Finding("candidate 0.1", (0.5,), 0.4, {"miou": 0.4}, (0,), False))
    assert "luck" in sentence(lucky)
    assert table(lucky) == []


def test_the_table_marks_the_loss_found_and_counts_failures():
    head, columns, first, second = table(result((0.3, math.nan, 0.3, 0.3, 0.3)))
    assert "5 fresh seeds" in head and "* the loss found" in head and columns.split() == ["loss", "miou", "biou"]
    assert "43.0 ± 1.0*" in first and "(1 failed)" in second


def test_a_result_reads_as_the_end_of_a_command() -> None:
    found = replace(result((0.3, 0.3, 0.3, 0.3, 0.3)), warnings=("macc is worse",))
    said = [*table(found), sentence(found), "The loss: runs/x/loss.json", "warning: macc is worse"]
    assert str(found).splitlines() == said
    shown: list[str] = []
    found._repr_pretty_(SimpleNamespace(text=shown.append), cycle=False)  # of a notebook, for a cell's last line
    assert shown == [str(found)]


def test_where_a_floor_cuts_rewards_the_table_has_them():
    """It is ordered by them: a rival that scores less may stand above the winner."""
    found = result((0.3, 0.3, 0.3, 0.3, 0.3))
    cut = replace(found.rows[0], reward=0.29)
    _, columns, first, second = table(replace(found, rows=(found.rows[1], cut)))
    assert columns.split() == ["loss", "miou", "reward", "biou"]
    assert first.split()[4] == "30.0" and second.split()[-2:] == ["29.0", "21.5"]


@pytest.mark.parametrize(("space", "form"), [("default", "python"), ("ce-mix", "mmseg")])
def test_the_next_command_is_one_that_its_loss_can_take(tmp_path: Path, space: str, form: str) -> None:
    bound = build_space(space, metric="miou")
    card = LossCard.of(searched_loss(bound, bound.identity, 3), num_classes=3)
    card.save(tmp_path / "loss.json")
    last = finish.next_step(tmp_path, SearchConfig(), FOUND)[-1]
    assert f"--format {form} -o found_loss.py" in last
    assert as_files(card, form, tmp_path / "found_loss.py")


@pytest.mark.parametrize(("rival", "loss"), [("ce", "ce"), ("identity", "identity/biou")])
def test_a_rival_that_is_ahead_is_what_to_train_with(tmp_path: Path, rival: str, loss: str) -> None:
    bound = build_space("default", metric="biou")
    publish = CardPublisher(tmp_path / "loss.json", bound, 3)
    publish(replace(FOUND, theta=tuple(bound.identity), behind=(rival, "dice")))
    *_, export, longer, last = finish.next_step(tmp_path, SearchConfig(metric="biou"), replace(FOUND, behind=(rival,)))
    assert export.startswith("Export: autoseg export") and longer.endswith("search.rounds=16")
    words = f"loss={loss} model=deeplabv3plus_r50"
    assert last == f"or train with {rival}, which is no worse: autoseg retrain {words}"
    card = LossCard.load(tmp_path / "loss.json")
    assert as_python(card, "found").splitlines()[0].endswith(f"confirmed with fresh seeds, but behind {rival}, dice.")
    publish(replace(FOUND, theta=tuple(bound.identity)))
    assert "behind" not in as_python(LossCard.load(tmp_path / "loss.json"), "found").splitlines()[0]
    odd = replace(card, provenance={"behind": ['x"""\nimport os', 3]})  # a card may hold anything
    assert '"""' not in title(odd) and "\n" not in title(odd) and title(replace(card, provenance={"behind": 3}))


@pytest.mark.parametrize(
    "given",
    [
        [],
        ["data=camvid", "data.root=/a b", "model=deeplabv3plus_mobilenet_v2", "model.weights=net.pth"],
        ["data=folder", "data.root=d", "data.classes=[road,car]", "data.val_split=null", "data.holdout=0.3"],
        ["data.count=[8,2,2]", "model.config=_base_/models/fpn_r50.py", "model.overrides={backbone:{depth:18}}"],
    ],
)
def test_a_rival_is_trained_with_on_the_data_of_the_search(tmp_path: Path, given: list[str]) -> None:
    bound = build_space("default", metric="miou")
    LossCard.of(searched_loss(bound, bound.identity, 3), num_classes=3).save(tmp_path / "loss.json")
    config = compose.compose("search", SearchConfig, ["proxy.iters=7", *given])
    config.imports = ["/own metrics.py"]
    last = finish.next_step(tmp_path, config, replace(FOUND, behind=("tversky",)))[-1]
    command, *words = shlex.split(last.partition(": autoseg ")[2])
    full = compose.compose("retrain", RetrainConfig, words)
    assert (command, full.loss, full.imports) == ("retrain", "tversky", config.imports)
    assert (full.data, full.model) == (config.data, config.model)


@pytest.mark.parametrize(("confirmed", "iters"), [(False, None), (True, 400)])
def test_a_card_says_what_is_known_of_its_loss(tmp_path: Path, confirmed: bool, iters: int | None) -> None:
    bound, run = build_space("default", metric="biou"), tmp_path / "run"
    run.mkdir()
    options = {"tolerance": 2, "drop_background": True}
    publish = CardPublisher(run / "loss.json", bound, None, 7, options, {"data": "mine"})
    known = {"theta": tuple(bound.identity), "scores": {"biou": 0.4, "ece": math.nan}, "iters": iters}
    publish(replace(FOUND, confirmed=confirmed, **known))
    card = LossCard.load(run / "loss.json")
    assert (card.confirmed, card.num_classes, card.build(4).options) == (confirmed, None, MetricOptions(4, 7, 2, True))
    length = {"iters": iters} if iters else {}
    found = {"mean": {"biou": 0.4, "ece": None}, "seeds": [1, 2], **length}
    assert card.scores == {"confirm" if confirmed else "search": found}
    assert card.provenance == {"data": "mine", "candidate": "candidate 0.1", "run": "run"}


def test_the_command_for_fresh_seeds_is_one_that_compare_takes(tmp_path: Path) -> None:
    bound = build_space("default", metric="miou")
    run = tmp_path / "my run"
    run.mkdir()
    LossCard.of(searched_loss(bound, bound.identity, 3), num_classes=3).save(run / "loss.json")
    config = SearchConfig()
    write_config(run, stored.plain(config))
    for rivals, reference, iters in (["identity", "ce"], "ce", None), (["dice"], "dice", 400), ([], "ce", None):
        config.search.confirm.rivals = rivals
        (line,) = (said for said in finish.next_step(run, config, replace(FOUND, iters=iters)) if "fresh seeds" in said)
        command, *words = shlex.split(line.removeprefix("Compare with fresh seeds: autoseg "))
        assert command == "compare"
        given = compose.compose("compare", CompareConfig, words)
        taken = resume.like(given, words)
        seeds, among, first, _ = compare_job.resolve_names(taken)
        assert (len(among), first) == (len(rivals or ["ce"]) + 1, reference) and not {*seeds} & {*FOUND.seeds}
        assert taken.proxy.iters == (iters or config.proxy.iters) and taken.metrics == ["miou"]
    assert not any("fresh seeds" in said for said in finish.next_step(run, config, replace(FOUND, confirmed=False)))


def test_a_training_may_keep_no_checkpoint(tmp_path: Path) -> None:
    job, path = retrain.Job(contender("ce", "miou"), "ce", tmp_path, None, 2, None), tmp_path / "scores.json"
    lines = retrain.conclusion(RetrainConfig(), job, {"val": {"miou": 0.5}}, path)
    assert lines == ["val  miou 50.0", f"Scores: {path}   no checkpoint, as overrides have it"]
    (tmp_path / "last_checkpoint").write_text(f"{tmp_path}/iter_9.pth")
    assert f"checkpoint: {tmp_path}/iter_9.pth" in retrain.conclusion(RetrainConfig(), job, {"val": {}}, path)[1]


def test_with_sgd_a_loss_other_than_cross_entropy_wants_a_rate_of_its_own(tmp_path: Path) -> None:
    def said(loss: str, **train: Any) -> str:
        job = retrain.Job(contender(loss, "miou"), loss, tmp_path, None, 2, None, remarks=["an oddity"])
        config = RetrainConfig(train=TrainConfig(**train))
        lines = retrain.introduction(config, job, 1) + retrain.conclusion(config, job, {"val": {}}, tmp_path)
        assert "warning: an oddity" in lines
        return "\n".join(lines)

    assert "rate" not in said("ce")
    assert "train=adamw suits all of them" in (sgd := said("dice")) and "loss=ce, at a rate of its own, says" in sgd
    assert "rate" not in said("dice", lr=0.02)  # as the paper's recipe, or somebody's own
    assert "rate" not in (adamw := said("dice", optimizer="adamw")) and "loss=ce says what the loss brings" in adamw


def test_a_training_is_scored_by_the_target_of_its_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A typed list of metrics stays: `metrics` is then a choice, and a warning names what is missing."""
    card = LossCard.of(searched_loss(bound := build_space("default", metric="dice"), bound.identity, 3))
    card.save(tmp_path / "loss.json")
    given = RetrainConfig(loss=str(tmp_path / "loss.json"))
    assert retrain.with_targets(given).metrics == [*PAPER_METRICS, "dice"]
    assert retrain.with_targets(replace(given, metrics=["miou+dice"])).metrics == ["miou+dice"]
    assert retrain.with_targets(replace(given, loss="asl2021/bf1")).metrics == [*PAPER_METRICS]
    replace(card, provenance={"target": "somebodys"}).save(tmp_path / "own.json")  # a score without a formula
    assert retrain.with_targets(replace(given, loss=str(tmp_path / "own.json"))).metrics == [*PAPER_METRICS]
    kept: list[bool] = []
    monkeypatch.setattr(retrain, "retrain", lambda config, chosen: kept.append(chosen) or 0)
    for words in ([], ["metrics=[miou]"]):
        assert retrain_command.run("retrain", [f"loss={tmp_path / 'loss.json'}", *words]) == 0
    assert kept == [False, True]
