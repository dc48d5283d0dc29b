from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands train on the CPU also where there are GPUs: only there rewards are the same, bit for bit."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
