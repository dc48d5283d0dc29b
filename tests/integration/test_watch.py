"""`autoseg watch` on real processes: one that goes on, one that is killed, one that has ended."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from autoseg.cli import main

PROGRAM = Path(sys.executable).with_name("autoseg")
SEARCH = """
import pathlib, sys, time
import autoseg

calls = []

def train(loss, seed, device):
    calls.append(seed)
    while len(calls) > 1 and not pathlib.Path(sys.argv[2]).exists():  # all but the first wait to be let go
        time.sleep(0.05)
    return 0.5 + seed % 7 / 100

if __name__ == "__main__":
    autoseg.search("miou", train=train, num_classes=2, rounds=2, candidates=2, inline=True, run_dir=sys.argv[1],
                   confirm_top=1, confirm_seeds=1, rivals=["ce"], seed=3)
"""


def start(folder: Path) -> subprocess.Popen[bytes]:
    """A search that does no more than one training until the file `go` stands beside its folder."""
    return subprocess.Popen([sys.executable, "-c", SEARCH, str(folder), str(folder.with_name("go"))])


def watch(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([PROGRAM, "watch", str(folder), "--every", "0.1"], stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_search_is_watched_from_before_it_begins_then_killed_then_resumed(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    watching = watch(run)
    assert watching.stdout is not None
    assert "has not begun yet; waiting" in watching.stdout.readline()
    search = start(run)
    for line in watching.stdout:
        if line.startswith("1/6 trainings"):
            assert "at work: candidate 0.1" in line and "best" in line
            break
    search.send_signal(signal.SIGKILL)
    search.wait()
    out, _ = watching.communicate(timeout=60)
    assert watching.returncode == 1
    assert (
        f"process {search.pid} on " in out
        and "no longer works in it" in out
        and "the same call of autoseg.search" in out
    )

    before = {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}
    assert main(["watch", str(run), "--once"]) == 1
    assert "It has stopped" in capsys.readouterr().out
    assert {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()} == before

    run.with_name("go").touch()
    assert start(run).wait(timeout=120) == 0
    assert main(["watch", str(run)]) == 0  # of a run that has ended
    out = capsys.readouterr().out
    assert "round 2/2" in out and "6/6 trainings" in out and "loss.json" in out


@pytest.mark.slow
def test_ctrl_c_stops_the_watching_and_not_the_run(tmp_path):
    watching = watch(tmp_path)
    assert watching.stdout is not None
    watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    out, _ = watching.communicate(timeout=60)
    assert watching.returncode == 130 and "the run goes on" in out and "Traceback" not in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere/at/all"], "nowhere/at/all, which does not exist"),
        (["runx"], "Did you mean run1? A run that is yet to begin is waited for in an empty folder: mkdir -p runx"),
        (["runx", "--once"], "Did you mean run1?"),
        (["run", "--every", "0"], "--every: expected more than 0"),
        ([".", "--once"], "RUN: expected a run folder, or an empty one"),
    ],
)
def test_what_cannot_be_watched(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run1").mkdir()
    (tmp_path / "run1" / "config.yaml").touch()
    assert main(["watch", *arguments]) == 2
    assert words in capsys.readouterr().err
