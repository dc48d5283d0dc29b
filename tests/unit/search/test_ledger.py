from __future__ import annotations

import math
import sqlite3
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from toy_search import NAMES, outcome

from autoseg.errors import InputError
from autoseg.search.ledger import Ledger
from autoseg.search.records import TrialRecord

THIRD = 1.0 / 3.0
PLANNED = TrialRecord(2, 1, "candidate", "candidate 2.1", (THIRD, 0.0, 1.0), 5)


def test_planned_before_it_runs_and_whole_afterwards(quick_path: Path) -> None:
    path = quick_path / "trials.db"
    with Ledger(path, NAMES) as ledger:
        planned = ledger.add("search", [PLANNED])[0]
        assert planned.number == 0
        with Ledger(path, NAMES, read_only=True) as other:
            assert other.records("search") == [planned]  # on the disk already
        scores = {"biou": 0.1 + 0.2, "miou": THIRD}
        done = ledger.finish("search", planned, outcome(scores=scores, attempts=2), reward=0.25)
        assert (done.state, done.scores, done.reward, done.attempts) == ("complete", scores, 0.25, 2)
        assert ledger.find("search", done.key) == done
    with Ledger(path, NAMES) as again:
        assert again.records("search") == [done]  # every bit of θ and scores


@pytest.mark.parametrize("state", ["diverged", "failed", "timeout"])
def test_a_failure_is_a_state_and_has_no_value(quick_path: Path, state: str) -> None:
    path = quick_path / "trials.db"
    with Ledger(path, NAMES) as ledger:
        failed = outcome(state=state, scores={}, error="why")
        done = ledger.finish("search", ledger.add("search", [PLANNED])[0], failed, math.nan)
    with Ledger(path, NAMES) as again:
        (read,) = again.records("search")
    assert read.state == done.state == state and read.error == "why" and math.isnan(read.reward)
    (trial,) = optuna.load_study(study_name="search", storage=f"sqlite:///{path}").trials
    assert trial.state == optuna.trial.TrialState.FAIL and trial.value is None


def test_a_reward_that_is_not_finite_is_a_divergence(quick_path: Path) -> None:
    with Ledger(quick_path / "trials.db", NAMES) as ledger:
        done = ledger.finish("search", ledger.add("search", [PLANNED])[0], outcome(), math.inf)
    assert done.state == "diverged" and math.isnan(done.reward) and "not finite" in done.error


def test_a_nan_among_the_other_scores_is_kept(quick_path: Path) -> None:
    path = quick_path / "trials.db"
    with Ledger(path, NAMES) as ledger:
        scores = {"biou": 0.5, "bf1": math.nan}
        ledger.finish("search", ledger.add("search", [PLANNED])[0], outcome(scores=scores), 0.5)
    with Ledger(path, NAMES) as again:
        assert math.isnan(again.records("search")[0].scores["bf1"])
    text = sqlite3.connect(path).execute("select value_json from trial_user_attributes where key='scores'").fetchone()
    assert text[0] == '{"biou": 0.5, "bf1": null}'  # what every JSON reader takes


def test_it_is_an_optuna_study(quick_path: Path) -> None:
    path = quick_path / "trials.db"
    with Ledger(path, NAMES) as ledger:
        ledger.finish("search", ledger.add("search", [PLANNED])[0], outcome(), 0.5)
        rival = ledger.add("confirm", [TrialRecord(-1, 0, "rival", "ce", None, 77)])[0]
        ledger.finish("confirm", rival, outcome(), 0.4)
        assert ledger.records("confirm")[0].theta is None
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{path}")
    assert study.best_value == 0.5 and study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert study.best_params == {"theta.and.p1.x": THIRD, "theta.and.p1.y": 0.0, "theta.or.p1.x": 1.0}
    attributes = study.best_trial.user_attrs
    assert attributes["scores"] == {"biou": 0.5} and attributes["outcome"]["seconds"] == 1.5
    assert (attributes["round"], attributes["index"], attributes["seed"], attributes["kind"]) == (2, 1, 5, "candidate")


def test_interrupted_between_plan_and_result(quick_path: Path) -> None:
    path = quick_path / "trials.db"
    with Ledger(path, NAMES) as ledger:
        ledger.add("search", [PLANNED])
    with Ledger(path, NAMES) as again:
        (open_,) = again.records("search")
        assert open_.state == "running"
        assert again.finish("search", open_, outcome(), 0.5).state == "complete"


def test_reading_never_writes(quick_path: Path) -> None:
    path = quick_path / "trials.db"
    Ledger(path, NAMES).close()
    before = path.read_bytes()
    with Ledger(path, NAMES, read_only=True) as reader, pytest.raises(InputError):
        reader.add("search", [PLANNED])
    assert path.read_bytes() == before
    with pytest.raises(InputError, match=r"trials\.db: expected a file"):
        Ledger(quick_path / "none.db", NAMES, read_only=True)
    assert not (quick_path / "none.db").exists()


def test_a_file_that_is_no_ledger(quick_path: Path) -> None:
    path = quick_path / "trials.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(InputError, match="a readable ledger"):
        Ledger(path, NAMES)


def test_a_full_disk_is_one_message_and_loses_nothing(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = quick_path / "trials.db"
    with Ledger(path, NAMES) as ledger:
        done = ledger.finish("search", ledger.add("search", [PLANNED])[0], outcome(), 0.5)
    pages = sqlite3.connect(path).execute("pragma page_count").fetchone()[0]
    connect = sqlite3.dbapi2.connect

    def limited(*args: Any, **options: Any) -> sqlite3.Connection:  # SQLite's own way of running out of space
        connection = connect(*args, **options)
        connection.execute(f"pragma max_page_count={pages + 1}")
        return connection

    monkeypatch.setattr(sqlite3.dbapi2, "connect", limited)
    with Ledger(path, NAMES) as ledger, pytest.raises(InputError, match="disk: expected space for trials"):
        for index in range(100):
            ledger.add("search", [TrialRecord(3, index, "candidate", f"candidate 3.{index}", (0.1, 0.1, 0.1), 5)])
    monkeypatch.undo()
    with Ledger(path, NAMES) as again:
        assert again.records("search")[0] == done and len(again.records("search")) > 1


def test_optuna_reads_every_state_as_it_was_written(quick_path: Path) -> None:
    """The tables are written without Optuna: what its own API makes of them, types and times included."""
    path, now = quick_path / "trials.db", datetime.now()
    rungs = {20: 0.1, 40: math.nan, 60: math.inf, 80: -math.inf}
    results = [outcome(rungs=rungs), outcome(state="pruned", scores={}, rungs={20: 0.1}), outcome(state="failed")]
    with Ledger(path, NAMES) as ledger:
        planned = [replace(PLANNED, index=i, name=f"candidate 2.{i}") for i in range(4)]
        records = ledger.add("search", planned)
        for record, result in zip(records, results, strict=False):
            ledger.finish("search", record, result, 0.5)
        with pytest.raises(InputError, match="has a result already"):
            ledger.finish("search", records[0], results[0], 0.5)
    with Ledger(path, NAMES) as again:
        read = again.records("search")
    assert [r.number for r in read] == [0, 1, 2, 3] and abs(read[0].ended - now.timestamp()) < 60
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{path}")
    trials = study.trials
    assert [t.state.name for t in trials] == ["COMPLETE", "PRUNED", "FAIL", "RUNNING"]
    assert [t.number for t in trials] == [0, 1, 2, 3] and [t.value for t in trials] == [0.5, 0.5, None, None]
    assert repr(trials[0].intermediate_values) == repr({20: 0.1, 40: math.nan, 60: math.inf, 80: -math.inf})
    assert trials[0].distributions == dict.fromkeys(trials[0].params, FloatDistribution(0.0, 1.0))
    for trial in trials:
        assert trial.datetime_start is not None and abs((trial.datetime_start - now).total_seconds()) < 60
        assert (trial.datetime_complete is None) == (trial.state.name == "RUNNING")
    assert study.ask().number == 4  # and it can go on with it


def test_a_result_of_which_an_earlier_version_wrote_a_half(quick_path: Path) -> None:
    """Attributes were transactions of their own: a process killed between them left a running trial with scores."""
    path = quick_path / "trials.db"
    with Ledger(path, NAMES) as ledger:
        ledger.add("search", [PLANNED])
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{path}")
    study._storage.set_trial_user_attr(study.trials[0]._trial_id, "scores", {"biou": 0.9})
    with Ledger(path, NAMES) as again:
        (open_,) = again.records("search")
        assert open_.state == "running"
        done = again.finish("search", open_, outcome(), 0.5)
    with Ledger(path, NAMES) as last:
        assert last.records("search") == [done]


def test_a_plan_is_written_whole_or_not_at_all(quick_path: Path) -> None:
    path = quick_path / "trials.db"
    unreadable = replace(PLANNED, name="candidate 2.2", seed=object())  # type: ignore[arg-type]
    with Ledger(path, NAMES) as ledger:
        with pytest.raises(TypeError):
            ledger.add("search", [PLANNED, unreadable])
        assert ledger.records("search") == []
        assert ledger.add("search", [PLANNED])[0].number == 0
