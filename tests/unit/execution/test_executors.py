"""The contract of every executor, and what only processes can do."""

from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from toy_task import Refused, Unloadable, toy

from autoseg.errors import InputError
from autoseg.execution import Executor, Job, Outcome, ProcessExecutor, build_executor
from autoseg.execution.processes import WorkerProcess
from autoseg.execution.worker_pool import WorkerError


@pytest.fixture(params=["inline", "processes", pytest.param("ray", marks=pytest.mark.slow)])
def executor(request: pytest.FixtureRequest) -> Any:
    if request.param == "ray":
        request.getfixturevalue("cluster")
    with build_executor(request.param, toy, ["cpu", "cpu"]) as made:
        yield made


def outcomes(executor: Executor, *payloads: dict[str, Any]) -> list[Outcome]:
    """Outcomes in the order of the payloads."""
    jobs = [Job(str(i), payload) for i, payload in enumerate(payloads)]
    found = {job.key: outcome for job, outcome in executor.run(jobs)}
    return [found[job.key] for job in jobs]


def gone(pid: int, within_s: float = 10.0) -> bool:
    """Whether a process ends (a zombie nobody has reaped counts) in time."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:  # the last thread has gone when a zombie has one left, itself
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE and len(list(Path(f"/proc/{pid}/task").iterdir())) <= 1:
                return True
        except (psutil.NoSuchProcess, FileNotFoundError):
            return True
        time.sleep(0.02)
    return False


def wait_for(path: Path) -> str:
    end = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.02)
    return path.read_text()


# --- the contract ---


def test_every_job_comes_back_once(executor: Executor) -> None:
    jobs = [Job(f"job {i}", {"x": i}) for i in range(7)]
    results = list(executor.run(jobs))
    assert sorted(job.key for job, _ in results) == sorted(job.key for job in jobs)
    for job, outcome in results:
        assert outcome.state == "complete" and outcome.attempts == 1 and outcome.error == ""
        assert outcome.scores["double"] == 2 * job.payload["x"] and outcome.device == "cpu"
    assert list(executor.run([])) == []


def test_a_job_has_its_process_to_itself(executor: Executor) -> None:
    drawn = [outcome.scores["drawn"] for outcome in outcomes(executor, *({"do": "draw", "x": x} for x in range(4)))]
    assert drawn == [random.Random(x).random() for x in range(4)]


def test_an_exception_is_a_failure_with_its_traceback(executor: Executor) -> None:
    failed, fine = outcomes(executor, {"do": "raise"}, {"x": 1})
    assert (failed.state, failed.attempts, failed.scores) == ("failed", 1, {})
    assert "Traceback" in failed.error and "KeyError: 'no such thing'" in failed.error
    assert fine.state == "complete"


def test_a_divergence_is_its_own_state(executor: Executor) -> None:
    (outcome,) = outcomes(executor, {"do": "diverge"})
    assert (outcome.state, outcome.error) == ("diverged", "loss is nan at iteration 3")


def test_wrong_input_ends_the_run(executor: Executor) -> None:
    with pytest.raises(InputError, match=r"data\.root: expected a folder, got <object.*Give one\."):
        outcomes(executor, {"do": "wrong input"})
    assert outcomes(executor, {"x": 3})[0].scores["double"] == 6


def test_left_early_and_used_again(executor: Executor) -> None:
    for _ in executor.run([Job(str(i), {"x": i}) for i in range(6)]):
        break
    assert [o.scores["double"] for o in outcomes(executor, {"x": 1}, {"x": 2})] == [2, 4]


# --- processes only ---


def test_out_of_memory_is_tried_again(tmp_path: Path) -> None:
    with ProcessExecutor(toy, ["cpu"]) as executor:
        (outcome,) = outcomes(executor, {"do": "out of memory", "x": 2, "marker": str(tmp_path / "m")})
    assert (outcome.state, outcome.attempts, outcome.scores["double"]) == ("complete", 2, 4)


@pytest.mark.parametrize("waitid", [True, False])  # which macOS lacks before Python 3.13
def test_a_worker_that_dies_is_replaced_and_its_job_tried_again(
    tmp_path: Path, waitid: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not waitid:
        monkeypatch.delattr(os, "waitid")
    with ProcessExecutor(toy, ["cpu"]) as executor:
        payload = {"do": "die once", "x": 4, "marker": str(tmp_path / "m")}
        again, dead, fine = outcomes(executor, payload, {"do": "die"}, {"x": 1})
    assert (again.state, again.attempts, again.scores["double"]) == ("complete", 2, 8)
    assert (dead.state, dead.attempts, dead.error) == ("failed", 2, "the worker exited with status 7")
    assert fine.state == "complete"


def test_a_killed_worker_says_so() -> None:
    with ProcessExecutor(lambda payload, device: os.kill(os.getpid(), signal.SIGKILL), ["cpu"], retries=0) as executor:
        (outcome,) = outcomes(executor, {})
    assert (outcome.state, outcome.attempts) == ("failed", 1)
    assert outcome.error == "the worker was killed by SIGKILL (out of memory?)"


def test_a_worker_killed_while_idle_costs_nothing() -> None:
    with ProcessExecutor(toy, ["cpu"], retries=0) as executor:
        (before,) = outcomes(executor, {})
        os.kill(int(before.scores["pid"]), signal.SIGKILL)
        assert gone(int(before.scores["pid"]))
        (after,) = outcomes(executor, {"x": 1})
    assert after.state == "complete" and after.scores["pid"] != before.scores["pid"]


def test_a_time_limit_grows_with_the_length_of_a_job() -> None:
    with ProcessExecutor(toy, ["cpu"], timeout_s=0.5, retries=0) as executor:
        ((_, outcome),) = executor.run([Job("0", {"do": "doze"}, longer=100.0)])
    assert outcome.seconds > 1.5 and outcome.state != "timeout"


def test_a_worker_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with ProcessExecutor(toy, ["cpu"], timeout_s=0.5, retries=1) as executor:
        hung, fine = outcomes(executor, {"do": "hang", "pids": str(pids)}, {"x": 1})
        assert (hung.state, hung.attempts, hung.error) == ("timeout", 2, "took longer than 0.5 s")
        assert all(gone(int(pid)) for pid in pids.read_text().split())
        assert fine.state == "complete"


def test_an_automatic_limit_is_set_by_jobs_of_the_same_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoseg.execution.worker_pool.LEAST_LIMIT_S", 0.5)
    hang = {"do": "hang", "pids": str(tmp_path / "pids")}
    with ProcessExecutor(toy, ["cpu"], retries=0) as executor:
        jobs = [Job("a", {}, "short"), Job("b", {"do": "doze"}, "long"), Job("c", hang, "short")]
        found = {job.key: outcome.state for job, outcome in executor.run(jobs)}
    assert found == {"a": "complete", "b": "complete", "c": "timeout"}


def test_what_a_task_leaves_behind_ends_with_the_worker() -> None:
    with ProcessExecutor(toy, ["cpu"]) as executor:
        ((_, outcome),) = executor.run([Job("a", {"do": "leave a child"})])
        child = int(outcome.scores["child"])
        assert psutil.pid_exists(child)
    assert gone(child)


@pytest.mark.parametrize(
    ("do", "attempts", "reason"),
    [("exit", 2, "the worker exited with status 1"), ("eat", 2, "MemoryError"), ("flood", 2, "took longer than 1 s")],
)
def test_whatever_a_task_does_it_is_an_outcome_and_the_next_job_runs(do: str, attempts: int, reason: str) -> None:
    with ProcessExecutor(toy, ["cpu"], timeout_s=1.0 if do == "flood" else None) as executor:
        found = {job.key: outcome for job, outcome in executor.run([Job("a", {"do": do}), Job("b", {"x": 2})])}
    assert found["a"].state in ("failed", "timeout") and found["a"].attempts == attempts
    assert reason in found["a"].error and found["b"].scores["double"] == 4


def test_workers_are_kept_between_runs_and_choose_their_device_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoseg.execution.processes.visible_gpus", lambda: ["2", "5"])
    with ProcessExecutor(toy, ["cuda:1"], threads=3) as executor:
        (first,) = outcomes(executor, {"do": "environment"})
        (second,) = outcomes(executor, {"do": "environment"})
    assert first.scores["pid"] == second.scores["pid"] != os.getpid()
    assert (first.scores["threads"], first.scores["gpu"], first.scores["cuda"]) == (3, 5, 1)
    assert first.scores["torch"] == 0 and first.device == "cuda:1"


def test_a_cpu_worker_sees_no_gpu() -> None:
    with ProcessExecutor(toy, ["cpu"]) as executor:
        assert outcomes(executor, {"do": "environment"})[0].scores["gpu"] == -1


def test_a_failure_on_a_gpu_costs_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoseg.execution.processes.visible_gpus", lambda: ["0"])
    with ProcessExecutor(toy, ["cuda:0"]) as executor:
        before, failed, after = outcomes(executor, {}, {"do": "raise"}, {})
    assert failed.state == "failed" and before.scores["pid"] != after.scores["pid"]


def test_a_task_that_does_not_load_ends_the_run_with_one_error() -> None:
    with ProcessExecutor(Unloadable(), ["cpu", "cpu"]) as executor, pytest.raises(WorkerError) as caught:
        outcomes(executor, {}, {})
    assert "there_is_no_such_module" in str(caught.value)


@pytest.mark.parametrize("name", ["processes", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_task_may_refuse_a_process_in_words_of_its_own(name: str, request: pytest.FixtureRequest) -> None:
    if name == "ray":
        request.getfixturevalue("cluster")
    with (
        build_executor(name, Refused(), ["cpu"]) as executor,
        pytest.raises(InputError, match=r"^versions: expected those, got these"),
    ):
        outcomes(executor, {})


def test_workers_that_cannot_start_end_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    monkeypatch.setattr(sys, "path", [])  # the workers cannot import anything
    with ProcessExecutor(toy, ["cpu"], log=log) as executor, pytest.raises(WorkerError, match=r"log\.txt"):
        outcomes(executor, {})
    assert "Error" in log.read_text()


class OneBrokenSlot(ProcessExecutor):
    """No worker of the first slot lives long enough to have its task."""

    started = 0

    def _new(self, index: int) -> WorkerProcess:
        worker = super()._new(index)
        if index == 0:
            self.started += 1
            os.kill(worker._process.pid, signal.SIGKILL)
        return worker


@pytest.mark.parametrize("jobs", [1, 4])
def test_a_slot_that_cannot_start_is_left_to_the_others(jobs: int, caplog: pytest.LogCaptureFixture) -> None:
    with OneBrokenSlot(toy, ["cpu", "cpu"]) as executor:
        for _ in range(2):
            assert {o.state for o in outcomes(executor, *({"do": "draw", "x": x} for x in range(jobs)))} == {"complete"}
    (said,) = [record.getMessage() for record in caplog.records if record.name.endswith("worker_pool")]
    assert said.startswith("no worker process could start on cpu: the worker was killed by SIGKILL")
    assert executor.started == 3


def test_output_goes_to_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.txt"
    with ProcessExecutor(toy, ["cpu"], log=log) as executor:
        outcomes(executor, {"do": "say"})
    assert "hello from the task" in log.read_text()
    assert capfd.readouterr().out == ""


def test_close_ends_idle_and_busy_workers(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    executor = ProcessExecutor(toy, ["cpu", "cpu"])
    running = executor.run([Job("busy", {"do": "hang", "pids": str(pids)}), Job("idle", {})])
    _, idle = next(running)
    workers = [int(idle.scores["pid"]), *map(int, wait_for(pids).split())]
    executor.close()
    executor.close()
    assert all(gone(pid) for pid in workers)


def test_idle_workers_leave_at_the_same_time(tmp_path: Path) -> None:
    for name in ("meet", "folder"):
        (tmp_path / name).mkdir()
    together = {"do": "leave together", "folder": str(tmp_path / "folder"), "meet": str(tmp_path / "meet"), "of": 2}
    with ProcessExecutor(toy, ["cpu", "cpu"]) as executor:
        outcomes(executor, together, together)
    assert len(list((tmp_path / "folder").glob("* left"))) == 2


PARENT = """
import sys
from pathlib import Path
from autoseg.execution import Job, ProcessExecutor
from toy_task import toy
executor = ProcessExecutor(toy, ["cpu", "cpu"])
for job, outcome in executor.run([Job("busy", {"do": "hang", "pids": sys.argv[1]}), Job("idle", {})]):
    Path(sys.argv[1] + ".idle").write_text(str(int(outcome.scores["pid"])))
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_and_their_children_leave_with_the_parent(tmp_path: Path, how: signal.Signals) -> None:
    pids = tmp_path / "pids"
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n" + PARENT,
            str(pids),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    workers = [int(pid) for path in (pids, tmp_path / "pids.idle") for pid in wait_for(path).split()]
    parent.send_signal(how)
    _, errors = parent.communicate(timeout=60)
    assert all(gone(pid) for pid in workers)
    assert errors.count("Traceback") == (1 if how == signal.SIGINT else 0)  # the parent's own, none of the workers'


def test_the_automatic_limit_follows_the_longest_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("autoseg.execution.worker_pool.LEAST_LIMIT_S", 0.3)
    with ProcessExecutor(toy, ["cpu"], retries=0) as executor:
        quick, hung = outcomes(executor, {"x": 1}, {"do": "hang", "pids": str(tmp_path / "pids")})
    assert quick.state == "complete" and hung.state == "timeout" and 0.3 <= hung.seconds < 5


def test_scores_may_be_nan_but_must_be_numbers(executor: Executor) -> None:
    nan, text = outcomes(executor, {"x": math.nan}, {"x": "a"})
    assert nan.state == "complete" and math.isnan(nan.scores["double"])
    assert text.state == "failed" and "could not convert" in text.error
