"""Workers that are started before their task: who runs it, and that nobody is left over, whatever goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from test_executors import gone, outcomes
from toy_task import note, note_and_fail, note_and_hang, toy

from autoseg.execution import ProcessExecutor, Standby, processes, worker_pool
from autoseg.execution.processes import WorkerProcess


def noted(folder: Path, count: int) -> set[int]:
    """Ids of the processes that have left a file, once there are `count`."""
    end = time.monotonic() + 60
    while len(found := [path for path in folder.iterdir() if path.name.isdecimal()]) < count:
        assert time.monotonic() < end
        time.sleep(0.02)
    return {int(path.name) for path in found}


def test_they_are_ready_before_the_task_and_then_run_it(tmp_path: Path) -> None:
    with Standby(["cpu", "cpu"], 3, partial(note, tmp_path)) as standby:
        waiting = noted(tmp_path, 2)
        assert {(tmp_path / str(pid)).read_text() for pid in waiting} == {"3"}
        with ProcessExecutor(toy, standby.slots, threads=3, standby=standby) as executor:
            assert {o.scores["pid"] for o in outcomes(executor, {"x": 1}, {"x": 2})} <= waiting
            assert {o.scores["threads"] for o in outcomes(executor, {"do": "environment"})} == {3}
        assert all(gone(pid) for pid in waiting)


def test_those_without_a_task_are_gone_at_the_end(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Standby(["cpu", "cpu"], 1, partial(note_and_hang, tmp_path)):
        waiting = noted(tmp_path, 2)
        raise ZeroDivisionError
    assert all(gone(pid) for pid in waiting)


def test_a_failing_preparation_costs_nothing(tmp_path: Path) -> None:
    with (
        Standby(["cpu"], 1, partial(note_and_fail, tmp_path)) as standby,
        ProcessExecutor(toy, standby.slots, standby=standby) as executor,
    ):
        (outcome,) = outcomes(executor, {"x": 4})
    assert outcome.scores == {"double": 8, "pid": noted(tmp_path, 1).pop()}


@pytest.mark.parametrize("late", [False, True])
def test_one_that_dies_is_replaced(tmp_path: Path, late: bool) -> None:
    prepare = partial(note_and_hang if late else note, tmp_path)
    with Standby(["cpu"], 1, prepare) as standby, ProcessExecutor(toy, ["cpu"], standby=standby) as executor:
        (first,) = noted(tmp_path, 1)
        if late:  # after it has been taken, before it has read its task
            threading.Timer(0.3, os.kill, (first, signal.SIGKILL)).start()
        else:
            os.kill(first, signal.SIGKILL)
            assert gone(first)
        (outcome,) = outcomes(executor, {"x": 4})
    assert outcome.scores["double"] == 8 and outcome.scores["pid"] != first and outcome.attempts == 1


def test_one_that_hangs_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Standby(["cpu"], 1, partial(note_and_hang, tmp_path)) as standby:
        (first,) = noted(tmp_path, 1)

        def replacement(*args: Any) -> WorkerProcess:
            monkeypatch.setattr(worker_pool, "START_LIMIT_S", 300.0)
            return WorkerProcess(*args)

        monkeypatch.setattr(worker_pool, "START_LIMIT_S", 0.1)
        monkeypatch.setattr(processes, "WorkerProcess", replacement)
        with ProcessExecutor(toy, standby.slots, standby=standby) as executor:
            (outcome,) = outcomes(executor, {"x": 4})
    assert outcome.scores["double"] == 8 and gone(first)


def test_their_output_goes_to_the_log_once_they_have_a_task(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with (
        Standby(["cpu"], 1, partial(print, "not to be kept")) as standby,
        ProcessExecutor(toy, standby.slots, log=log, standby=standby) as executor,
    ):
        outcomes(executor, {"do": "say"})
    assert log.read_text() == "hello from the task\n"


def test_none_is_started_for_an_executor_without_processes(tmp_path: Path) -> None:
    with Standby(["cpu"], 1, partial(note, tmp_path), start=False) as standby:
        assert standby.slots == ["cpu"] and standby.take(0) is None


PARENT = """
import sys, time
from functools import partial
from pathlib import Path
from autoseg.execution import Standby
from toy_task import note_and_hang
with Standby(["cpu", "cpu"], 1, partial(note_and_hang, Path(sys.argv[1]))):
    time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_they_leave_with_the_parent(tmp_path: Path, how: signal.Signals) -> None:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n" + PARENT
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL)
    waiting = noted(tmp_path, 2)
    parent.send_signal(how)
    parent.wait(timeout=60)
    assert all(gone(pid) for pid in waiting)
