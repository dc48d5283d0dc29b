"""`autoseg watch` on real processes: one that goes on, one that is killed, one that has ended."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from commands import Started, start

from autoseg.cli import main


def search(folder: str) -> None:
    """A search that does no more than one training until the file `go` stands beside its folder."""
    import autoseg

    calls, go = [], Path(folder).with_name("go")

    def train(loss, seed, device):
        calls.append(seed)
        while len(calls) > 1 and not go.exists():
            time.sleep(0.05)
        return 0.5 + seed % 7 / 100

    few = {"rounds": 2, "candidates": 2, "confirm_top": 1, "confirm_seeds": 1, "rivals": ["ce"]}
    autoseg.search("miou", train=train, num_classes=2, inline=True, run_dir=folder, seed=3, **few)


@pytest.mark.slow
def test_a_search_is_watched_from_before_it_begins_then_killed_then_resumed(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    watching = start(tmp_path, "watch", str(run), "--every", "0.1")
    watching.wait_for("has not begun yet; waiting")
    searching = Started(search, (str(run),), tmp_path)
    watching.wait_for("1/6 trainings")
    searching.send_signal(signal.SIGKILL)
    searching.wait()
    watched = watching.wait(60)
    assert watched.returncode == 1
    progress = next(line for line in watched.stdout.splitlines() if line.startswith("1/6 trainings"))
    assert "at work: candidate 0.1" in progress and "best" in progress
    for words in (f"process {searching.pid} on ", "no longer works in it", "the same call of autoseg.search"):
        assert words in watched.stdout

    before = {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()}
    assert main(["watch", str(run), "--once"]) == 1
    assert "It has stopped" in capsys.readouterr().out
    assert {file.name: file.read_bytes() for file in run.iterdir() if file.is_file()} == before

    run.with_name("go").touch()
    assert Started(search, (str(run),), tmp_path).wait().returncode == 0
    assert main(["watch", str(run)]) == 0  # of a run that has ended
    out = capsys.readouterr().out
    assert "round 2/2" in out and "6/6 trainings" in out and "loss.json" in out


@pytest.mark.slow
def test_ctrl_c_stops_the_watching_and_not_the_run(tmp_path):
    watching = start(tmp_path, "watch", str(tmp_path), "--every", "0.1")
    watching.wait_for("waiting")
    watching.send_signal(signal.SIGINT)
    watched = watching.wait(60)
    assert watched.returncode == 130 and "the run goes on" in watched.stdout and "Traceback" not in watched.stderr


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
