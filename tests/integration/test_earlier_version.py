"""A run that version 0.1.0 wrote is read and gone on with, as README promises of runs of earlier versions."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from autoseg.cli import main
from autoseg.losses import LossCard
from autoseg.store.ledger import Ledger
from autoseg.store.records import TrialRecord
from autoseg.surrogates import build_space

KEPT = Path(__file__).with_name("run_of_0.1.0")


def records(study: str) -> list[TrialRecord]:
    with Ledger(Path("run/trials.db"), build_space("default", metric="miou").names, read_only=True) as ledger:
        return ledger.records(study)


@pytest.mark.slow
def test_a_kept_run_is_read_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(KEPT, "run")
    config = Path("run/config.yaml").read_text(encoding="utf-8")
    Path("run/config.yaml").write_text(config.replace("cache_dir: null", f"cache_dir: {tmp_path / 'cache'}"))
    with closing(sqlite3.connect("run/trials.db")) as database:
        database.executescript(Path("run/trials.sql").read_text(encoding="utf-8"))
    known = records("search")
    assert [record.name for record in known] == [f"candidate {name}" for name in ("0.0", "0.1", "1.0", "1.1")]

    assert main(["report", "run", "-o", "page.html"]) == 0 and "candidate 0.0" in Path("page.html").read_text()
    assert main(["watch", "run", "--once"]) == 0 and "6/6 trainings" in capsys.readouterr().out
    assert main(["export", "run", "--candidate", "1.1", "--format", "python", "-o", "other.py"]) == 0
    assert main(["compare", "losses=[ce,run]", "like=run", "--cfg"]) == 0
    assert main(["trust", "run", "candidates=2", "--cfg"]) == 0

    assert main(["search", "resume=run", "search.rounds=3"]) == 0
    found, confirmed = records("search"), records("confirm")
    assert found[:4] == known and [record.round for record in found[4:]] == [2, 2]
    assert all(record.state == "complete" for record in (*found, *confirmed))
    assert LossCard.load("run/loss.json").confirmed
