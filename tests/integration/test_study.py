"""`python -m benchmarks.study`: the whole way on a few built-in images, gone on with, and refused."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import pytest

from benchmarks.study import __main__ as study
from benchmarks.study import efficiency, plan, retake, savings_table
from benchmarks.study.savings import SECOND, WARM
from benchmarks.study.savings_table import beside
from benchmarks.study.surface import DATA

FILES = {"", "-tpe", "-found", "-savings"}  # what a study of a metric leaves, as CSV


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["study", *words])
    return study.main()


def rows_of(folder: Path) -> dict[tuple[str, str], str]:
    """Candidate and training to its score."""
    with (folder / "builtin-miou-savings.csv").open() as lines:
        return {(row["candidate"], row["training"]): row["score"] for row in csv.DictReader(lines)}


@pytest.mark.slow
def test_the_tiny_study_from_trainings_to_tables_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {path: path.stat().st_mtime_ns for path in DATA.iterdir()}
    small = dataclasses.replace(plan.tiny()[0], rounds={"random": 1, "tpe": 1}, candidates=3, spread=3, seeds=1)
    monkeypatch.setattr(plan, "tiny", lambda: [small])
    monkeypatch.setattr(savings_table, "ORDERS", 2)
    few = {name: efficiency.ENTRANTS[name] for name in ("random", "cmaes", "ppo, per dimension")}
    monkeypatch.setattr(efficiency, "ENTRANTS", few)
    words = ["--tiny", "--folder", str(tmp_path / "study")]
    assert run(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    assert "[1/5] builtin-miou: search, controller random, 3 trainings" in said and "12 trainings, about" in said
    left = {path.name for path in (tmp_path / "study").glob("*.csv")}
    assert left == {f"builtin-miou{end}.csv" for end in FILES}
    for table, line in {"efficiency": "| cmaes |", "found": "| ce |", "savings": "| warm-up of a third |"}.items():
        assert line in (tmp_path / "study" / f"builtin-miou-{table}.md").read_text()

    kept_rows = rows_of(tmp_path / "study")
    told = retake.retake(small, WARM, tmp_path / "study", tmp_path / "again", "1")
    assert (
        "| warm-up of a third |" in told and told == (tmp_path / "again" / "builtin-miou-savings.md").read_text()[:-1]
    )
    taken = rows_of(tmp_path / "again")
    assert {k: v for k, v in taken.items() if k[1] not in (WARM, beside(WARM))} == {
        k: v for k, v in kept_rows.items() if k[1] != WARM
    }
    for (candidate, training), score in taken.items():  # the same seed on the same machine: the same scores
        assert score == kept_rows[candidate, SECOND if training == beside(WARM) else training]

    (tmp_path / "study" / "builtin-miou-savings.md").unlink()  # as if it had been stopped there
    assert run(monkeypatch, *words) == 0
    again = capsys.readouterr().out
    assert again.count(": done, ") == 4 and "autoseg search" not in again
    assert "[5/5] builtin-miou: savings" in again and "seed B: candidate" not in again  # nothing is trained twice
    assert (tmp_path / "study" / "builtin-miou-savings.md").is_file()
    assert {path: path.stat().st_mtime_ns for path in DATA.iterdir()} == kept


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "DATA WEIGHTS: expected CamVid"),
        (["nowhere"], "DATA WEIGHTS: expected CamVid"),
        (["nowhere", "weights.pth"], "nowhere"),
        (["--tiny", "--only", "camvid-miou"], "--only: expected builtin-miou, builtin-biou, got camvid-miou"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_trained(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *words) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_wrong_weights_are_told_before_anything_is_trained(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.pth").write_text("not a state dict")
    assert run(monkeypatch, str(shared_data / "camvid"), "weights.pth") == 2
    assert "weights" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"]
