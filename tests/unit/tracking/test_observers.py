"""Every observer on the same short search: what it prints, writes, and how it leaves."""

from __future__ import annotations

import dataclasses
import io
import logging
import math
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from autoseg.config import TrackerConfig
from autoseg.errors import InputError
from autoseg.search.observer import Amount, Observer, Observers, Plan, Progress, RoundSummary, expected_seconds
from autoseg.store.records import Finding, SearchResult, TrialRecord, duration, percent
from autoseg.store.run_folder import only_own_files
from autoseg.tracking import Log, Terminal, build_observers
from autoseg.tracking.log import candidate_values
from autoseg.tracking.terminal import plain_console

GOOD = TrialRecord(0, 0, "candidate", "candidate 0.0", (0.5,), 7, "complete", {"miou": 0.4}, 0.4, 3.0, 1)
BAD = TrialRecord(0, 1, "candidate", "candidate 0.1", (0.1,), 7, "diverged", error="the loss is nan [1]")


def play(observer: Observer, folder: Path) -> None:
    """A search of one round."""
    observer.started(Plan(folder, "miou", 1, 2, 2, Amount(4), 0, 0, seconds_per_training=60.0))
    observer.trained(GOOD, Progress(1, 4, GOOD, 90.0))
    observer.trained(BAD, Progress(2, 4, GOOD, 60.0))
    observer.round_done(RoundSummary(0, (GOOD, BAD), 0.4, 0.4), Progress(2, 4, GOOD, 60.0))
    observer.confirming(2)
    observer.warning("lovasz is better [really]")
    observer.finished(SearchResult(folder, "miou", Finding("candidate 0.0", (0.5,), 0.4, {"miou": 0.4}, (7,), False)))
    observer.close()


def test_several_are_told_every_event(tmp_path):
    events = [name for name in vars(Observer) if not name.startswith("_")]
    members, told = [Observer(), Observer()], set()
    for place, member in enumerate(members):
        for name in events:
            setattr(member, name, lambda *_, said=(place, name): told.add(said))
    several = Observers(members)
    play(several, tmp_path)
    assert told == {(place, name) for place in (0, 1) for name in events}


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_waits_for_them(kind: signal.Signals) -> None:
    """In the middle of a write, TensorBoard's writer would wait for its own thread for good when it is closed."""
    told: list[str] = []

    class Interrupted(Observer):
        def warning(self, text: str) -> None:
            signal.raise_signal(kind)
            told.append(text)

    before = signal.signal(kind, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            Observers([Interrupted(), Interrupted()]).warning("both")
        assert told == ["both"]  # the second one's was another: that one does not wait
        told.clear()
        with pytest.raises(KeyboardInterrupt):
            Observers([Interrupted(), Observer()]).warning("one")
        assert told == ["one"] and signal.getsignal(kind) is signal.default_int_handler
    finally:
        signal.signal(kind, before)


def test_outside_the_main_thread_no_signal_is_looked_at() -> None:
    told: list[str] = []
    observer = Observer()
    observer.warning = told.append  # type: ignore[method-assign]
    thread = threading.Thread(target=Observers([observer]).warning, args=["said"])
    thread.start()
    thread.join()
    assert told == ["said"]


def test_a_candidate_that_was_stopped_early_has_no_reward_to_draw():
    assert candidate_values(GOOD) == {"candidate/reward": 0.4, "candidate/seconds": 3.0, "score/miou": 0.4}
    assert math.isnan(candidate_values(dataclasses.replace(GOOD, state="pruned"))["candidate/reward"])


def test_plain_lines_when_not_a_terminal(tmp_path):
    text = io.StringIO()
    terminal = Terminal(Console(file=text, force_terminal=False, soft_wrap=True))
    play(terminal, tmp_path)
    lines = text.getvalue().splitlines()
    assert "\x1b" not in text.getvalue()
    assert lines[0].startswith("Searching a loss for miou: 1 round of 2 candidates on 2 workers, 4 trainings")
    assert str(tmp_path) in lines[1]
    assert "about 2 min" in lines[2]
    assert any("candidate 0.1" in line and "diverged: the loss is nan [1]" in line for line in lines)
    assert any("mean 40.0" in line and "failed 1" in line and "60 s left" in line for line in lines)
    assert any("lovasz is better [really]" in line for line in lines)


@pytest.mark.parametrize(
    ("done", "first", "longer", "waves"),
    [
        (0, 0, 1, 3 * 2 + 4),
        (0, 0, 2, 3 * 2 + 7),
        (10, 2, 1, 1 + 4),  # the floor's rival and a candidate of the third round
        (13, 3, 1, 3),  # the confirmation
        (16, 3, 1, 2),
        (16, 3, 4, 6),
        (19, 3, 1, 0),
        (13, 1, 1, 3),  # checkpoints were deleted: two rounds are replayed
    ],
)
def test_what_is_done_takes_no_time(tmp_path: Path, done: int, first: int, longer: float, waves: int) -> None:
    plan = Plan(tmp_path, "miou", 3, 4, workers=2, amount=Amount(12 + 1 + 6, 6, longer), done=done, first_round=first)
    assert expected_seconds(plan, 5.0) == 5.0 * waves


@pytest.mark.parametrize("terminal", [True, False])
def test_where_there_is_no_bar_no_hour_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    """A notebook has one line for a round, which may take that long."""
    clock = [0.0]
    monkeypatch.setattr("autoseg.tracking.terminal.time", SimpleNamespace(monotonic=lambda: clock[0]))
    text = io.StringIO()
    shown = Terminal(Console(file=text, force_terminal=terminal, soft_wrap=True, width=100))
    shown.started(Plan(tmp_path, "miou", 1, 8, 2, Amount(8), 0, 0))
    for done, at in enumerate((30.0, 61.0, 90.0, 122.0), 1):
        clock[0] = at
        shown.trained(GOOD, Progress(done, 8, GOOD, 5400.0))
    shown.close()
    said = [line for line in text.getvalue().splitlines() if "trainings   " in line]
    wanted = [f"  {done}/8 trainings   best 40.0   1 h 30 min left" for done in (2, 4)]
    assert said == ([] if terminal else wanted)


def test_a_terminal_gets_a_live_bar(tmp_path):
    text = io.StringIO()
    play(Terminal(Console(file=text, force_terminal=True, width=100)), tmp_path)
    assert "\x1b[" in text.getvalue() and "2/4" in text.getvalue()


def test_a_resumed_search_says_where_it_goes_on(tmp_path):
    text = io.StringIO()
    terminal = Terminal(Console(file=text, force_terminal=False, soft_wrap=True))
    terminal.started(Plan(tmp_path, "miou", 4, 8, 1, Amount(40), 16, 2))
    terminal.close()
    assert "going on after 16 of 40" in text.getvalue()


def test_log_holds_everything_and_lets_go_of_the_file(tmp_path):
    path = tmp_path / "log.txt"
    before = list(logging.getLogger("autoseg").handlers)
    play(Log(path), tmp_path)
    text = path.read_text()
    for word in ("candidate 0.0", "miou=0.4000", "diverged", "the loss is nan", "WARNING", "winner"):
        assert word in text
    assert logging.getLogger("autoseg").handlers == before


def test_no_name_becomes_another_on_its_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A class between colons is no picture; a file's name that is not UTF-8 ends no log."""
    plain_console().print("a:car:b")
    assert capsys.readouterr().out == "a:car:b\n"
    monkeypatch.setattr(logging.getLogger("autoseg"), "propagate", False)  # pytest-xdist cannot send such a name
    log = Log(tmp_path / "log.txt")
    log.warning("\udcff.png is odd")
    log.close()
    assert r"\udcff.png is odd" in (tmp_path / "log.txt").read_text() and "error" not in capsys.readouterr().err


def test_an_id_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    _id = pytest.importorskip("autoseg.tracking.wandb")._id
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "id").write_text("")
    assert _id(tmp_path) and _id(tmp_path) == _id(tmp_path)


def test_tensorboard_files_can_be_read_back(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    observers = build_observers(TrackerConfig(tensorboard=True), tmp_path, tmp_path / "log.txt", {})
    play(observers, tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()["tensors"]
    assert {"candidate/reward", "score/miou", "round/best_reward"} <= set(tags)
    assert len(events.Tensors("candidate/reward")) == 1  # a diverged one has none


@pytest.mark.slow
def test_wandb_offline_needs_no_account_and_never_asks(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = TrackerConfig(tensorboard=False, wandb="offline")
    observers = build_observers(tracker, tmp_path, tmp_path / "log.txt", {"seed": 1})
    play(observers, tmp_path)
    assert list((tmp_path / "wandb").glob("offline-run-*"))
    assert "failed and is told nothing more" not in (tmp_path / "log.txt").read_text()


@pytest.mark.slow
def test_runs_whose_folders_have_one_name_are_several_in_wandb_and_a_resumed_one_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = TrackerConfig(tensorboard=False, wandb="offline")
    folders = [tmp_path / "a" / "m:iou 1", tmp_path / "b" / "m:iou 1"]
    for folder in (*folders, folders[0]):
        folder.mkdir(parents=True, exist_ok=True)
        build_observers(tracker, folder, folder / "log.txt", {}).close()
    ids = [{path.name.split("-")[3] for path in folder.glob("wandb/offline-run-*")} for folder in folders]
    assert len(ids[0]) == len(ids[1]) == 1 and ids[0] != ids[1]
    only_own_files(folders[0])  # W&B's link to its own log does not keep the run from being resumed


@pytest.mark.slow
def test_steps_in_wandb_rise_over_rounds_and_resumed_runs(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    steps, log = [], wandb.sdk.wandb_run.Run.log
    monkeypatch.setattr(
        wandb.sdk.wandb_run.Run, "log", lambda self, data, **at: (steps.append(at["step"]), log(self, data, **at))
    )
    for round in (0, 1):  # the second one in a resumed run
        first, second = (dataclasses.replace(record, round=round) for record in (GOOD, BAD))
        observers = build_observers(
            TrackerConfig(tensorboard=False, wandb="offline"), tmp_path, tmp_path / "log.txt", {}
        )
        for done, record in enumerate((first, second), 1 + 2 * round):
            observers.trained(record, Progress(done, 4, first, 90.0))
        observers.round_done(RoundSummary(round, (first, second), 0.4, 0.4), Progress(2 + 2 * round, 4, first, 60.0))
        observers.close()
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_a_round_that_is_repeated_has_points_in_wandb_too(tmp_path, monkeypatch):
    """Its trainings failed, and are counted anew: W&B ignores a step that lies before the last."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    steps, log = [], wandb.sdk.wandb_run.Run.log
    monkeypatch.setattr(
        wandb.sdk.wandb_run.Run, "log", lambda self, data, **at: (steps.append(at["step"]), log(self, data, **at))
    )
    observers = build_observers(TrackerConfig(tensorboard=False, wandb="offline"), tmp_path, tmp_path / "log.txt", {})
    for done in (3, 4, 3, 4):
        observers.trained(GOOD, Progress(done, 9, GOOD, 90.0))
    observers.close()
    assert steps == [3, 4, 5, 6]


def test_a_service_that_is_refused_leaves_no_log_open(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setattr(wandb, "login", lambda prompt: False)
    before = list(logging.getLogger("autoseg").handlers)
    with pytest.raises(InputError, match=r"tracker\.wandb: expected an account"):
        build_observers(TrackerConfig(wandb="online"), tmp_path, tmp_path / "log.txt", {})
    assert logging.getLogger("autoseg").handlers == before


def test_a_search_goes_on_when_nobody_reads_its_lines(tmp_path):
    """As in `autoseg search | head`: rich would end the process, without a word."""
    told = "import sys; from autoseg.tracking import Terminal; t = Terminal(); sys.stdin.readline()\n"
    told += "for _ in range(3): t.warning('x' * 99)\nprint('still here', file=sys.stderr)"
    pipe = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    with subprocess.Popen([sys.executable, "-c", told], text=True, **pipe) as process:
        process.stdout.close()
        process.stdout = None
        assert process.communicate("go\n", timeout=120)[1] == "still here\n"
    assert process.returncode == 0


@pytest.mark.slow
def test_wandb_that_cannot_be_reached_is_offline(tmp_path, monkeypatch):
    def unreachable(**_):
        raise wandb.errors.AuthenticationError("the server did not respond")

    wandb = pytest.importorskip("wandb")
    monkeypatch.setattr(wandb, "login", unreachable)
    tracker = TrackerConfig(tensorboard=False, wandb="online")
    play(build_observers(tracker, tmp_path, tmp_path / "log.txt", {"seed": 1}), tmp_path)
    assert list((tmp_path / "wandb").glob("offline-run-*"))
    log = (tmp_path / "log.txt").read_text()
    assert "W&B cannot be reached" in log and "failed and is told nothing more" not in log


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (40, "40 s"), (200, "3 min"), (4800, "80 min"), (6000, "1 h 40 min")]
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


def test_percent():
    assert percent(0.4312) == "43.1" and percent(math.nan) == "–"
