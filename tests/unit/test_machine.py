"""What a process may use of the machine is what its container has."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from autoseg import machine


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
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
