"""The comparison with a toy training: what it refuses, what it keeps, how it goes on, what it writes."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from killed_writer import torn
from torch import nn

from autoseg.errors import AutosegError, Diverged, InputError
from autoseg.evidence.comparison import made_with
from autoseg.evidence.comparison.compare import ComparisonTask, counts_file, not_shown, parse_seeds, run_comparison
from autoseg.evidence.comparison.contenders import Recipe, contenders, keep_cards, key_of, reference_of, warnings_about
from autoseg.evidence.comparison.documents import About, latex, markdown, write
from autoseg.evidence.comparison.matrix import Matrix
from autoseg.evidence.comparison.tables import (
    aligned,
    cells,
    csv_text,
    differences,
    literal,
    markdown_rows,
    rows_of,
    sentences,
)
from autoseg.execution import InlineExecutor, Job, Outcome
from autoseg.losses import save_loss
from autoseg.search.observer import Observer
from autoseg.store.ledger import Ledger
from autoseg.store.records import TrialRecord
from autoseg.store.run_folder import RunFolder
from autoseg.surrogates import SurrogateLoss

RECIPE = Recipe(num_classes=3, options={"tolerance": 3, "drop_background": False})
LOSSES = ["ce", "lovasz", "0.25*ce + 0.75*jml"]
LEVEL = {"CrossEntropy": 0.4, "Lovasz": 0.5, "LossSum": 0.45, "SurrogateLoss": 0.55}


def toy(loss: nn.Module, seed: int, device: str) -> dict[str, float]:
    """A score per kind of loss, noise that the seed shares among them and a little that it does not."""
    own = math.sin(37.0 * seed + 100 * LEVEL[type(loss).__name__]) / 200
    miou = LEVEL[type(loss).__name__] + math.sin(seed) / 20 + own
    return {"miou": miou, "biou": miou - 0.1, "gacc": 0.9, "miou/road": miou + 0.1, "miou/sky": math.nan}


def fails_for_lovasz(loss: nn.Module, seed: int, device: str) -> dict[str, float]:
    if type(loss).__name__ == "Lovasz" and seed == 2:
        raise Diverged("nan at iteration 3")
    return toy(loss, seed, device)


def stopped(loss: nn.Module, seed: int, device: str) -> dict[str, float]:
    if seed == 2:
        raise KeyboardInterrupt
    return toy(loss, seed, device)


def always_fails(loss: nn.Module, seed: int, device: str) -> dict[str, float]:
    raise Diverged("nan at iteration 1")


class Counting(InlineExecutor):
    """Knows what it was asked to run."""

    def __init__(self, task: Any) -> None:
        super().__init__(task)
        self.ran: list[tuple[str, int]] = []

    def run(self, jobs: Any) -> Iterator[tuple[Job, Outcome]]:
        for job, outcome in super().run(jobs):
            self.ran.append((job.payload["loss"], job.payload["seed"]))
            yield job, outcome


def compare(
    path: Path, losses: list[str] = LOSSES, seeds: tuple[int, ...] = (1, 2), train: Any = toy
) -> tuple[list[TrialRecord], Counting]:
    """Compare in a new folder, or go on in an old one."""
    exists = (path / "config.yaml").exists()
    among = contenders(losses, ["miou"])
    with RunFolder.open(path, {}) if exists else RunFolder.create(path, {"losses": losses}, {}) as folder:
        executor = Counting(ComparisonTask(keep_cards(among, path), RECIPE, train))
        return run_comparison(folder, among, list(seeds), "miou", executor, Observer()), executor


def trained(losses: list[str] = LOSSES, seeds: tuple[int, ...] = (1, 2), train: Any = toy) -> list[TrialRecord]:
    """The same without a folder."""
    among = contenders(losses, ["miou"])
    task = ComparisonTask({loss.name: loss.kept for loss in among}, RECIPE, train)
    plan = [TrialRecord(-1, 0, "hand-made", loss.name, None, seed) for seed in seeds for loss in among]
    jobs = [Job(str(number), record.payload) for number, record in enumerate(plan)]
    return [
        replace(record, state=outcome.state, scores=outcome.scores, seconds=1.5, attempts=1)
        for record, (_, outcome) in zip(plan, InlineExecutor(task).run(jobs), strict=True)
    ]


def matrix_of(records: list[TrialRecord], losses: list[str] = LOSSES, **changes: Any) -> Matrix:
    seeds = list(dict.fromkeys(record.seed for record in records))
    options = {"metrics": ["miou", "biou"], "seeds": seeds, "reference": "ce", "classes": ["road", "sky"], **changes}
    return Matrix(contenders(losses, ["miou"]), records=records, **options)


def a_card(path: Path, metric: str = "miou", classes: int = 3, **about: Any) -> Path:
    theta = [0.3] * SurrogateLoss(metric, classes).space.dim
    save_loss(SurrogateLoss.from_theta(metric, theta, classes), path, **about)
    return path


# ------------------------------------------------------------------ what is compared


@pytest.mark.parametrize("wrong", [0, -1, True, "5", 2.5, None, [], [1, -2], ["1"]])
def test_seeds_that_are_none_are_refused(wrong: object) -> None:
    with pytest.raises(InputError, match="seeds: expected how many, or a list"):
        parse_seeds(wrong)


def test_seeds_by_number_are_fresh_and_grow_at_the_end() -> None:
    assert parse_seeds([3, 1]) == [3, 1]
    assert len(set(parse_seeds(7))) == 7 and parse_seeds(7)[:5] == parse_seeds(5) and 0 not in parse_seeds(7)


@pytest.mark.parametrize("many", [2_000_000_000, list(range(1001))])
def test_more_seeds_than_anybody_trains_with_are_refused(many: object) -> None:
    with pytest.raises(InputError, match="seeds: expected at most 1000, got"):
        parse_seeds(many)


def test_duplicate_seeds_are_refused() -> None:
    with pytest.raises(InputError, match="each seed once, got 3 more than once"):
        parse_seeds([3, 4, 3])


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        (["ce", "lovas"], "Did you mean lovasz"),
        (["ce"], "at least two"),
        (["ce", "jml", " ce"], "ce more than once"),
        (["ce", "0.5*ce+0.5*"], "loss: expected"),
        (["ce", "nowhere/loss.json"], "existing file"),
        (["ce", "asl2021/mio"], "Did you mean asl2021/miou"),
        (["ce", "identity/mio"], "Did you mean miou"),
        (["ce", "tversky(alpa=0.3)"], "alpha"),
    ],
)
def test_losses_that_cannot_be_compared_are_refused(losses: list[str], words: str) -> None:
    with pytest.raises(InputError) as refused:
        contenders(losses, ["miou"])
    assert words in str(refused.value)


def test_the_reference_is_one_of_the_losses() -> None:
    among = contenders(["lovasz", "identity", "0.5*ce + 0.5*jml"], ["biou"])
    assert reference_of("identity", among).name == "identity/biou"
    assert reference_of("0.5*ce+ 0.5*jml", among).name == "0.5*ce+0.5*jml"
    with pytest.raises(InputError, match="reference: expected one of the losses: lovasz"):
        reference_of("ce", among)


def test_the_reference_may_be_a_card_that_the_comparison_keeps_a_copy_of(tmp_path: Path) -> None:
    card = a_card(tmp_path / "loss.json")
    among = contenders(["ce", str(card)], ["miou"])
    keep_cards(among, tmp_path / "run")
    resumed = contenders([contender.kept for contender in among], ["miou"], tmp_path / "run")
    assert reference_of(str(card), resumed) == resumed[1]


def test_what_was_searched_and_what_was_not(tmp_path: Path) -> None:
    card = a_card(tmp_path / "loss.json")
    losses = ["ce", "identity", "asl2021/miou", str(card), f"0.5*ce+0.5*{card}"]
    among = contenders(losses, ["miou"])
    assert [c.searched for c in among] == [False, False, True, True, True]
    assert among[3].name.startswith("miou-") and among[4].name == f"0.5*ce+0.5*{among[3].name}"
    assert among[3].kept == f"cards/{among[3].name}.json"


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_card_in_quotes_is_one_of_a_sum(quote: str, tmp_path: Path) -> None:
    (tmp_path / "my dir").mkdir()
    card, path = a_card(tmp_path / "loss.json"), tmp_path / "my dir" / "loss.json"
    a_card(path, "biou")
    losses = ["ce", f"0.5 * {card} + 0.5 * {quote}{path}{quote}", f"ce+{quote}{card}{quote}"]
    among = contenders(losses, ["miou", "biou"])
    of_miou, of_biou = among[2].cards.keys(), among[1].cards.keys() - among[2].cards.keys()
    assert among[1].name == f"0.5*{min(of_miou)}+0.5*{min(of_biou)}" and among[2].name == f"ce+{min(of_miou)}"
    assert reference_of(losses[1], among) == among[1]
    assert all("was not confirmed" in text for text in warnings_about(among, ["miou", "biou"], 3, [1]))
    home = tmp_path / "a home"
    built = keep_cards(among, home)
    for one in contenders([contender.kept for contender in among], ["miou"], home):
        assert one.kept in [contender.kept for contender in among] and "'" not in one.kept and '"' not in one.kept
        RECIPE.build(built[one.name])


def test_identity_curves_in_a_sum_have_the_options_of_the_comparison() -> None:
    among = contenders(["0.5*ce+0.5*identity/biou", "identity/biou+0.5*miou"], ["miou"])
    assert [c.searched for c in among] == [False, False]
    first, second = (RECIPE.build(contender.kept) for contender in among)
    assert first.losses[1].options.tolerance == second.options.tolerance == 3
    assert second.metric == "biou+0.5*miou"


def test_a_card_whose_name_ends_as_another_does_is_another(tmp_path: Path) -> None:
    card = a_card(tmp_path / "a.json")
    save_loss(
        SurrogateLoss.from_theta("miou", [0.4] * SurrogateLoss("miou", 3).space.dim, 3), tmp_path / "b" / "a.json"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        (sum_of_two, _) = contenders(["a.json+b/a.json", "ce"], ["miou"])
    kept = keep_cards([sum_of_two], tmp_path / "run")[sum_of_two.name]
    assert len(RECIPE.build(kept).losses) == 2 and card.exists()


def test_a_run_folder_means_its_card_and_another_content_is_another_loss(tmp_path: Path) -> None:
    card = a_card(tmp_path / "loss.json")
    (first,) = contenders([str(tmp_path), "ce"], ["miou"])[:1]
    save_loss(SurrogateLoss.from_theta("miou", [0.4] * SurrogateLoss("miou", 3).space.dim, 3), card)
    (second,) = contenders([str(card), "ce"], ["miou"])[:1]
    assert first.name != second.name


def test_a_comparison_keeps_its_cards(tmp_path: Path) -> None:
    card = a_card(tmp_path / "loss.json")
    among = contenders([str(card), f"ce+{card}"], ["miou"])
    home = tmp_path / "run"
    texts = keep_cards(among, home)
    card.unlink()
    again = contenders([c.kept for c in among], ["miou"], home)
    assert [c.name for c in again] == [c.name for c in among]
    assert isinstance(RECIPE.build(texts[among[0].name]), SurrogateLoss)
    assert len(RECIPE.build(texts[among[1].name]).losses) == 2


def test_the_names_of_cards_are_explained(tmp_path: Path) -> None:
    (tmp_path / "my run").mkdir()
    one = a_card(tmp_path / "my run" / "loss.json", "biou", provenance={"run": "miou-x"})
    two = a_card(tmp_path / "two.json")
    among = contenders(["ce", str(one.parent), f"0.5*ce+0.5*{two}", str(two)], ["miou"])
    first, second = (loss.name for loss in (among[1], among[3]))
    assert key_of(among) == [f"{first}: {one.parent}", f"{second}: {two}"]
    keep_cards(among, tmp_path / "home")
    again = contenders([loss.kept for loss in among], ["miou"], tmp_path / "home")
    assert key_of(again)[0] == f"{first}: cards/{first}.json, of run miou-x"
    assert key_of(contenders(["ce", "jml"], ["miou"])) == []


def test_warnings_about_found_losses(tmp_path: Path) -> None:
    scores = {"confirm": {"mean": {"biou": 0.5}, "seeds": [1003, 9]}}
    card = a_card(tmp_path / "loss.json", "biou", classes=6, scores=scores)
    among = contenders(["ce", str(card)], ["miou"])
    texts = " ".join(warnings_about(among, ["miou"], 3, [1003]))
    assert "searched for biou, which is not among metrics: metrics=[miou,biou]" in texts
    assert "6 classes, the data has 3" in texts and "not confirmed" in texts and "seed 1003" in texts
    fine = a_card(tmp_path / "fine.json", confirmed=True)
    among = contenders(["ce", str(fine), "asl2021/miou"], ["miou+0.5*biou"])
    assert warnings_about(among, ["miou+0.5*biou"], 3, [1003]) == []
    (published,) = warnings_about(contenders(["ce", "asl2021/bf1"], ["miou"]), ["miou"], 3, [1])
    assert "asl2021/bf1 was searched for bf1" in published


# ------------------------------------------------------------------ running it


def test_every_loss_meets_every_seed_and_whole_pairs_come_first(tmp_path: Path) -> None:
    records, executor = compare(tmp_path / "run")
    names = ["ce", "lovasz", "0.25*ce+0.75*jml"]
    assert executor.ran == [(name, seed) for seed in (1, 2) for name in names]
    assert all(record.state == "complete" and record.seconds >= 0 for record in records)


def test_stopped_and_resumed_equals_never_stopped(tmp_path: Path) -> None:
    whole, _ = compare(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        compare(tmp_path / "cut", train=stopped)
    resumed, executor = compare(tmp_path / "cut")
    assert [seed for _, seed in executor.ran] == [2, 2, 2]
    assert repr([(r.key, r.state, r.scores) for r in resumed]) == repr([(r.key, r.state, r.scores) for r in whole])


def test_killed_while_it_wrote_it_goes_on(tmp_path: Path) -> None:
    whole, _ = compare(tmp_path / "run")
    run = torn(tmp_path / "run", tmp_path / "torn")
    with RunFolder.open(run, {}) as folder:
        made_with.note(folder, {}, {})  # counts what is there
    resumed, executor = compare(run)
    assert executor.ran == [] and repr(resumed) == repr(whole)
    assert not_shown(run, contenders(["jml", "ce"], ["miou"])) == ["lovasz", "0.25*ce+0.75*jml"]


def test_losses_and_seeds_can_be_added_and_nothing_is_trained_twice(tmp_path: Path) -> None:
    compare(tmp_path / "run", ["ce", "lovasz"])
    _, executor = compare(tmp_path / "run", ["ce", "lovasz", "jml"], (1, 2, 3), train=lambda *_: {"miou": 0.1})
    assert sorted(executor.ran) == [("ce", 3), ("jml", 1), ("jml", 2), ("jml", 3), ("lovasz", 3)]
    assert not_shown(tmp_path / "run", contenders(["jml", "ce"], ["miou"])) == ["lovasz"]


def test_what_failed_is_trained_again_and_what_is_asked_for_no_longer_is_not(tmp_path: Path) -> None:
    def fails(loss: nn.Module, seed: int, device: str) -> dict[str, float]:
        if type(loss).__name__ == "Lovasz" and seed == 1:
            raise RuntimeError("out of luck")
        return stopped(loss, seed, device)

    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        compare(path, train=fails)
    some = ["lovasz", "ce"]
    records, executor = compare(path, some, (1,))
    assert executor.ran == [("lovasz", 1)] and [record.state for record in records] == ["complete"] * 2
    with Ledger(path / "trials.db", (), read_only=True, studies=("compare",)) as ledger:
        known, rows = ledger.records("compare"), ledger.planned("compare")
    assert rows == 7 and {record.key for record in known} == {
        (name, 1) for name in ("ce", "lovasz", "0.25*ce+0.75*jml")
    }
    records, executor = compare(path)
    assert [seed for _, seed in executor.ran] == [2, 2, 2] and all(record.state == "complete" for record in records)


def test_a_loss_that_diverges_leaves_the_rest_alone(tmp_path: Path) -> None:
    records, _ = compare(tmp_path / "run", train=fails_for_lovasz)
    matrix = matrix_of(records)
    assert matrix.cell("lovasz", "miou").n == 1 and matrix.cell("ce", "miou").n == 2
    assert "1 of 2" in " ".join(aligned(*rows_of(matrix)))
    assert math.isnan(matrix.difference("lovasz", "ce", "miou").differences[1])


def test_nothing_completed_is_said(tmp_path: Path) -> None:
    with pytest.raises(AutosegError, match=r"No training completed.*nan at iteration 1"):
        compare(tmp_path / "run", train=always_fails)


@pytest.mark.parametrize("force", [False, True])
def test_other_images_are_named_not_their_digest(tmp_path: Path, force: bool) -> None:
    RunFolder.create(
        tmp_path / "run", {"losses": [], "data": {"root": "/photos"}}, {"data": "1a2b", "proxy.size": [8, 9]}
    ).close()
    for size, said in (
        ([8, 9], "data: expected the images, masks and classes of /photos as .* got others. .* put them back, or make"),
        ([9, 9], r"proxy.size: expected \[8, 9\], .* got \[9, 9\]\. Scores of other images"),
    ):
        with pytest.raises(InputError, match=said) as told:
            made_with.admit(tmp_path / "run", {"data": "3c4d", "proxy.size": size}, force)
        assert "1a2b" not in str(told.value)


def test_a_budget_changes_only_when_all_is_done_and_by_force(tmp_path: Path) -> None:
    old, new = {"split": "val", "proxy.iters": 3}, {"split": "val", "proxy.iters": 4}
    path = tmp_path / "run"
    RunFolder.create(path, {"losses": []}, old).close()
    with pytest.raises(InputError, match=r"proxy.iters: expected 3, .* got 4.*force=true"):
        made_with.admit(path, new, force=False)
    with pytest.raises(InputError, match=r"split: expected 'val'.*make a new run folder"):
        made_with.admit(path, {**new, "split": "test"}, force=True)
    first = TrialRecord(-1, 0, "hand-made", "ce", None, 1)
    second = TrialRecord(-1, 0, "hand-made", "ce", None, 2)
    with RunFolder.open(path, made_with.admit(path, old, force=False)) as folder:
        made_with.note(folder, old, {})
        with Ledger(folder.trials, (), studies=("compare",)) as ledger:
            first = ledger.add("compare", first)
            with pytest.raises(InputError, match="1 without one"):
                made_with.note(folder, new, {})
            first = ledger.finish("compare", first, Outcome("complete", {"miou": 0.5}), 0.5)
    with RunFolder.open(path, made_with.admit(path, new, force=True)) as folder:
        made_with.note(folder, new, {})
        made_with.note(folder, new, {})
        with Ledger(folder.trials, (), studies=("compare",)) as ledger:
            second = ledger.add("compare", second)
    text = made_with.budgets_of(path, [first, second])
    assert text.startswith("Not one budget: ce (seeds 1) with proxy.iters=3; ce (seeds 2) with proxy.iters=4.")
    assert made_with.budgets_of(path, [first]) == made_with.budgets_of(path, [second]) == ""
    later = json.loads((path / "made_with.json").read_text())[1:]  # as after it was lost, and the run went on
    (path / "made_with.json").write_text(json.dumps([{**entry, "after": 1} for entry in later]))
    assert made_with.budgets_of(path, [first, second]) == ""
    (path / "made_with.json").write_text("[1]")
    with pytest.raises(InputError, match="what this comparison was made with"):
        made_with.budgets_of(path, [first])


def test_an_own_formula_that_was_edited_since_it_had_a_result_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunFolder.create(path, {"losses": []}, {}) as folder:
        made_with.note(folder, {}, {"formula of f2": "before anything was trained"})
        made_with.note(folder, {}, {"formula of f2": "aa"})
        for seed in (1, 2):
            with Ledger(folder.trials, (), studies=("compare",)) as ledger:
                record = ledger.add("compare", TrialRecord(-1, 0, "hand-made", "ce", None, seed))
                ledger.finish("compare", record, Outcome("complete", {"miou": 0.5}), 0.5)
            made_with.note(folder, {}, {"formula of the loss poly": "bb"})  # a loss that came later
        made_with.note(folder, {}, {"formula of f2": "aa", "formula of the loss poly": "bb"})
        with pytest.raises(InputError, match=r"formula of f2: expected 'aa', as when .*, got 'cc'\. Scores of both"):
            made_with.note(folder, {}, {"formula of f2": "cc"})


@pytest.mark.parametrize("words", [None, {"miou-475b74": {"poly"}}])
def test_an_own_loss_that_failed_may_be_mended(words: dict[str, set[str]] | None, tmp_path: Path) -> None:
    """Until it has a score: the other losses' scores are not of it."""
    before, mended = ({"formula of the loss poly": digest} for digest in ("aa", "bb"))
    name = "0.5*ce+0.5*poly" if words is None else next(iter(words))  # a card may mix it with its curves
    with RunFolder.create(tmp_path / "run", {"losses": []}, {}) as folder:
        made_with.note(folder, {}, before)
        for trained, how in (("ce", "complete"), (name, "failed")):
            with Ledger(folder.trials, (), studies=("compare",)) as ledger:
                record = ledger.add("compare", TrialRecord(-1, 0, "hand-made", trained, None, 1))
                ledger.finish("compare", record, Outcome(how, {"miou": 0.5}), 0.5)
        made_with.note(folder, {}, mended, words)
        with Ledger(folder.trials, (), studies=("compare",)) as ledger:
            record = ledger.add("compare", TrialRecord(-1, 0, "hand-made", name, None, 2))
            ledger.finish("compare", record, Outcome("complete", {"miou": 0.5}), 0.5)
        with pytest.raises(InputError, match=r"formula of the loss poly: expected 'bb', as when .*, got 'aa'"):
            made_with.note(folder, {}, before, words)


def test_versions_are_told_from_the_result_on_that_they_brought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"
    installed: dict[str, str] = {}
    monkeypatch.setattr(made_with, "versions", lambda: dict(installed))

    def train_one(seed: int, version: str) -> None:
        installed["torch"] = version
        fresh = not (path / "config.yaml").exists()
        with RunFolder.create(path, {"losses": []}, {}) if fresh else RunFolder.open(path, {}) as folder:
            made_with.note(folder, {}, {})
            with Ledger(folder.trials, (), studies=("compare",)) as ledger:
                if seed:
                    record = ledger.add("compare", TrialRecord(-1, 0, "hand-made", "ce", None, seed))
                    ledger.finish("compare", record, Outcome("complete", {"miou": 0.5}), 0.5)

    assert made_with.versions_of(path) == "not recorded"
    train_one(1, "2.0")
    train_one(2, "2.0")
    assert made_with.versions_of(path) == "torch 2.0"
    train_one(0, "2.1")  # brought no result
    train_one(3, "2.2")
    assert made_with.versions_of(path) == "torch 2.0; after 2 of 3 trainings torch 2.2"
    train_one(3, "2.3")  # once more
    train_one(4, "2.3")
    assert made_with.versions_of(path) == (
        "torch 2.0; after 2 of 5 trainings torch 2.2; after 3 of 5 trainings torch 2.3"
    )


def test_each_training_is_told_where_its_counts_go(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Keeping:
        counts_to: str = ""

        def __call__(self, loss: Any, seed: int, device: str) -> dict[str, float]:
            return {"miou": 0.5, "kept": float(self.counts_to.endswith("-7.npz"))}

    texts, folder = {"ce": "ce"}, str(tmp_path / "counts")
    task = ComparisonTask(texts, RECIPE, Keeping(), counts=folder)
    assert task({"loss": "ce", "seed": 7}, "cpu")["kept"] == 1.0
    files = {counts_file(tmp_path, name, 1).name for name in ("ce+jml", "ce-jml", "0.25*ce+0.75*jml")}
    assert len(files) == 3 and not any(set("*+/ ") & set(name) for name in files)


# ------------------------------------------------------------------ what it leaves


def test_the_files_hold_every_cell_and_mark_only_what_is_sure(tmp_path: Path) -> None:
    records = trained(seeds=(1, 2, 3, 4, 5))
    matrix = matrix_of(records, metrics=["miou", "miou+0.5*biou"])
    write(matrix, About("toy", "test", 7, "a budget"), tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").open()))
    assert len(rows) == 15
    by_key = {record.key: record for record in records}
    for row in rows:
        record = by_key[row["loss"], int(row["seed"])]
        assert float(row["miou"]) == pytest.approx(record.scores["miou"])
        assert float(row["miou+0.5*biou"]) == pytest.approx(1.5 * record.scores["miou"] - 0.05)
        assert float(row["miou/road"]) == pytest.approx(record.scores["miou/road"]) and row["miou/sky"] == ""
    text = (tmp_path / "out" / "table.md").read_text()
    assert "| lovasz | **50" in text and "**↑ |" in text and "### miou" in text and "| road |" in text
    assert (tmp_path / "out" / "figures" / "forest.png").read_bytes().startswith(b"\x89PNG")
    lines = list(csv.DictReader((tmp_path / "out" / "differences.csv").open()))
    lovasz = next(row for row in lines if row["loss"] == "lovasz" and row["metric"] == "miou")
    assert float(lovasz["mean"]) == pytest.approx(matrix.difference("lovasz", "ce", "miou").mean)
    assert lovasz["marked"] == "1" and float(lovasz["low"]) > 0
    assert float(lovasz["p"]) == pytest.approx(matrix.p_values("ce", "miou")["lovasz"])
    assert float(lovasz["p holm"]) == pytest.approx(matrix.holm("ce", "miou")["lovasz"])
    assert "## Best" in text and "with Holm's correction these stay certain: to ce lovasz (p " in text
    (first, _) = sentences(matrix)
    assert first.startswith("miou: lovasz is best with 50") and "to ce" in first


def test_below_five_seeds_nothing_is_marked() -> None:
    records = trained(seeds=(1, 2, 3, 4))
    matrix = matrix_of(records)
    assert matrix.difference("lovasz", "ce", "miou").low > 0  # and yet
    everything = markdown(matrix, About("toy", "val", 7, "b")) + latex(matrix, About("toy", "val", 7, "b"))
    assert not set("↑↓†‡") & set(everything + " ".join(aligned(*rows_of(matrix))))
    assert "Nothing is marked" in everything and "too few seeds" in sentences(matrix)[0]
    assert {row["marked"] for row in csv.DictReader(differences(matrix).splitlines())} == {"0"}
    assert "- miou: lovasz; ahead of which takes 5 seeds or more to say." in everything and "Holm" not in everything


def test_latex_escapes_what_names_may_hold() -> None:
    losses = ["ce", "boundary_smooth_ce"]
    among = contenders(losses, ["miou"])
    records = [TrialRecord(-1, 0, "hand-made", name, None, 1, "complete", {"miou": 0.5}) for name in losses]
    text = latex(Matrix(among, ["miou"], [1], "ce", records, []), About("my_data & co", "val", 3, "50%"))
    assert r"boundary\_smooth\_ce & " in text and r"my\_data \& co" in text
    assert text.count("{") == text.count("}") and text.count(r"\begin") == text.count(r"\end")


def test_latex_escapes_what_paths_may_hold() -> None:
    """Values of keys stand in the caption where budgets differ; an empty line there ends LaTeX's argument."""
    records = [TrialRecord(-1, 0, "hand-made", name, None, 1, "complete", {"miou": 0.5}) for name in ("ce", "jml")]
    matrix = Matrix(contenders(["ce", "jml"], ["miou"]), ["miou"], [1], "ce", records, [])
    text = latex(matrix, About("toy", "val", 3, "b", mixed="jml with C:\\a^b\n\n<c>|~d"))
    shown = r"jml with C:\textbackslash{}a\textasciicircum{}b \textless{}c\textgreater{}\textbar{}\textasciitilde{}d"
    assert shown in text


def test_markdown_shows_sums_as_they_were_typed_outside_its_tables_too() -> None:
    metric, reference = "0.5*miou+0.5*biou", "0.25*ce+0.75*jml"
    matrix = matrix_of(trained(seeds=(1, 2, 3, 4, 5)), metrics=[metric], reference=reference)
    text = markdown(matrix, About("a_b _c_", "val", 7, "b", mixed=f"Not one budget: {reference} with x"))
    starred = [line for line in text.splitlines() if "*ce" in line or "*miou" in line]
    assert len(starred) > 5 and all(r"\*ce" in line or r"\*miou" in line for line in starred)
    assert r"a_b \_c\_, val split" in text


def test_where_a_card_comes_from_is_no_markup() -> None:
    source = "cards/a.json, found in run ![x](http://x/y) <img src=x>\n# b"
    about = About("a", "val", 7, "b", sources={"a": source}, versions="<b>")
    text = markdown(matrix_of(trained()), about)
    assert r"`a` is cards/a.json, found in run !\[x](http://x/y) \<img src=x> # b." in text
    assert r"Versions: \<b>." in text


def test_names_are_no_markup_and_no_formulas() -> None:
    text = markdown_rows(["loss", "0.25*ce+0.75*jml"], [["a|<b>\n[x](y)", "**1.0**"]])
    assert text.splitlines()[0] == r"| loss | 0.25\*ce+0.75\*jml |"
    assert text.splitlines()[2:] == [r"| a\|\<b> \[x](y) | **1.0** |"]
    assert literal("a&amp;b $x_1$ ~~c~~ _d_ e_f") == r"a\&amp;b \$x_1\$ \~\~c\~\~ \_d\_ e_f"
    row = csv_text([["=1+1", "@x", "-cmd", "-0.5", "+1e-07", "", "ce", -2, 0.5]])
    assert row == "'=1+1,'@x,'-cmd,-0.5,+1e-07,,ce,-2,0.5\n"


def test_a_metric_that_was_not_scored_is_named() -> None:
    records = trained()
    with pytest.raises(InputError, match="metrics: expected one of biou, gacc, miou"):
        matrix_of(records, metrics=["miou", "bf1"])


def test_cells_say_what_failed() -> None:
    records = trained(train=fails_for_lovasz)
    row = next(r for r in csv.DictReader(cells(matrix_of(records)).splitlines()) if r["state"] != "complete")
    assert (row["loss"], row["seed"], row["state"], row["miou"]) == ("lovasz", "2", "diverged", "")


def test_a_loss_that_only_failed_has_nothing_to_show(tmp_path: Path) -> None:
    compare(tmp_path / "run", ["ce", "lovasz"], (2,), train=fails_for_lovasz)
    assert not_shown(tmp_path / "run", contenders(["ce", "jml"], ["miou"])) == []
