"""kill -9 at any moment, then resume, ends like a run that was never stopped: real processes, real SQLite."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from autoseg.store.ledger import Ledger

SCRIPT = Path(__file__).with_name("toy_run.py")
NAMES = ("and.p1.x", "and.p1.y", "or.p1.x")
pytestmark = pytest.mark.slow


def start(folder: Path, rounds: int, controller: str, *killed_after: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPT), str(folder), str(rounds), controller, *map(str, killed_after)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def winner(folder: Path, rounds: int, controller: str) -> str:
    """Run to the end; returns the line about the winner."""
    out, errors = (process := start(folder, rounds, controller)).communicate(timeout=240)
    assert process.returncode == 0, errors
    return next(line for line in out.splitlines() if line.startswith("winner"))


def killed(folder: Path, rounds: int, controller: str, results: int) -> None:
    """Run until it is killed a moment after so many results, of those before included."""
    out, errors = (process := start(folder, rounds, controller, results)).communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL, errors
    found, confirmed, _ = essence(folder)
    done = sum(state == "complete" for *_, state in (*found, *confirmed))
    whole = out[: out.rindex("\n")]  # the last line may have been cut off
    assert 0 < results <= done < int(whole.split()[-1]), out


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
    assert first.stdout is not None
    first.stdout.readline()
    second = start(tmp_path / "run", 40, "toy")
    _, errors = second.communicate(timeout=60)
    first.kill()
    first.communicate()
    assert second.returncode == 1 and f"got process {first.pid} on " in errors.strip().splitlines()[-1]


def test_interrupted_from_the_keyboard(tmp_path: Path) -> None:
    process = start(tmp_path / "run", 40, "toy")
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert errors.count("Traceback") == 1 and errors.strip().endswith("KeyboardInterrupt")
