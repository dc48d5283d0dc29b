"""The state of a run from its files alone: kinds, totals, who lives, what a killed process leaves."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from killed_writer import content, torn

from autoseg.cli import watch
from autoseg.cli.watch import Watch, metric_of, summary
from autoseg.errors import InputError
from autoseg.evidence.report.read import open_run
from autoseg.execution import Outcome
from autoseg.metrics import higher_is_better, names, own_metrics
from autoseg.search.confirm import fresh_seeds
from autoseg.store.ledger import STUDIES, Ledger
from autoseg.store.records import TrialRecord
from autoseg.store.run_files import read_config
from autoseg.store.run_folder import RunFolder
from autoseg.tracking.lines import training_line
from autoseg.tracking.status import DEAD, ERRORS, FINISHED, GOING, WAITING, read_status
from autoseg.tracking.terminal import plain_console

CONFIRM = {"top": 1, "seeds": 1, "rivals": ["ce"], "iters": None}
CONFIGS: dict[str, dict[str, Any]] = {
    "search": {
        "metric": "miou",
        "seed": 0,
        "search": {"rounds": 1, "candidates": 2, "floor": None, "confirm": CONFIRM},
        "controller": {"name": "ppo"},
    },
    "compare": {"losses": ["ce", "jml"], "metrics": ["miou"]},
    "trust": {"run": "runs/x"},
}


@contextmanager
def at_work(folder: RunFolder) -> Iterator[RunFolder]:
    """As if it were never closed, for those who look at it afterwards."""
    owner = folder.path / "owner.json"
    with folder:
        yield folder
        mine = owner.read_text()
    owner.write_text(mine)


def fill(path: Path, kind: str, done: int, waiting: int, study: str = "") -> None:
    """A run folder of this process with trainings in it."""
    exists = (path / "config.yaml").exists()
    with at_work(RunFolder.open(path, {}) if exists else RunFolder.create(path, CONFIGS[kind], {})) as folder:
        studies = STUDIES if kind == "search" else (kind,)
        with Ledger(folder.trials, (), studies=studies) as ledger:
            for i in range(done + waiting):
                record = TrialRecord(0 if study in ("", "search") else -1, i, "candidate", f"candidate 0.{i}", None, 1)
                record = ledger.add(study or kind, record)
                if i < done:
                    ledger.finish(study or kind, record, Outcome("complete", {"miou": 0.1 * i}, 2.0), 0.1 * i)


def confirm(path: Path, *names: str) -> None:
    """The trainings of a confirmation, done."""
    with at_work(RunFolder.open(path, {})) as folder, Ledger(folder.trials, ()) as ledger:
        for name in names:
            record = ledger.add("confirm", TrialRecord(-1, 0, "candidate", name, None, fresh_seeds(0, 1)[0]))
            ledger.finish("confirm", record, Outcome("complete", {"miou": 0.5}, 2.0), 0.5)


def owned_by(path: Path, pid: int, host: str = "") -> None:
    (path / "owner.json").write_text(json.dumps({"pid": pid, "host": host or socket.gethostname()}))


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_run_that_goes_on(kind: str, tmp_path: Path) -> None:
    assert read_status(tmp_path / "run") is None
    fill(tmp_path / "run", kind, 1, 1)
    status = read_status(tmp_path / "run")
    assert status is not None and (status.kind, status.state) == (kind, GOING)
    assert status.total == (2 + 3 if kind == "search" else 2)  # the confirmation is not planned yet
    assert [r.name for r in status.at_work] == ["candidate 0.1"] and len(status.done) == 1
    assert status.workers == 1 and status.seconds_left == pytest.approx(2.0 * (status.total - 1))
    assert "1/" in summary(status) and "at work: candidate 0.1" in summary(status)


def test_a_search_ends_with_its_confirmation(tmp_path: Path) -> None:
    fill(tmp_path / "run", "search", 2, 0)
    assert read_status(tmp_path / "run").state == GOING  # type: ignore[union-attr]
    confirm(tmp_path / "run", "candidate 0.1", "mean 1", "ce")
    status = read_status(tmp_path / "run")
    assert status is not None and (status.state, status.total) == (FINISHED, 5)
    assert status.best is not None and status.best.name == "candidate 0.1"


def test_an_earlier_confirmation_ends_no_search_with_more_rounds(tmp_path: Path) -> None:
    run, search = tmp_path / "run", CONFIGS["search"]["search"]
    fill(run, "search", 2, 0)
    confirm(run, "candidate 0.0", "mean 0", "ce")  # of another number of rounds
    status = read_status(run)
    assert status is not None and (status.state, status.total, len(status.done)) == (GOING, 5, 3)
    confirm(run, "candidate 0.1", "mean 1")
    status = read_status(run)
    assert status is not None and (status.state, status.total, len(status.done)) == (FINISHED, 5, 5)
    with at_work(RunFolder.open(run, {})) as folder:
        folder.write_config({**CONFIGS["search"], "search": {**search, "rounds": 2}})
    status = read_status(run)  # which losses it will confirm is not known yet
    assert status is not None and (status.state, status.total, len(status.done)) == (GOING, 7, 2)


@pytest.mark.parametrize(("kind", "result"), [("compare", "table.csv"), ("trust", "trust.csv")])
def test_other_runs_end_with_their_table(kind: str, result: str, tmp_path: Path) -> None:
    fill(tmp_path / "run", kind, 2, 0)
    assert read_status(tmp_path / "run").state == GOING  # type: ignore[union-attr]
    (tmp_path / "run" / result).write_text("")
    assert read_status(tmp_path / "run").state == FINISHED  # type: ignore[union-attr]


@pytest.mark.parametrize(("metric", "of_ce", "of_jml"), [("gacc", "30.0", 0.4), ("gacc+2*macc", "50.0", 0.8)])
def test_a_comparison_is_watched_under_the_metric_it_shows_now(
    metric: str, of_ce: str, of_jml: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trainings may have been made when another one came first; all are scored."""
    if metric == "gacc":
        monkeypatch.setitem(sys.modules, "autoseg.metrics", None)  # torch: not to be imported for one metric
    run = tmp_path / "run"
    fill(run, "compare", 0, 0)
    config = {**CONFIGS["compare"], "metrics": [metric, "miou"]}
    with at_work(RunFolder.open(run, {})) as folder, Ledger(folder.trials, (), studies=("compare",)) as ledger:
        folder.write_config(config)
        for name, scores in (
            ("ce", {"miou": 0.9, "gacc": 0.3, "macc": 0.1}),
            ("jml", {"miou": 0.2, "gacc": 0.4, "macc": 0.2}),
        ):
            record = ledger.add("compare", TrialRecord(-1, 0, "loss", name, None, 1))
            ledger.finish("compare", record, Outcome("complete", scores, 2.0), scores["miou"])
    status = read_status(run)
    assert status is not None and status.best is not None
    assert (status.best.name, status.best.reward) == ("jml", pytest.approx(of_jml))
    assert training_line(status.studies["compare"][0], metric_of(status)).startswith(f"ce  seed 1  {metric} {of_ce}")


def test_the_best_by_an_error_is_the_lowest(tmp_path: Path) -> None:
    fill(tmp_path / "run", "compare", 2, 0)
    with at_work(RunFolder.open(tmp_path / "run", {})) as folder:
        folder.write_config({**CONFIGS["compare"], "metrics": ["ece"]})
    status = read_status(tmp_path / "run")
    assert status is not None and status.best is not None and status.best.name == "candidate 0.0"
    own = {one.name for one in own_metrics()}  # of other tests
    assert set(ERRORS) == {name for name in names() if name not in own and not higher_is_better(name)}


def test_a_dead_process_is_told_from_a_living_one_and_from_one_elsewhere(tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    fill(run, "compare", 1, 1)
    child = os.fork()
    if not child:
        os._exit(0)
    time.sleep(0.2)
    owned_by(run, child)
    status = read_status(run)
    assert status is not None and status.state == DEAD  # a zombie
    assert status.at_work and "at work" not in summary(status)
    os.waitpid(child, 0)
    assert read_status(run).state == DEAD  # type: ignore[union-attr]
    assert Watch(run, plain_console()).follow(0.01) == 1
    assert f"autoseg compare resume={run}" in capsys.readouterr().out
    owned_by(run, os.getpid())
    old = time.time() - 1e6  # the lock was taken by an earlier process with this number
    os.utime(run / "owner.json", (old, old))
    assert read_status(run).state == DEAD  # type: ignore[union-attr]
    owned_by(run, child, "another-machine")
    status = read_status(run)
    assert status is not None and status.state == GOING and not status.silent
    for file in run.iterdir():
        os.utime(file, (old, old))
    status = read_status(run)
    assert status is not None and status.state == GOING and status.silent
    assert Watch(run, plain_console()).once() == 0
    assert "it may have stopped" in capsys.readouterr().out


def test_a_run_on_another_machine_that_is_silent_is_said_to_be_once(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, looks = tmp_path / "run", 0
    fill(run, "compare", 1, 1)
    owned_by(run, 1, "another-machine")
    for file in run.iterdir():
        os.utime(file, (1e9, 1e9))

    def sleep(_: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    assert watch.run("watch", [str(run)]) == 130
    assert capsys.readouterr().out.count("process 1 on another-machine has been silent for") == 1
    for every in ("nan", "inf", "0"):
        with pytest.raises(InputError, match="--every: expected more than 0 seconds"):
            watch.run("watch", [str(run), "--every", every])


def test_a_run_that_its_process_left_has_stopped(tmp_path: Path, capsys) -> None:
    """A notebook's kernel lives on after a search in it has failed; of a machine elsewhere nothing else is known."""
    run = tmp_path / "run"
    fill(run, "compare", 1, 1)
    assert read_status(run).state == GOING  # type: ignore[union-attr]
    RunFolder.open(run, {}).close()
    assert read_status(run).state == DEAD  # type: ignore[union-attr]
    assert Watch(run, plain_console()).once() == 1
    assert f"process {os.getpid()} on {socket.gethostname()} no longer works in it" in capsys.readouterr().out
    owner = json.loads((run / "owner.json").read_text())
    (run / "owner.json").write_text(json.dumps({**owner, "host": "another-machine"}))
    assert read_status(run).state == DEAD  # type: ignore[union-attr]


def test_a_clock_that_is_set_makes_no_living_process_dead(tmp_path: Path) -> None:
    run = tmp_path / "run"
    fill(run, "compare", 1, 1)
    old = time.time() - 3600.0  # as if the clock, an hour slow when the run began, had been put right
    os.utime(run / "owner.json", (old, old))
    assert read_status(run).state == GOING  # type: ignore[union-attr]
    owner = json.loads((run / "owner.json").read_text())
    (run / "owner.json").write_text(json.dumps({**owner, "began": owner["began"] - 1}))  # an earlier process's number
    assert read_status(run).state == DEAD  # type: ignore[union-attr]


def test_a_full_training_is_told_as_that(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", {"loss": "ce", "train": {"iters": 1}}, {}).close()
    for read in (read_status, open_run):
        with pytest.raises(InputError, match=r"^RUN: expected the folder of a search or .*which is of a training by"):
            read(tmp_path / "run")


def test_before_anything_is_planned(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", CONFIGS["search"], {}):
        status = read_status(tmp_path / "run")
    assert status is not None and status.state == WAITING and status.seconds_left is None
    assert summary(status) == "0/5 trainings"


def test_what_a_process_killed_while_writing_leaves_can_be_read(tmp_path: Path) -> None:
    fill(tmp_path / "run", "compare", 1, 1)
    run = torn(tmp_path / "run", tmp_path / "torn")
    before = content(run)
    status = read_status(run)
    assert status is not None and [len(status.done), len(status.records)] == [1, 2]
    assert content(run) == before


def test_a_run_without_one_of_todays_settings_is_one_message(tmp_path: Path) -> None:
    fill(tmp_path / "run", "search", done=2, waiting=0)
    config = tmp_path / "run" / "config.yaml"
    config.write_text("".join(line for line in config.open() if "seed:" not in line))
    with pytest.raises(InputError, match=r"all its settings.*'seed'.*another version"):
        read_status(tmp_path / "run")


@pytest.mark.parametrize("kind", ["search", "compare"])
def test_a_run_of_an_earlier_version_has_the_defaults_of_later_settings(kind: str, tmp_path: Path) -> None:
    fill(tmp_path / "run", kind, done=2, waiting=0)
    config = tmp_path / "run" / "config.yaml"
    config.write_text("".join(line for line in config.open() if "iters:" not in line))
    assert read_status(tmp_path / "run").state == GOING  # type: ignore[union-attr]
    found = read_config(tmp_path / "run")
    if kind == "compare":
        assert (found["interval"], found["metrics"], found["losses"]) == ("t", ["miou"], ["ce", "jml"])
    else:
        assert found["search"]["confirm"] == CONFIRM and "data" not in found


@pytest.mark.parametrize("many", [10**9, float("inf")])
def test_a_run_that_asks_for_a_billion_seeds_is_one_message(many: float, tmp_path: Path) -> None:
    fill(tmp_path / "run", "search", done=2, waiting=0)
    asked = {**CONFIGS["search"]["search"], "confirm": {**CONFIRM, "seeds": many}}
    with RunFolder.open(tmp_path / "run", {}) as folder:
        folder.write_config({**CONFIGS["search"], "search": asked})
    with pytest.raises(InputError, match=r"search\.confirm\.seeds: expected"):
        read_status(tmp_path / "run")


def test_names_in_a_run_give_a_terminal_no_orders(tmp_path: Path, capsys) -> None:
    title = "\x1b]0;x\x07"
    with at_work(RunFolder.create(tmp_path / "run", {**CONFIGS["search"], "metric": f"a{title}"}, {})) as folder:
        with Ledger(folder.trials, ()) as ledger:
            for i, state in enumerate(["complete", "failed"]):
                record = ledger.add("search", TrialRecord(0, i, "candidate", f"b{i}{title}", None, 1))
                outcome = Outcome(state, {"miou": 0.5}, 2.0, error="" if state == "complete" else f"c{title}")
                record = ledger.finish("search", record, outcome, 0.5)
                assert "\x1b" not in training_line(record, "miou")
    watch = Watch(tmp_path / "run", plain_console())
    watch.once()
    out = capsys.readouterr().out
    assert "\x1b" not in out and r"a\x1b]0;x\x07 in" in out and r"(b0\x1b]0;x\x07)" in out


def test_a_damaged_ledger_is_named_by_its_own_path(tmp_path: Path) -> None:
    fill(tmp_path / "run", "search", done=2, waiting=0)
    with (tmp_path / "run" / "trials.db").open("r+b") as file:
        file.write(b"x" * 8192)
    with pytest.raises(InputError) as training_line:
        read_status(tmp_path / "run")
    assert training_line.value.field == str(tmp_path / "run" / "trials.db")
