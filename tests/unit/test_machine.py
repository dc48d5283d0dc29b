"""What a process may use of the machine is what its container has."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from autoseg import machine


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    monkeypatch.setattr(machine, "OWN", tmp_path / "own")
    (tmp_path / "own").write_text("0::/\n")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: range(8), raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 8), ("300000 100000", 3), ("10000 100000", 1), ("9900000 100000", 8), ("", 8)]
)
def test_cores(quota: str, cores: int, container: Path) -> None:
    (container / "cpu.max").write_text(quota + "\n")
    assert machine.cpu_cores() == cores


def test_memory_of_a_container_is_what_its_limit_leaves(container: Path) -> None:
    everything = machine.free_memory()
    assert 0 < everything <= psutil.virtual_memory().total
    (container / "memory.current").write_text("700000\n")
    (container / "memory.stat").write_text("anon 500000\nfile 200000\ninactive_file 150000\nactive_file 50000\n")
    (container / "memory.max").write_text("max\n")
    assert machine.free_memory() > 10**6
    (container / "memory.max").write_text("1000000\n")
    assert machine.free_memory() == 500_000
    (container / "memory.max").write_text("100\n")
    assert machine.free_memory() == 0


def test_limits_of_the_groups_around_hold_too(container: Path) -> None:
    """Slurm and systemd limit a group far below the root; the job's own steps have none."""
    (container / "own").write_text("0::/slurm.scope/job_7/step_0\n")
    job = container / "slurm.scope" / "job_7"
    (job / "step_0").mkdir(parents=True)
    (job / "cpu.max").write_text("200000 100000\n")
    (job / "step_0" / "cpu.max").write_text("max 100000\n")
    (job / "memory.max").write_text("1000000\n")
    (job / "memory.current").write_text("700000\n")
    (job / "memory.stat").write_text("inactive_file 150000\nactive_file 50000\n")
    assert machine.cpu_cores() == 2
    assert machine.free_memory() == 500_000


def test_limits_of_version_1(container: Path) -> None:
    (container / "own").write_text("4:memory:/job_7\n3:cpu,cpuacct:/job_7\n1:name=systemd:/\n")
    for controller, files in {
        "memory": {
            "memory.limit_in_bytes": "1000000", "memory.usage_in_bytes": "700000",
            "memory.stat": "inactive_file 1\ntotal_inactive_file 150000\ntotal_active_file 50000",
        },
        "cpu": {"cpu.cfs_quota_us": "300000", "cpu.cfs_period_us": "100000"},
    }.items():  # fmt: skip
        (container / controller / "job_7").mkdir(parents=True)
        for name, text in files.items():
            (container / controller / "job_7" / name).write_text(text + "\n")
    assert machine.cpu_cores() == 3
    assert machine.free_memory() == 500_000
    (container / "cpu" / "job_7" / "cpu.cfs_quota_us").write_text("-1\n")
    assert machine.cpu_cores() == 8


def test_elsewhere_than_on_linux_there_are_no_groups(container: Path) -> None:
    (container / "own").unlink()
    (container / "cpu.max").write_text("100000 100000\n")
    assert machine.cpu_cores() == 8 and machine.free_memory() > 10**6
