"""Number formats and devices, as far as they can be told without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from autoseg.config import ProxyConfig
from autoseg.errors import InputError
from autoseg.training.precision import check_device, precision_of, reproducible

GPU = torch.device("cuda", 0)


def test_a_cpu_is_always_usable() -> None:
    check_device(torch.device("cpu"))


@pytest.mark.parametrize(("version", "why"), [("13.2", "needs a newer driver"), (None, "was built without CUDA")])
def test_a_gpu_that_torch_does_not_see(monkeypatch: pytest.MonkeyPatch, version: str | None, why: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", version)
    with pytest.raises(InputError, match=f"device: expected a GPU that torch can use, got cuda:0.*{why}"):
        check_device(GPU)


@pytest.mark.parametrize(
    ("capability", "usable"), [((7, 0), False), ((8, 0), True), ((8, 9), True), ((9, 0), True), ((12, 1), True)]
)
def test_only_gpus_that_the_build_has_code_for(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], usable: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80", "sm_86", "sm_90a", "compute_120"])
    if usable:
        check_device(GPU)
    else:
        with pytest.raises(InputError, match=r"Tesla V100 \(sm_70\), for which torch .* has no code"):
            check_device(GPU)


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_auto_is_the_half_precision_that_a_gpu_computes_itself(
    monkeypatch: pytest.MonkeyPatch, native: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    assert precision_of(ProxyConfig(), GPU).dtype is expected
    assert precision_of(ProxyConfig(), torch.device("cpu")).dtype is None


def test_what_a_training_sets_is_put_back_after_an_error_too() -> None:
    """The process may be a notebook's."""

    def settings() -> tuple[int, bool]:
        return torch.get_num_threads(), torch.backends.cudnn.benchmark

    before, random = settings(), torch.get_rng_state()
    with (
        pytest.raises(ZeroDivisionError),
        reproducible(torch.device("cpu"), 1, threads=before[0] + 1, deterministic=False),
    ):
        assert settings() == (before[0] + 1, True) != before
        torch.rand(1 // 0)
    assert settings() == before and torch.equal(torch.get_rng_state(), random)


def test_cublas_is_told_before_its_first_use_that_it_may_have_to_be_deterministic() -> None:
    code = "import os, autoseg.training.precision; print(os.environ['CUBLAS_WORKSPACE_CONFIG'])"
    bare = {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
    for given, expected in (({}, ":4096:8"), ({"CUBLAS_WORKSPACE_CONFIG": ":16:8"}, ":16:8")):
        done = subprocess.run(
            [sys.executable, "-c", code], env=bare | given, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == expected
