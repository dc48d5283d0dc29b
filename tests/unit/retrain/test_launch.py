"""Joining the other ranks, as far as it can be told without a GPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mmengine.device.utils
import mmengine.dist
import pytest
import torch

from autoseg.cli.jobs import retrain as jobs
from autoseg.config import RetrainConfig
from autoseg.errors import AutosegError
from autoseg.evidence.comparison.contenders import contender
from autoseg.retrain.launch import choose_device, join


@pytest.mark.parametrize(("gpus", "number"), [(1, "0"), (4, "3")])
def test_a_rank_that_is_shown_one_gpu_takes_it(monkeypatch: pytest.MonkeyPatch, gpus: int, number: str) -> None:
    """As under `srun --gpus-per-task=1`, where mmengine would take the GPU of the rank's number on its machine."""
    taken: dict[str, Any] = {}
    monkeypatch.setenv("SLURM_LOCALID", "3")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(mmengine.dist, "init_dist", lambda launcher, backend: taken.update(os.environ))
    join("slurm", "cuda")
    assert taken["SLURM_LOCALID"] == number
    assert "LOCAL_RANK" not in taken


@pytest.mark.parametrize("wanted", ["auto", "cpu"])
def test_without_cuda_a_training_is_on_the_cpu(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    """By itself mmengine takes an Apple GPU, whatever `device=` says."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(mmengine.device.utils, "DEVICE", "mps")
    assert choose_device(wanted) == "cpu"
    assert mmengine.device.get_device() == "cpu"


def test_the_end_of_another_process_is_no_fault_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(cfg: Any) -> None:
        raise RuntimeError("[/torch/gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer\nmore")

    (tmp_path / "last_checkpoint").write_text("iter_20.pth")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(jobs, "introduction", lambda *_: [])
    monkeypatch.setattr("autoseg.retrain.runner.run", broken)
    job = jobs.Job(contender("ce", "miou"), "ce", tmp_path, None, 2, None)
    with pytest.raises(RuntimeError, match="gloo"):
        jobs._train(RetrainConfig(), job)
    monkeypatch.setattr(jobs.launch, "ranks", lambda: (0, 2))
    said = r"Another process .* reset by peer Go on .*: torchrun --nproc-per-node=2 --no-python autoseg retrain resume="
    with pytest.raises(AutosegError, match=said):
        jobs._train(RetrainConfig(), job)
