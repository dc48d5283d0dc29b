"""kill -9 at any moment, then resume, ends like a run that was never stopped: real processes, real SQLite."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import toy_run
from commands import Started

from autoseg.store.ledger import Ledger

NAMES = ("and.p1.x", "and.p1.y", "or.p1.x")
pytestmark = pytest.mark.slow


def start(folder: Path, rounds: int, controller: str, *killed_after: int) -> Started:
    return Started(toy_run.run, (str(folder), str(rounds), controller, *map(str, killed_after)), folder.parent)


def winner(folder: Path, rounds: int, controller: str) -> str:
    """Run to the end; returns the line about the winner."""
    done = start(folder, rounds, controller).wait()
    assert done.returncode == 0, done.stderr
    return next(line for line in done.stdout.splitlines() if line.startswith("winner"))


def killed(folder: Path, rounds: int, controller: str, results: int) -> None:
    """Run until it is killed a moment after so many results, of those before included."""
    cut = start(folder, rounds, controller, results).wait()
    assert cut.returncode == -signal.SIGKILL, cut.stderr
    found, confirmed, _ = essence(folder)
    done = sum(state == "complete" for *_, state in (*found, *confirmed))
    whole = cut.stdout[: cut.stdout.rindex("\n")]  # the last line may have been cut off
    assert 0 < results <= done < int(whole.split()[-1]), whole


def essence(folder: Path) -> tuple[Any, ...]:
    """What must be equal: ordered (round, index, θ, scores), what was confirmed, all controller states."""
    with Ledger(folder / "trials.db", NAMES, read_only=True) as ledger:
        found = [(r.round, r.index, r.theta, r.scores, r.state) for r in ledger.records("search")]
        confirmed = sorted((r.name, r.seed, str(r.scores), r.state) for r in ledger.records("confirm"))
    states = {file.name: json.loads(file.read_text()) for file in folder.glob("controller/round_*.json")}
    return found, confirmed, states


def test_killed_again_and_again(tmp_path: Path) -> None:
    """In the first round, the second and the confirmation."""
    expected = winner(tmp_path / "whole", 3, "toy")
    for results in (1, 5, 13):
        killed(tmp_path / "run", 3, "toy", results)
    assert len(essence(tmp_path / "run")[1]) > 0
    assert winner(tmp_path / "run", 3, "toy") == expected
    assert essence(tmp_path / "run") == essence(tmp_path / "whole")


@pytest.mark.parametrize("controller", ["cmaes", "tpe", "gp"])
def test_killed_under_a_real_controller_and_resumed_with_more_rounds(tmp_path: Path, controller: str) -> None:
    expected = winner(tmp_path / "whole", 4, controller)
    killed(tmp_path / "run", 2, controller, 5)
    assert winner(tmp_path / "run", 4, controller) == expected
    found, _, states = essence(tmp_path / "run")
    whole, _, whole_states = essence(tmp_path / "whole")
    assert found == whole and states == whole_states


def test_two_processes_on_one_folder(tmp_path: Path) -> None:
    winner(tmp_path / "run", 1, "toy")
    first = start(tmp_path / "run", 40, "toy")
    first.wait_for("started")
    second = start(tmp_path / "run", 40, "toy").wait(60)
    first.send_signal(signal.SIGKILL)
    first.wait(60)
    assert second.returncode == 1 and f"got process {first.pid} on " in second.stderr.strip().splitlines()[-1]


def test_interrupted_from_the_keyboard(tmp_path: Path) -> None:
    process = start(tmp_path / "run", 40, "toy")
    process.wait_for("started")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    errors = process.wait(30).stderr
    assert errors.count("Traceback") == 1 and errors.strip().endswith("KeyboardInterrupt")
