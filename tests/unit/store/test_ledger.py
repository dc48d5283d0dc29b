from __future__ import annotations

import contextlib
import math
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from killed_writer import content, torn
from sqlalchemy import event
from toy_search import NAMES, outcome

from autoseg.errors import InputError
from autoseg.store.ledger import Ledger
from autoseg.store.records import TrialRecord

THIRD = 1.0 / 3.0
PLANNED = TrialRecord(2, 1, "candidate", "candidate 2.1", (THIRD, 0.0, 1.0), 5)


def test_planned_before_it_runs_and_whole_afterwards(quick_path: Path) -> None:
    path = quick_path / "trials.db"
    with Ledger(path, NAMES) as ledger:
        planned = ledger.add("search", PLANNED)
        assert planned.number == 0
        with Ledger(path, NAMES, read_only=True) as other:
            assert repr(other.records("search")) == repr([planned])  # on the disk already; NaN equals nothing
        scores = {"biou": 0.1 + 0.2, "miou": THIRD}
        done = ledger.finish("search", planned, outcome(scores=scores, attempts=2), reward=0.25)
        assert (done.state, done.scores, done.reward, done.attempts) == ("complete", scores, 0.25, 2)
        assert ledger.find("search", done.key) == done
    with Ledger(path, NAMES) as again:
        (read,) = again.records("search")
    assert read == done  # every bit of θ and scores
    assert read.ended == done.ended and abs(read.ended - time.time()) < 600


def test_a_training_that_is_no_longer_asked_for_is_none_for_a_reader_either(quick_path: Path) -> None:
    path = quick_path / "trials.db"
    with Ledger(path, NAMES) as ledger:
        ledger.drop("search", ledger.add("search", PLANNED))
        assert ledger.records("search") == []
        with Ledger(path, NAMES, read_only=True) as other:
            assert other.records("search") == [] and other.planned("search") == 1
        assert ledger.add("search", PLANNED).number == 1  # asked for again


@contextlib.contextmanager
def locked(path: Path, seconds: float) -> Iterator[None]:
    """Another program writes for so long."""
    with contextlib.closing(sqlite3.connect(path, check_same_thread=False, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        release = threading.Timer(seconds, other.execute, ["ROLLBACK"])
        release.start()
        yield
        release.join()


def test_optuna_prints_nothing_and_goes_on_as_the_user_set_it(quick_path: Path, capfd: pytest.CaptureFixture) -> None:
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    try:
        with Ledger(quick_path / "trials.db", NAMES):
            pass
        assert capfd.readouterr().err == "" and optuna.logging.get_verbosity() == optuna.logging.DEBUG
    finally:
        optuna.logging.set_verbosity(optuna.logging.INFO)


def test_a_file_that_another_program_has_locked_is_waited_for(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where SQLite does not wait by itself, as over some network file systems."""
    monkeypatch.setattr("autoseg.store.ledger.BUSY_S", 0.0)
    path = quick_path / "trials.db"
    Ledger(path, NAMES).close()
    with locked(path, 0.3), Ledger(path, NAMES) as ledger:
        planned = ledger.add("search", PLANNED)
        with locked(path, 0.3):
            done = ledger.finish("search", planned, outcome(rungs={3: 0.5}), 0.5)
    with Ledger(path, NAMES) as again:
        assert again.records("search") == [done]


def test_a_file_that_stays_locked_ends_the_run_with_what_to_do(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoseg.store.ledger.BUSY_S", 0.0)
    monkeypatch.setattr("autoseg.store.ledger.WRITE_S", 0.2)
    path = quick_path / "trials.db"
    with Ledger(path, NAMES) as ledger:
        planned = ledger.add("search", PLANNED)
        with locked(path, 1.0), pytest.raises(InputError, match="Another program has it open"):
            ledger.finish("search", planned, outcome(), 0.5)
        assert ledger.find("search", planned.key) == planned  # no result that is not on the disk


def test_a_file_that_became_read_only_is_said_to_be(quick_path: Path) -> None:
    path = quick_path / "trials.db"
    with Ledger(path, NAMES) as ledger:
        planned = ledger.add("search", PLANNED)
        ledger.close()  # the next connection is a new one; permissions do not stop root, who may run this
        event.listen(ledger._storage.engine, "connect", lambda made, _: made.execute("PRAGMA query_only = ON"))
        with pytest.raises(
            InputError,
            match=r"can be written, got .*: \(.*\) attempt to write a readonly database\. All results so far are",
        ):
            ledger.finish("search", planned, outcome(), 0.5)


def test_a_quota_is_not_called_a_damaged_ledger(quick_path: Path) -> None:
    """SQLite has words of its own for a full disk alone."""
    with Ledger(quick_path / "trials.db", NAMES) as ledger:
        with pytest.raises(InputError, match=r"can be written, got .*: disk I/O error\. All results so far are kept"):
            with ledger._faults():
                raise RuntimeError("(sqlite3.OperationalError) [SQL: INSERT]") from sqlite3.OperationalError(
                    "disk I/O error"
                )


@pytest.mark.parametrize("state", ["diverged", "failed", "timeout"])
def test_a_failure_is_a_state_and_has_no_value(quick_path: Path, state: str) -> None:
    path = quick_path / "trials.db"
    with Ledger(path, NAMES) as ledger:
        failed = outcome(state=state, scores={}, error="why")
        done = ledger.finish("search", ledger.add("search", PLANNED), failed, math.nan)
    with Ledger(path, NAMES) as again:
        (read,) = again.records("search")
    assert read.state == done.state == state and read.error == "why" and math.isnan(read.reward)
    (trial,) = optuna.load_study(study_name="search", storage=f"sqlite:///{path}").trials
    assert trial.state == optuna.trial.TrialState.FAIL and trial.value is None


def test_half_a_character_in_what_a_training_said_leaves_the_file_readable(quick_path: Path) -> None:
    """Such as the name of a file that is not UTF-8, in the error of the user's own code."""
    path = quick_path / "trials.db"
    with Ledger(path, NAMES) as ledger:
        said = outcome(scores={"biou": 0.5, "caf\udce9": 0.5}, error="no caf\udce9.jpg")
        done = ledger.finish("search", ledger.add("search", PLANNED), said, 0.5)
    with Ledger(path, NAMES) as again:
        assert again.records("search") == [done]
    assert done.error == r"no caf\udce9.jpg" and list(done.scores) == ["biou", r"caf\udce9"]


@pytest.mark.parametrize("reward", [math.inf, math.nan, -1e308, 1e100])
def test_a_reward_that_no_mean_can_be_taken_of_is_a_divergence(reward: float, quick_path: Path) -> None:
    with Ledger(quick_path / "trials.db", NAMES) as ledger:
        done = ledger.finish("search", ledger.add("search", PLANNED), outcome(), reward)
    assert done.state == "diverged" and math.isnan(done.reward) and "not finite" in done.error


def test_a_nan_among_the_other_scores_is_kept(quick_path: Path) -> None:
    path = quick_path / "trials.db"
    with Ledger(path, NAMES) as ledger:
        scores = {"biou": 0.5, "bf1": math.nan, "area": 1e308}
        ledger.finish("search", ledger.add("search", PLANNED), outcome(scores=scores), 0.5)
    with Ledger(path, NAMES) as again:
        kept = again.records("search")[0].scores
    assert math.isnan(kept["bf1"]) and math.isnan(kept["area"])
    text = sqlite3.connect(path).execute("select value_json from trial_user_attributes where key='scores'").fetchone()
    assert text[0] == '{"biou": 0.5, "bf1": null, "area": null}'  # what every JSON reader takes


def test_it_is_an_optuna_study(quick_path: Path) -> None:
    path = quick_path / "trials.db"
    with Ledger(path, NAMES) as ledger:
        ledger.finish("search", ledger.add("search", PLANNED), outcome(), 0.5)
        rival = ledger.add("confirm", TrialRecord(-1, 0, "rival", "ce", None, 77))
        ledger.finish("confirm", rival, outcome(), 0.4)
        assert ledger.records("confirm")[0].theta is None
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{path}")
    assert study.best_value == 0.5 and study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert study.best_params == {"theta.and.p1.x": THIRD, "theta.and.p1.y": 0.0, "theta.or.p1.x": 1.0}
    attributes = study.best_trial.user_attrs
    assert attributes["scores"] == {"biou": 0.5} and attributes["outcome"]["seconds"] == 1.5
    assert (attributes["round"], attributes["index"], attributes["seed"], attributes["kind"]) == (2, 1, 5, "candidate")


def test_what_other_programs_add_to_the_study_is_left_alone(quick_path: Path) -> None:
    """Trials of a dashboard or a notebook are none of ours; one of ours that was told to have failed is run again."""
    path = quick_path / "trials.db"
    with Ledger(path, NAMES) as ledger:
        done = ledger.finish("search", ledger.add("search", PLANNED), outcome(), 0.5)
        ledger.add("search", replace(PLANNED, name="candidate 2.2"))
    study = optuna.load_study(study_name="search", storage=f"sqlite:///{path}")
    study.tell(1, state=optuna.trial.TrialState.FAIL)  # as one clears what a kill has left
    study.enqueue_trial({"theta.and.p1.x": 0.5})
    own = study.ask()
    own.set_user_attr("seed", "mine")
    own.suggest_float("theta.and.p1.x", 0.0, 1.0)
    study.tell(own, 0.9)
    for read_only in (True, False):
        with Ledger(path, NAMES, read_only=read_only) as ledger:
            assert ledger.records("search") == [done]
    with Ledger(path, NAMES) as ledger:
        again = ledger.add("search", replace(PLANNED, name="candidate 2.2"))
        again = ledger.finish("search", again, outcome(), 0.25)
        assert ledger.records("search") == [done, again]
    with Ledger(path, NAMES) as ledger:
        assert ledger.records("search") == [done, again]


def test_interrupted_between_plan_and_result(quick_path: Path) -> None:
    path = quick_path / "trials.db"
    with Ledger(path, NAMES) as ledger:
        ledger.add("search", PLANNED)
    with Ledger(path, NAMES) as again:
        (open_,) = again.records("search")
        assert open_.state == "running"
        assert again.finish("search", open_, outcome(), 0.5).state == "complete"


def test_reading_never_writes(quick_path: Path) -> None:
    path = quick_path / "trials.db"
    Ledger(path, NAMES).close()
    before = path.read_bytes()
    with Ledger(path, NAMES, read_only=True) as reader, pytest.raises(InputError):
        reader.add("search", PLANNED)
    assert path.read_bytes() == before
    with pytest.raises(InputError, match=r"trials\.db: expected a file"):
        Ledger(quick_path / "none.db", NAMES, read_only=True)
    assert not (quick_path / "none.db").exists()


def test_what_a_killed_writer_left_is_read_as_it_was_before_that_write(quick_path: Path) -> None:
    (quick_path / "run").mkdir()
    with Ledger(quick_path / "run" / "trials.db", NAMES) as ledger:
        done = ledger.finish("search", ledger.add("search", PLANNED), outcome(), 0.5)
    run = torn(quick_path / "run", quick_path / "torn")
    before = content(run)
    for _ in range(2):  # by those who look, and they leave it to the next writer to undo that
        with Ledger(run / "trials.db", NAMES, read_only=True) as ledger:
            assert ledger.records("search") == [done]
        assert content(run) == before
    with Ledger(run / "trials.db", NAMES) as ledger:
        assert ledger.records("search") == [done]


@pytest.mark.parametrize("name", ["a#b", "a?mode=rwc&b", "a%20b", "{a}", "a b'\"ü"])
def test_a_folder_of_any_name(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    path = Path(name) / "trials.db"
    with Ledger(path, NAMES) as ledger:
        ledger.add("search", PLANNED)
    with Ledger(path, NAMES, read_only=True) as ledger:
        assert len(ledger.records("search")) == 1
    assert [one.name for one in tmp_path.iterdir()] == [name] and [one.name for one in Path(name).iterdir()] == [
        path.name
    ]


def test_a_file_that_is_no_ledger(quick_path: Path) -> None:
    path = quick_path / "trials.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(InputError, match="a readable ledger"):
        Ledger(path, NAMES)


@pytest.mark.parametrize(
    "change",
    [
        "CREATE VIEW trial_values AS WITH RECURSIVE r(trial_id, value) AS (SELECT 1, 1.0 UNION ALL SELECT trial_id,"
        " value + 1 FROM r) SELECT * FROM r",
        "CREATE TRIGGER t AFTER INSERT ON trials BEGIN DELETE FROM trials; END",
        "CREATE TABLE trial_values (trial_id INTEGER, value AS (zeroblob(1000000000)))",
    ],
)
def test_a_ledger_computes_nothing(quick_path: Path, change: str) -> None:
    path = quick_path / "trials.db"
    with Ledger(path, NAMES) as ledger:
        ledger.finish("search", ledger.add("search", PLANNED), outcome(), 0.5)
    with contextlib.closing(sqlite3.connect(path)) as tables:
        if "trial_values" in change:
            tables.execute("ALTER TABLE trial_values RENAME TO other")
        tables.execute(change)
        tables.commit()
    for read_only in (False, True):
        with pytest.raises(InputError, match=r"trials\.db.*which no ledger has"):
            Ledger(path, NAMES, read_only=read_only)


@pytest.mark.parametrize("value", [b"\x80\x04pickled", "not JSON", "[1]"])
def test_a_row_that_is_not_ours_is_one_message(quick_path: Path, value: bytes | str) -> None:
    path = quick_path / "trials.db"
    with Ledger(path, NAMES) as ledger:
        ledger.finish("search", ledger.add("search", PLANNED), outcome(), 0.5)
    with sqlite3.connect(path) as tables:
        tables.execute("update trial_user_attributes set value_json = ? where key = 'outcome'", (value,))
    for read_only in (False, True):
        with pytest.raises(InputError, match=r"trials\.db.*damaged"):
            Ledger(path, NAMES, read_only=read_only)


@pytest.mark.parametrize(
    "damage",
    [
        "set value_json = '{\"biou\": \"x\"}' where key = 'scores'",
        "set value_json = '{\"biou\": {\"a\": 1}}' where key = 'scores'",
        "set value_json = '{\"biou\": 1e308}' where key = 'scores'",
        "set value_json = '7' where key = 'name'",
        "set value_json = '\"\\ud800\"' where key = 'name'",
        "set value_json = '\"0\"' where key = 'round'",
        """set value_json = replace(value_json, 'seconds": ', 'seconds": 1e999, "x": ') where key = 'outcome'""",
        """set value_json = replace(value_json, 'error": ""', 'error": []') where key = 'outcome'""",
        "set param_value = 'x'",
        "set param_value = x'00ff'",
    ],
)
def test_values_of_another_kind_are_one_message(quick_path: Path, damage: str) -> None:
    path = quick_path / "trials.db"
    with Ledger(path, NAMES) as ledger:
        ledger.finish("search", ledger.add("search", PLANNED), outcome(), 0.5)
    with sqlite3.connect(path) as tables:
        table = "trial_user_attributes" if "value_json" in damage else "trial_params"
        assert tables.execute(f"update {table} {damage}").rowcount
    with pytest.raises(InputError, match=r"trials\.db.*damaged"):
        Ledger(path, NAMES, read_only=True)


def test_a_full_disk_is_one_message_and_loses_nothing(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = quick_path / "trials.db"
    with Ledger(path, NAMES) as ledger:
        done = ledger.finish("search", ledger.add("search", PLANNED), outcome(), 0.5)
    pages = sqlite3.connect(path).execute("pragma page_count").fetchone()[0]
    connect = sqlite3.dbapi2.connect

    def limited(*args: Any, **options: Any) -> sqlite3.Connection:  # SQLite's own way of running out of space
        connection = connect(*args, **options)
        connection.execute(f"pragma max_page_count={pages + 1}")
        return connection

    monkeypatch.setattr(sqlite3.dbapi2, "connect", limited)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # Optuna tries again for some seconds
    with Ledger(path, NAMES) as ledger, pytest.raises(InputError, match="disk: expected space for trials"):
        for index in range(100):
            ledger.add("search", TrialRecord(3, index, "candidate", f"candidate 3.{index}", (0.1, 0.1, 0.1), 5))
    monkeypatch.undo()
    with Ledger(path, NAMES) as again:
        assert again.records("search")[0] == done and len(again.records("search")) > 1
