"""`autoseg compare` for real: killed and resumed, added to, refused."""

from __future__ import annotations

import csv
import signal
from importlib.metadata import version
from pathlib import Path

import pytest
from commands import start

import autoseg.cli as cli

TINY = [
    "data.count=[6,3,3]", "proxy.size=[48,48]", "proxy.crop=32", "proxy.iters=3", "proxy.batch_size=2",
    "executor=inline", "device=cpu", "metrics=[miou,gacc]",
]  # fmt: skip


def scores(folder: Path) -> list[dict[str, str]]:
    """`table.csv` without what may differ between two equal comparisons."""
    rows = list(csv.DictReader((folder / "table.csv").open()))
    return [{key: value for key, value in row.items() if key not in ("seconds", "attempts")} for row in rows]


@pytest.mark.slow
def test_killed_resumed_added_to_and_refused(tmp_path, capsys):
    tiny = [*TINY, f"data.cache_dir={tmp_path / 'cache'}", "losses=[ce,lovasz]", "seeds=[3,4]"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert cli.main(["compare", *tiny, f"run_dir={whole}"]) == 0
    assert "2 seeds" in capsys.readouterr().out
    assert f"Versions: autoseg {version('autoseg')}, torch {version('torch')}" in (whole / "table.md").read_text()
    running = start(tmp_path, "compare", *tiny, f"run_dir={cut}")
    running.wait_for("1/4")
    running.send_signal(signal.SIGKILL)
    assert running.wait().returncode == -signal.SIGKILL, "it ended before"
    assert not (cut / "table.csv").exists()

    assert cli.main(["compare", f"resume={cut}"]) == 0
    assert "1/4" not in capsys.readouterr().out
    assert scores(cut) == scores(whole)
    assert len(scores(cut)) == 4 and all(row["state"] == "complete" for row in scores(cut))
    assert {"miou/ground", "gacc"} <= set(scores(cut)[0])

    assert cli.main(["compare", f"resume={cut}", "losses=[ce,lovasz,identity]"]) == 0
    added = capsys.readouterr().out
    assert added.count("seed 3") + added.count("seed 4") == 2 and "identity/miou" in added
    assert scores(cut)[:4] == scores(whole)

    assert cli.main(["compare", *tiny, f"run_dir={cut}", "proxy.iters=4"]) == 2
    assert "proxy.iters: expected 3, as when the run began, got 4" in capsys.readouterr().err
    for key, told in {
        "data.count=[5,3,3]": "data: expected the images, masks and classes of builtin as when the run",
        "proxy.size=[32,64]": "proxy.size: expected [48, 48], as when the run began, got [32, 64].",
    }.items():
        assert cli.main(["compare", *tiny, f"run_dir={cut}", key]) == 2
        assert told in capsys.readouterr().err
    for key, forcible in (("tolerance=1", False), ("proxy.iters=4", True)):
        assert cli.main(["compare", f"resume={cut}", key]) == 2
        said = capsys.readouterr().err
        assert key.split("=")[0] in said and ("force=true" in said) is forcible

    more = [*tiny, f"run_dir={cut}", "proxy.iters=4", "losses=[ce,jml]", "force=true"]
    assert cli.main(["compare", *more, "interval=bootstrap", "metrics=[miou,ece]"]) == 0
    out = capsys.readouterr().out
    assert "Not one budget: ce with proxy.iters=3; jml with proxy.iters=4" in out and out.count("jml  seed") == 2
    assert "ece are t intervals over seeds: ece does not add up over images" in out
    assert "**Not one budget" in (cut / "table.md").read_text()
    assert "bootstrap interval over seeds and images" in (cut / "table.md").read_text()
    assert cli.main(["report", str(cut), "-o", str(tmp_path / "page.html")]) == 0
    assert "with its 95 % bootstrap interval over seeds and images" in (tmp_path / "page.html").read_text()
    assert cli.main(["compare", f"resume={cut}"]) == 0  # what was forced stays so
    assert "Not one budget" in capsys.readouterr().out
    assert cli.main(["compare", *more, "tolerance=1"]) == 2
    assert "tolerance: expected 5" in capsys.readouterr().err


@pytest.fixture
def a_search(tmp_path, monkeypatch):
    """A search's folder as far as its configuration."""
    from autoseg.cli.configuration.compose import compose
    from autoseg.cli.configuration.stored import plain
    from autoseg.config import SearchConfig
    from autoseg.store.run_folder import RunFolder

    monkeypatch.chdir(tmp_path)
    typed = ["experiment=smoke", "metric=biou", "tolerance=2", "proxy.iters=7", "space=paper"]
    RunFolder.create(tmp_path / "found", plain(compose("search", SearchConfig, typed)), {}).close()
    return tmp_path / "found"


def test_like_takes_the_budget_of_a_search(a_search, capsys):
    assert cli.main(["compare", "losses=[ce,lovasz]", f"like={a_search}", "data.seed=3", "--cfg"]) == 0
    out = capsys.readouterr().out
    assert "iters: 7" in out and "tolerance: 2" in out and "- biou" in out and "like: null" in out
    assert "seed: 3" in out and "- 48\n" in out and "name: paper" in out
    assert cli.main(["compare", "losses=[ce,lovasz]", f"like={a_search}", "metrics=[miou]", "--cfg"]) == 0
    assert "- biou" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["like=nowhere"], "nowhere"),
        (["like=found", "data=camvid"], "data: expected none beside like"),
        (["like=found", "proxy=paper"], "single keys such as proxy.iters"),
        (["like=found", "resume=found"], "like: expected none beside resume"),
        (["like=custom"], "custom, which has no budget in it"),
    ],
)
def test_what_like_refuses(a_search, typed, words, capsys):
    (a_search.parent / "custom").mkdir()
    (a_search.parent / "custom" / "config.yaml").write_text("schema: 1\nmetric: miou\nrounds: 3\n")
    assert cli.main(["compare", "losses=[ce,lovasz]", *typed]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "losses: expected at least two"),
        (["losses=ce,lovasz"], "Type losses=[ce,lovasz]."),
        (["losses=[ce,lovaz]"], "Did you mean lovasz"),
        (["losses=[jml,lovasz]"], "reference: expected one of the losses"),
        (["losses=[ce,lovasz]", "seeds=[1,1]"], "each seed once"),
        (["losses=[ce,lovasz]", "metrics=[miou,mio]"], "Did you mean miou"),
        (["losses=[ce,lovasz]", "metrics=[miou,miou]"], "metrics: expected one or more, each once"),
        (["losses=[ce,lovasz]", "split=train"], "split"),
        (["losses=[ce,nowhere/loss.json]"], "nowhere/loss.json"),
        (["losses=[ce,lovasz]", "experiment=smoke"], "got 'experiment'. autoseg compare --cfg prints every key."),
        (["losses=[ce,lovasz]", "seeds=3,4"], "Type seeds=[3,4]."),
        (["losses=[ce,lovasz]", "data=builtin,camvid"], "data: expected one value, got several: builtin,camvid. Quote"),
        (["losses=[ce,lovasz]", "retries=-1"], "retries"),
        (["resume=nowhere"], "nowhere"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_trained(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    small = ["data.count=[2,1,1]", "proxy.size=[32,32]"]
    assert cli.main(["compare", *small, *arguments]) == 2
    message = capsys.readouterr().err
    assert words in message and message.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_search_is_no_comparison(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("schema: 1\nmetric: miou\n")
    assert cli.main(["compare", f"resume={tmp_path}"]) == 2
    assert "which is of a search" in capsys.readouterr().err
