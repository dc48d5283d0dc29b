"""The report: what stands in it, what it makes of unfinished and broken runs, that it escapes and disturbs nothing."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import toy_runs
import yaml
from killed_writer import torn
from torch import nn

import autoseg.cli as cli
from autoseg.errors import AutosegError, Diverged, InputError
from autoseg.evidence.comparison.contenders import contenders
from autoseg.evidence.report import comparison_page, gradient, search_page
from autoseg.evidence.report.blocks import Key, Plot, Text
from autoseg.evidence.report.page import report
from autoseg.evidence.report.read import ComparisonRun, SearchRun, differing_budgets, open_run, open_runs
from autoseg.store.run_folder import RunFolder


class Page(HTMLParser):
    """What a browser would make of the markup: elements, links, the text, the figures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self._inside, self._words = "", []
        self._scripts: dict[str, str] = {}
        self.feed(text)
        self.text = " ".join(" ".join(self._words).split())
        self.figures = json.loads(self._scripts["figures"])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.elements.append(tag)
        self.links += [given[name] or "" for name in ("src", "href") if name in given]
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag in ("script", "style"):
            self._inside = str(given.get("id") or tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self._scripts[self._inside] = self._scripts.get(self._inside, "") + data
        else:
            self._words.append(data)

    def hovers(self) -> list[str]:
        """All hover texts of all figures."""
        texts = [trace.get("hovertext", []) for figure in self.figures.values() for trace in figure["data"]]
        return [one for text in texts for one in ([text] if isinstance(text, str) else text)]


def page_of(*paths: Path, force: bool = False) -> Page:
    runs = open_runs(paths, force=force)
    return Page(report(runs, ["autoseg search metric=miou"] * len(runs)))


@pytest.fixture(autouse=True)
def few_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """The curves of the pulls are tested elsewhere; here a few points of them will do."""
    monkeypatch.setattr(gradient, "GRID", np.array([0.2, 0.5, 0.8]))


def copy(run: Path, to: Path) -> Path:
    shutil.copytree(run, to, ignore=shutil.ignore_patterns(".lock"))
    return to


# ------------------------------------------------------------------------------------------ contents


def test_a_search_says_what_was_searched_and_what_came_out(search_run: Path) -> None:
    page = page_of(search_run)
    assert "Searched 6 losses of the space default-miou" in page.text and "with gp" in page.text
    assert "Found a loss for miou" in page.text or "The best loss found is" in page.text
    assert "Not finished" not in page.text
    parts = ["rewards", "confirmation", "curves", "surfaces", "gradient", "predictions", "cost", "origin"]
    assert [f"search-{part}" for part in parts] == [name for name in page.ids if name.startswith("search-")]
    assert "autoseg search metric=miou" in page.text and "your own training" in page.text
    assert "Trainings with your own function leave no predictions" in page.text


def test_every_candidate_can_be_pointed_at(search_run: Path) -> None:
    hovers = [text for text in page_of(search_run).hovers() if "and.p1.x" in text]
    for name in (f"candidate {round}.{index}" for round in range(2) for index in range(3)):
        (text,) = (hover for hover in hovers if f"<b>{name}</b>" in hover)
        assert "score.p1.x" in text
        assert ("reward" in text and "biou" in text and "complete" in text) != ("diverged" in text and "nan of" in text)
    assert sum("diverged" in text for text in hovers) == 1


def test_a_search_has_curves_surfaces_and_pulls(search_run: Path) -> None:
    figures = list(page_of(search_run).figures.values())
    kinds = [[trace["type"] for trace in figure["data"]] for figure in figures]
    assert kinds.count(["surface", "scatter3d"]) == 2
    named = [[trace.get("name") for trace in figure["data"]] for figure in figures]
    assert named.count(["identity", "published", "found"]) == 2 and named.count(["identity", "found"]) == 1
    assert named.count(["found", "ce", "soft Jaccard", "asl2021/miou"]) == 2


def test_a_comparison_has_its_matrix_marks_classes_and_predictions(comparison_run: Path) -> None:
    page = page_of(comparison_run)
    assert "miou: " in page.text and "is best with" in page.text
    assert re.search(r"\d\d\.\d ± \d\.\d↑", page.text), "no cell is marked"
    assert "95 % paired t interval" in page.text
    assert all(name in page.text for name in toy_runs.CLASSES)
    assert "% of pixels right" in page.text and "detail" in page.text and "where they differ" in page.text
    assert page.elements.count("option") == 2 and page.elements.count("img") == 2 * (3 + 2 * 2 + 2 * 5)
    assert "s / run" in page.text and f"torch {version('torch')}, onedl-mmsegmentation" in page.text


def test_what_a_name_of_a_card_stands_for_is_said_beside_the_scores(comparison_run: Path) -> None:
    run = open_run(comparison_run)
    assert isinstance(run, ComparisonRun)
    (scores,) = (one for one in comparison_page.comparison_page(run, "x", "").sections if one.slug == "scores")
    (name,) = (one.name for one in run.among if one.searched)
    assert any(
        isinstance(block, Text) and block.text.startswith(f"{name}: cards/{name}.json") for block in scores.blocks
    )


def test_losses_known_by_name_have_their_curves_too(comparison_run: Path) -> None:
    run = open_run(comparison_run)
    assert isinstance(run, ComparisonRun)
    among = contenders(["ce", "0.5*ce+0.5*camvid/miou", "asl2021/miou"], ["miou"])
    sections = comparison_page.comparison_page(replace(run, among=among, matrix=None), "x", "").sections
    curves = {one.title: one.blocks for one in sections if one.title.startswith("Found curves")}
    assert list(curves) == ["Found curves of camvid/miou", "Found curves of asl2021/miou"]
    keys = [[name for name, *_ in key.lines] for blocks in curves.values() for key in blocks if isinstance(key, Key)]
    assert keys == [["found", "identity", "published for miou"], ["found", "identity"]]


@pytest.mark.parametrize(
    ("rivals", "beside"), [(["lovasz", "ce"], "ce"), (["lovasz"], "lovasz"), ([], "the runner-up")]
)
def test_predictions_are_shown_beside_cross_entropy_or_the_next_best(
    toys: Path, rivals: list[str], beside: str
) -> None:
    path = toys / f"beside-{len(rivals)}"
    toy_runs.search(path, rivals=rivals, confirm_top=2)
    run = open_run(path)
    assert isinstance(run, SearchRun)
    expected = run.result.rows[1].name if beside == "the runner-up" else beside
    assert search_page._beside(run, [row.name for row in run.result.rows]) == expected


def test_several_runs_stand_in_one_page(search_run: Path, comparison_run: Path) -> None:
    page = page_of(search_run, comparison_run)
    assert "2 runs" in page.text and {"search", "comparison"} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids)) and set(page.figures) <= set(page.ids)


def test_it_needs_no_network(search_run: Path, comparison_run: Path) -> None:
    page = page_of(search_run, comparison_run)
    anchors = {f"#{name}" for name in page.ids}
    assert all(link.startswith("data:") or link in anchors for link in page.links)


def test_texts_of_files_are_never_markup(search_run: Path, comparison_run: Path) -> None:
    page = page_of(search_run, comparison_run)
    assert page.elements.count("script") == 4 and page.elements.count("style") == 1
    assert toy_runs.EVIL in page.text
    hovers = [text for text in page.hovers() if "alert(1)" in text]
    assert hovers and all(toy_runs.EVIL not in text and "&lt;script&gt;" in text for text in hovers)


# ------------------------------------------------------------------------------------------ unfinished, broken


def test_an_unfinished_search_is_rendered_and_says_so(toys: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        toy_runs.search(toys / "cut", toy_runs.Fragile(last=5))
    page = page_of(toys / "cut")
    assert "Not finished: 4 of 14 trainings have a result" in page.text
    assert "not confirmed" in page.text


@pytest.mark.parametrize("kind", ["search_run", "comparison_run"])
def test_a_run_killed_while_it_wrote_is_reported(
    kind: str, toys: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    whole = request.getfixturevalue(kind)
    run = open_run(torn(whole, tmp_path / "torn"))
    assert run.finished and repr(run.records) == repr(open_run(whole).records)  # NaN equals nothing


def test_the_training_that_a_floor_refers_to_is_of_the_search(toys: Path) -> None:
    toy_runs.search(toys / "floored", floor="miou>=0.5*ce")
    run = open_run(toys / "floored")
    assert isinstance(run, SearchRun)
    (plot,) = (block for block in search_page._cost(run).blocks if isinstance(block, Plot))
    counted = {bars.name: len(bars.x) for bars in plot.figure.data}
    assert counted == {"search": 1 + len(run.search), "confirmation": len(run.confirmation)}


def test_an_unfinished_confirmation_has_no_winner_yet(toys: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        toy_runs.search(toys / "unconfirmed", toy_runs.Fragile(last=9))
    page = page_of(toys / "unconfirmed")
    assert "Not finished: 8 of " in page.text and "Under way: 2 of " in page.text


def test_a_search_with_more_rounds_keeps_what_it_confirmed_before(toys: Path) -> None:
    """Of the search's own seed later trainings are better, of the fresh ones earlier: so the first winner stays it."""
    run, calls = toys / "extended", itertools.count()

    def train(loss: nn.Module, seed: int, device: str) -> dict[str, float]:
        if (now := next(calls)) == 14:  # before the first of the new confirmation
            raise KeyboardInterrupt
        return {"miou": 0.5 + (now if seed == 0 else -now) / 100}

    toy_runs.search(run, train, rounds=1)
    assert open_run(run).result.best.name == "candidate 0.2"
    with pytest.raises(KeyboardInterrupt):
        toy_runs.search(run, train)
    cut = open_run(run)
    assert not cut.finished and not cut.result.best.confirmed
    toy_runs.search(run, train)
    whole = open_run(run)
    assert isinstance(whole, SearchRun) and whole.card is not None and whole.finished
    assert whole.result.best.name == whole.card.provenance["candidate"] == "candidate 0.2"
    assert {row.name for row in whole.result.rows} == {"candidate 0.2", "candidate 1.2", "identity", "ce", "lovasz"}


def test_a_new_confirmation_under_way_says_of_which_one_the_card_is(toys: Path) -> None:
    toy_runs.search(toys / "anew")
    before = open_run(toys / "anew")
    assert isinstance(before, SearchRun) and "of an earlier confirmation" not in page_of(toys / "anew").text
    with pytest.raises(KeyboardInterrupt):
        toy_runs.search(toys / "anew", toy_runs.Fragile(last=1), confirm_seeds=3)
    text = page_of(toys / "anew").text
    assert f"loss.json is of an earlier confirmation, which {before.result.best.name} won" in text


def test_an_unfinished_comparison_uses_the_seeds_that_are_whole(toys: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        toy_runs.compare(toys / "half", last=6, predictions=False)
    page = page_of(toys / "half")
    assert "Not finished: 5 of 15 trainings have a result; the tables use the seeds 1001." in page.text
    assert "No predictions were kept." in page.text
    with pytest.raises(KeyboardInterrupt):
        toy_runs.compare(toys / "begun", last=3, predictions=False)
    assert "No seed has been trained with every loss yet" in page_of(toys / "begun").text


def test_losses_of_several_budgets_are_said_to_be(comparison_run: Path, tmp_path: Path) -> None:
    forced = copy(comparison_run, tmp_path / "forced")
    (first,) = json.loads((forced / "made_with.json").read_text())
    later = {**first, "after": 10, "budget": {**first["budget"], "proxy.iters": 6}}
    (forced / "made_with.json").write_text(json.dumps([first, later]))
    text = page_of(forced).text
    assert "Not one budget: " in text and "with proxy.iters=6" in text and "under one budget" not in text
    assert "under one budget" in page_of(comparison_run).text


def test_other_seeds_of_which_none_is_done_are_no_run_to_report(comparison_run: Path, tmp_path: Path) -> None:
    """As after `compare resume=RUN seeds=[7]`, interrupted at once."""
    begun = copy(comparison_run, tmp_path / "begun")
    config = yaml.safe_load((begun / "config.yaml").read_text())
    (begun / "config.yaml").write_text(yaml.safe_dump({**config, "seeds": [7]}))
    with pytest.raises(InputError, match="a run with a completed training"):
        open_runs([begun])


def test_what_is_no_run_is_refused(search_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = copy(search_run, tmp_path / "damaged")
    (damaged / "trials.db").write_bytes(b"not a database" * 100)
    torn = copy(search_run, tmp_path / "torn")
    (torn / "trials.db").write_bytes((search_run / "trials.db").read_bytes()[:20000])
    bare = copy(search_run, tmp_path / "bare")
    (bare / "fingerprint.json").write_text("{}")
    gone = copy(search_run, tmp_path / "gone")
    (gone / "trials.db").unlink()
    (tmp_path / "empty").mkdir()
    cases = {"empty": "config.yaml", "damaged": "readable ledger", "torn": "readable ledger", "bare": "space",
             "gone": "trials.db: expected a file", "nowhere": "does not exist"}  # fmt: skip
    for name, words in cases.items():
        assert cli.main(["report", str(tmp_path / name)]) == 2, name
        error = capsys.readouterr().err
        assert words in error and error.startswith("autoseg: ") and "Traceback" not in error
        assert not (tmp_path / name / "report.html").exists()


def test_a_run_with_nothing_complete_is_refused(toys: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        toy_runs.search(toys / "nothing", toy_runs.Fragile(last=1))
    with pytest.raises(InputError, match="a run with a completed training"):
        open_runs([toys / "nothing"])


def test_a_training_that_failed_without_a_word_is_no_fault_of_the_report(toys: Path) -> None:
    def silent(loss: object, seed: int, device: str) -> float:
        raise Diverged(" ")

    with pytest.raises(AutosegError, match="No candidate completed"):
        toy_runs.search(toys / "silent", silent)
    with pytest.raises(InputError, match=r"a run with a completed training, got .*silent without any among 6"):
        open_runs([toys / "silent"])


def test_different_budgets_are_refused_unless_forced(
    comparison_run: Path, toys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = copy(comparison_run, tmp_path / "other")
    fixed = json.loads((other / "fingerprint.json").read_text())
    (other / "fingerprint.json").write_text(json.dumps({**fixed, "proxy.iters": 4}))
    page = tmp_path / "both.html"
    assert cli.main(["report", str(comparison_run), str(other), "-o", str(page)]) == 2
    assert "proxy.iters (3, 4)" in capsys.readouterr().err and not page.exists()
    assert cli.main(["report", str(comparison_run), str(other), "-o", str(page), "--force"]) == 0
    assert "Different budgets, scores cannot be compared" in Page(page.read_text()).text


def test_searches_that_differ_in_what_a_search_chooses_are_of_one_budget(search_run: Path, tmp_path: Path) -> None:
    other = copy(search_run, tmp_path / "other")
    fixed = json.loads((other / "fingerprint.json").read_text())
    chosen = {"start": [0.5], "pruner": "median", "rungs": [0.5], "pruner_options": {"a": 1}, "formula of f2": "abc"}
    (other / "fingerprint.json").write_text(json.dumps({**fixed, **chosen}))
    assert differing_budgets(open_runs([search_run, other])) == []
    again = copy(other, tmp_path / "again")
    (again / "fingerprint.json").write_text(json.dumps({**fixed, **chosen, "formula of f2": "edited"}))
    assert differing_budgets([open_run(other), open_run(again)]) == [
        "other and again differ in formula of f2 (abc, edited)"
    ]


# ------------------------------------------------------------------------------------------ the command


def contents(run: Path) -> dict[str, str]:
    files = [path for path in run.rglob("*") if path.is_file()]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_run_under_way_is_read_without_its_lock_and_not_changed(
    search_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy(search_run, tmp_path / "run")
    with RunFolder.open(run, json.loads((run / "fingerprint.json").read_text())):
        before = contents(run)
        assert cli.main(["report", str(run)]) == 0
        after = contents(run)
    assert "wrote" in capsys.readouterr().out
    assert after.pop("report.html") and after == before


def test_where_the_page_goes(search_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(search_run), "-o", str(tmp_path)]) == 0
    assert (tmp_path / "report.html").stat().st_size > 4e6
    assert cli.main(["report", str(search_run), "-o", str(tmp_path / "no" / "page.html")]) == 2
    assert "existing folder" in capsys.readouterr().err
    assert cli.main(["report", str(search_run), str(search_run)]) == 2
    assert "each run once" in capsys.readouterr().err


def test_images_that_are_gone_or_changed_are_said_to_be(comparison_run: Path, tmp_path: Path) -> None:
    run = copy(comparison_run, tmp_path / "comparison")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"] = {**config["data"], "kind": "folder", "root": "/nowhere", "classes": ["a", "b"]}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    page = page_of(run)
    assert "The images of these predictions cannot be shown" in page.text and "img" not in page.elements
    changed = copy(comparison_run, tmp_path / "changed")
    config = yaml.safe_load((changed / "config.yaml").read_text())
    config["data"]["seed"] = 1
    (changed / "config.yaml").write_text(yaml.safe_dump(config))
    assert "changed since" in page_of(changed).text


def test_pictures_from_elsewhere_are_not_shown(comparison_run: Path, tmp_path: Path) -> None:
    """A report is handed on."""
    run = copy(comparison_run, tmp_path / "run")
    folder = next(run.glob("predictions/*/*"))
    shutil.move(folder, tmp_path / "secret")
    folder.symlink_to(tmp_path / "secret")
    page = page_of(run)
    assert "cannot be shown" in page.text and "a link to" in page.text and "img" not in page.elements
