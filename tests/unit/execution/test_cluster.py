"""What only a cluster can do: machines that are lost, that have no room, that do not see the run; the rest is in
`test_executors`, which runs its contract on a cluster too."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
from test_executors import gone, outcomes, wait_for
from toy_task import Unloadable, toy

from autoseg.cli.doctor import Finding
from autoseg.cli.doctor import cluster as look_at
from autoseg.errors import InputError
from autoseg.execution import Job, worker_devices
from autoseg.execution.cluster import RayExecutor, cluster_devices, connect, shares_of
from autoseg.execution.worker_pool import WorkerError

slow = pytest.mark.slow


@slow
def test_one_worker_per_core_of_each_machine(cluster: Any) -> None:
    assert worker_devices("ray") == cluster_devices(device="cpu") == ["cpu", "cpu"]
    assert cluster_devices(threads=2) == ["cpu"]  # no machine has two, yet there must be a worker
    assert cluster_devices(workers=3) == ["cpu"] * 3
    with pytest.raises(InputError, match=r"device: expected a device of the cluster \(no GPU\)"):
        cluster_devices(device="cuda")
    with pytest.raises(InputError, match="device: expected auto, cpu or cuda on a cluster"):
        cluster_devices(device="cuda:1")
    with pytest.raises(InputError, match="workers"):
        cluster_devices(workers="many")


@slow
def test_doctor_says_what_it_has(cluster: Any) -> None:
    assert look_at(cluster.address) == Finding("cluster", "ok", "2 machine(s), 2 cores, 0 GPUs")


@slow
def test_workers_are_on_both_machines_and_kept_between_runs(cluster: Any, tmp_path: Path) -> None:
    with RayExecutor(toy, ["cpu", "cpu"], threads=3) as executor:
        first = outcomes(executor, *2 * [{"meet": str(tmp_path), "of": 2}])
        again = outcomes(executor, {"do": "environment"})[0]
    pids = {outcome.scores["pid"] for outcome in first}
    assert len(pids) == 2 and again.scores["pid"] in pids
    assert (again.scores["threads"], again.scores["gpu"], again.scores["torch"]) == (3, -1, 0)


@slow
def test_each_worker_sees_the_gpu_that_it_was_given(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # Ray refuses GPUs that are hidden from this process
    node = cluster.add_node(num_cpus=0, num_gpus=2)  # it takes Ray's word for them
    cluster.wait_for_nodes()
    try:
        assert cluster_devices() == cluster_devices(device="cuda") == ["cuda", "cuda"]
        assert cluster_devices(per_device=2) == ["cuda"] * 4 and cluster_devices(device="cpu") == ["cpu", "cpu"]
        meet = {"do": "environment", "meet": str(tmp_path), "of": 4}  # all four work at the same time
        with RayExecutor(toy, ["cuda"] * 4) as executor:
            found = outcomes(executor, *[meet] * 4)
        assert sorted(outcome.scores["gpu"] for outcome in found) == [0, 0, 1, 1]
        assert {(outcome.scores["cuda"], outcome.device) for outcome in found} == {(1, "cuda")}
    finally:
        cluster.remove_node(node)


@slow
def test_a_worker_that_dies_is_replaced_and_its_job_tried_again(cluster: Any, tmp_path: Path) -> None:
    with RayExecutor(toy, ["cpu"]) as executor:
        payload = {"do": "die once", "x": 4, "marker": str(tmp_path / "m")}
        again, dead, fine = outcomes(executor, payload, {"do": "die"}, {"x": 1})
    assert (again.state, again.attempts, again.scores["double"]) == ("complete", 2, 8)
    assert (dead.state, dead.attempts) == ("failed", 2) and dead.error.startswith("the worker died: ")
    assert fine.state == "complete"


@slow
def test_a_worker_that_hangs_is_killed(cluster: Any, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with RayExecutor(toy, ["cpu"], timeout_s=0.5, retries=0) as executor:
        hung, fine = outcomes(executor, {"do": "hang", "pids": str(pids)}, {"x": 1})
    assert (hung.state, hung.error, fine.state) == ("timeout", "took longer than 0.5 s", "complete")
    assert all(gone(int(pid)) for pid in pids.read_text().split())


@slow
def test_a_task_that_does_not_load_ends_the_run_with_one_error(cluster: Any) -> None:
    with RayExecutor(Unloadable(), ["cpu", "cpu"]) as executor, pytest.raises(WorkerError) as caught:
        outcomes(executor, {}, {})
    assert "there_is_no_such_module" in str(caught.value)


@slow
def test_output_goes_to_the_log(cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with RayExecutor(toy, ["cpu"], log=Path("log.txt")) as executor:
        outcomes(executor, {"do": "say"})
    assert "hello from the task" in (tmp_path / "log.txt").read_text()


@slow
def test_a_machine_that_does_not_see_the_run_is_named(cluster: Any, tmp_path: Path) -> None:
    executor = RayExecutor(toy, ["cpu"], log=tmp_path / "run" / "log.txt")
    with executor, pytest.raises(InputError, match=rf"run_dir: .*all machines of the cluster see, got {tmp_path}/run"):
        outcomes(executor, {})


@slow
def test_a_lost_machine_costs_its_training_an_attempt_and_the_others_go_on(cluster: Any, tmp_path: Path) -> None:
    """Its worker waits for a machine with room for it, and holds up nobody."""
    third = cluster.add_node(num_cpus=1, num_gpus=0)
    cluster.wait_for_nodes()
    files, go = [tmp_path / str(i) for i in range(3)], tmp_path / "go"

    def lose_one() -> None:
        try:
            there = dict(wait_for(file).split() for file in files)  # ids of processes by those of machines
            assert len(there) == 3
            cluster.remove_node(third, allow_graceful=False)
            assert gone(int(there[third.node_id]))
        finally:
            go.touch()

    with RayExecutor(toy, ["cpu"] * 3) as executor:
        threading.Thread(target=lose_one, daemon=True).start()
        jobs = [Job(file.name, {"do": "wait", "machine": str(file), "go": str(go)}) for file in files]
        found = {job.key: outcome for job, outcome in executor.run(jobs)}
    assert {outcome.state for outcome in found.values()} == {"complete"}
    assert sorted(outcome.attempts for outcome in found.values()) == [1, 1, 2]


@pytest.mark.parametrize(
    ("slots", "threads", "cores", "gpus", "shares"),
    [
        (["cpu"] * 4, 2, [4, 4], [0, 0], [2] * 4),
        (["cpu"] * 3, 4, [6, 6], [0, 0], [3] * 3),  # with less, all would be on the first machine
        (["cpu"] * 3, 1, [1, 1], [0, 0], [1 / 2] * 3),  # a third of two cores would leave room for two
        (["cpu"], 2, [1, 1], [0, 0], [1]),  # no machine has two cores
        (["cuda"] * 2, 1, [8, 8], [2, 1], [1] * 2),
        (["cuda"] * 3, 1, [8, 8], [2, 1], [1] * 3),
        (["cuda"] * 4, 1, [8, 8], [2, 1], [1, 1, 1 / 2, 1 / 2]),
        (["cuda"] * 6, 1, [8], [2], [1 / 3] * 6),
        (["cuda"] * 6, 1, [8], [4], [1, 1, 1 / 2, 1 / 2, 1 / 2, 1 / 2]),  # halves alone would leave a GPU idle
    ],
)
def test_all_workers_have_room_and_all_machines_work(
    slots: list[str],
    threads: int,
    cores: list[int],
    gpus: list[int],
    shares: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = [{"CPU": cpu, "GPU": gpu} for cpu, gpu in zip(cores, gpus, strict=True)]
    monkeypatch.setattr("autoseg.execution.cluster.machines", lambda: there)
    assert shares_of(slots, threads) == shares
    left = [float(has["CPU" if slots[0] == "cpu" else "GPU"]) for has in there]
    for share in shares:  # one machine after the other, as Ray does
        on = next(i for i, room in enumerate(left) if room > share - 1e-9)
        left[on] -= share


def test_memory_limits_the_workers_of_each_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [{"CPU": 1, "GPU": 0, "memory": 1_500_000_000}, {"CPU": 16, "GPU": 0, "memory": 2_700_000_000}]
    monkeypatch.setattr("autoseg.execution.cluster.machines", lambda: there)
    assert cluster_devices() == ["cpu"] * 3
    assert cluster_devices(workers=9) == ["cpu"] * 9
    there.append({"CPU": 2, "GPU": 0, "memory": 0})  # a machine that does not tell
    assert cluster_devices() == ["cpu"] * 5


@slow
def test_a_machine_that_is_lost_while_it_is_idle_costs_no_attempt(cluster: Any) -> None:
    """Its workers are given jobs, which are the first to find that it is gone."""
    third = cluster.add_node(num_cpus=4, num_gpus=0)
    cluster.wait_for_nodes()
    with RayExecutor(toy, ["cpu"] * 6, retries=0) as executor:
        assert {outcome.state for outcome in outcomes(executor, *[{"x": 1}] * 6)} == {"complete"}
        on_it = psutil.Process(third.all_processes["raylet"][0].process.pid).children(recursive=True)
        cluster.remove_node(third, allow_graceful=False)
        assert len(on_it) >= 4 and psutil.wait_procs(on_it, timeout=60)[1] == []  # they outlive it for a moment
        found = outcomes(executor, *[{"x": 1}] * 6)
    assert [(outcome.state, outcome.attempts) for outcome in found] == [("complete", 1)] * 6


@slow
def test_workers_that_wait_for_room_say_so(
    cluster: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As long as it takes: a limit of their start would end the search."""
    import ray

    monkeypatch.setattr("autoseg.execution.cluster.ROOM_S", 0.5)
    monkeypatch.setattr("autoseg.execution.worker_pool.START_LIMIT_S", 2.0)

    class Busy:
        def here(self) -> None: ...

    others = [ray.remote(num_cpus=1)(Busy).remote() for _ in range(2)]
    ray.get([other.here.remote() for other in others])
    threading.Timer(8.0, lambda: [ray.kill(other) for other in others]).start()  # longer than three tries to start
    with RayExecutor(toy, ["cpu"]) as executor:
        (found,) = outcomes(executor, {"x": 1})
    assert found.state == "complete"
    assert "1 of 1 workers have not started: 0 of the cluster's cores are free" in caplog.text


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379", "127.0.0.1", "auto"])
def test_no_cluster_is_one_message(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")  # of one that has crashed
    with pytest.raises(InputError, match=r"executor\.address: expected a running Ray cluster, got .*ray start --head"):
        connect(address)


@pytest.mark.parametrize(("typed", "asked"), [("10.0.0.1:7", "10.0.0.1:7"), ("auto", "10.0.0.2:8")])
def test_a_typed_address_goes_before_the_environment(typed: str, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(address: tuple[str, int], timeout: float) -> None:
        raise OSError("nobody at {}:{}".format(*address))

    monkeypatch.setattr("socket.create_connection", nobody)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:8")
    said = typed if typed != "auto" else f"{asked}, as RAY_ADDRESS says"
    with pytest.raises(InputError, match=rf"got {said} \(nobody at {asked}\)"):
        connect(typed)


def test_without_ray_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"executor: expected an installed Ray, got none\. Install it"):
        connect()
