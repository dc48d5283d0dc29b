from __future__ import annotations

import subprocess
from typing import Any

import pytest

import autoseg.execution.devices as module
from autoseg.errors import InputError
from autoseg.execution import local_devices


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(gpus: int, cores: int = 8, visible: str | None = None) -> None:
        monkeypatch.setattr(module, "_present_gpus", lambda: gpus)
        monkeypatch.setattr(module, "cpu_cores", lambda: cores)
        monkeypatch.setattr(module, "free_memory", lambda: 10**12)
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return make


def test_on_cpu_one_worker_per_share_of_cores(machine: Any) -> None:
    machine(gpus=0, cores=8)
    assert local_devices() == ["cpu"] * 8
    assert local_devices(threads=3) == ["cpu"] * 2
    assert local_devices(threads=16) == ["cpu"]
    assert local_devices(workers=3) == local_devices(workers="3") == ["cpu"] * 3
    machine(gpus=2, cores=4)
    assert local_devices(device="cpu") == ["cpu"] * 4


def test_on_gpus_one_worker_each_or_more(machine: Any) -> None:
    machine(gpus=2)
    assert local_devices() == local_devices(device="cuda") == ["cuda:0", "cuda:1"]
    assert local_devices(per_device=2) == ["cuda:0", "cuda:1"] * 2
    assert local_devices(workers=3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert local_devices(workers=2, device="cuda:1") == ["cuda:1", "cuda:1"]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("1", ["cuda:0"]),
        ("", []),
        ("-1", []),
        ("0,7,1", ["cuda:0"]),
        ("GPU-abc,GPU-def", ["cuda:0", "cuda:1"]),
        ("NoDevFiles", []),
    ],
)
def test_only_visible_gpus_count(machine: Any, visible: str, expected: list[str]) -> None:
    machine(gpus=2, cores=1, visible=visible)
    assert local_devices() == (expected or ["cpu"])


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_gpu_that_is_not_there(machine: Any, device: str) -> None:
    machine(gpus=0)
    with pytest.raises(InputError, match=r"device: expected a device of this machine \(no GPU\)"):
        local_devices(device=device)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "mps"])
def test_unknown_device(device: str) -> None:
    with pytest.raises(InputError, match="device: expected auto, cpu, cuda"):
        local_devices(device=device)


@pytest.mark.parametrize("workers", [0, -1, "many", "1.5"])
def test_wrong_number_of_workers(workers: Any) -> None:
    with pytest.raises(InputError, match="workers"):
        local_devices(workers=workers, device="cpu")


def test_counts_what_nvidia_smi_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "GPU 0: H200 (UUID: GPU-1)\n  MIG 1g.18gb Device 0: (UUID: MIG-1)\nGPU 1: H200 (UUID: GPU-2)\n"
    done = subprocess.CompletedProcess([], 0, stdout=text)
    monkeypatch.setattr(module.subprocess, "run", lambda *args, **options: done)
    module._present_gpus.cache_clear()
    assert module._present_gpus() == 2
    module._present_gpus.cache_clear()


def test_no_more_workers_than_the_memory_has_room_for(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(gpus=0, cores=64)
    monkeypatch.setattr(module, "free_memory", lambda: 8_000_000_000)
    assert local_devices() == ["cpu"] * 6 and local_devices(workers=9) == ["cpu"] * 9
    monkeypatch.setattr(module, "free_memory", lambda: 0)
    assert local_devices() == ["cpu"]
