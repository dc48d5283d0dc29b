"""A whole training and its scores on an imitated GPU: tensors of two devices never meet, in any setting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from imitated_gpu import Gpu, imitated
from torch import Tensor, nn
from two_raters import two_raters

from autoseg.config import SoftLabelConfig
from autoseg.errors import InputError
from autoseg.losses import build_loss
from autoseg.metrics import names
from autoseg.proxy import residents
from autoseg.proxy.rungs import Rungs, Watch
from autoseg.proxy.task import ProxyTask


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> ProxyTask:
    return two_raters(tmp_path_factory.mktemp("data"))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gpu]:
    with imitated(monkeypatch) as gpu:
        yield gpu
    residents.pixels.cache_clear()  # images that lie there


def train(task: ProxyTask, spec: str, device: str) -> dict[str, float]:
    return task(build_loss(spec, num_classes=2), 0, device)


SETTINGS: dict[str, dict[str, Any]] = {
    "float32": {"amp": "off"},
    "bf16": {"amp": "bf16"},
    "sgd": {"amp": "off", "optimizer": "sgd"},
    "warm-up": {"amp": "off", "warmup": 1},
    "frozen": {"amp": "off", "backbone": "frozen"},
    "smooth": {"amp": "off", "labels": "smooth"},
    "boundary_smooth": {"amp": "off", "labels": "boundary_smooth"},
    "annotators": {"amp": "off", "labels": "annotators"},
    "pseudo": {"amp": "off", "labels": "pseudo", "soft": SoftLabelConfig(labelled=0.5, confidence=0.5)},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_gpu_scores_as_the_cpu(setting: str, task: ProxyTask, tmp_path: Path, gpu: Gpu) -> None:
    """With the loss of a search."""
    settings = replace(task.proxy, **SETTINGS[setting])
    here, there = (replace(task, proxy=settings, shared=str(tmp_path / device)) for device in ("cpu", "cuda"))
    scores = train(there, "asl2021/miou", "cuda:0")
    assert gpu.made > 500
    assert scores == pytest.approx(train(here, "asl2021/miou", "cpu"), abs=0.02, nan_ok=True)


@pytest.mark.parametrize("spec", ["boundary", "wce(class_weight=inverse)", "identity/bf1", "0.5*ce+0.5*lovasz"])
def test_every_kind_of_loss_and_every_metric(spec: str, task: ProxyTask, gpu: Gpu) -> None:
    """One with extra inputs, one with constants, one of boundaries, a sum."""
    scored = replace(task, proxy=replace(task.proxy, amp="off"), metrics=tuple(names()), per_class=True)
    expected = train(scored, spec, "cpu")
    assert train(scored, spec, "cuda:0") == pytest.approx(expected, abs=0.02, nan_ok=True)


def test_all_that_a_training_leaves(task: ProxyTask, tmp_path: Path, gpu: Gpu) -> None:
    """The network, predictions and counts of another split, scores at a rung; and a network that another learns of."""
    network, plain = str(tmp_path / "network.safetensors"), replace(task.proxy, amp="off")
    given = {"save_to": network, "predictions": str(tmp_path / "seen"), "counts_to": str(tmp_path / "counts.npz")}
    watch = Watch(Rungs(shares=(0.5,)), "miou")
    leaving = replace(task, proxy=plain, final_split="val", watch=watch, **given)
    scores = train(leaving, "asl2021/miou", "cuda:0")
    assert list(watch.scores) == [2]
    assert {path.name for path in tmp_path.iterdir()} == {"network.safetensors", "seen", "counts.npz"}
    assert scores == pytest.approx(train(leaving, "asl2021/miou", "cpu"), abs=0.02, nan_ok=True)
    learning = replace(plain, labels="distill", soft=SoftLabelConfig(teacher=network))
    here, there = (train(replace(task, proxy=learning), "0.5*ce+0.5*jml", device) for device in ("cpu", "cuda:0"))
    assert there == pytest.approx(here, abs=0.02, nan_ok=True)


def test_images_that_do_not_fit_there_are_one_message(
    task: ProxyTask, gpu: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (30_000, 10**9))
    with pytest.raises(InputError, match=r"proxy\.size: .* 6 of train take 0\.0 GB at 48x32, got .*per_device"):
        train(task, "ce", "cuda:0")


def test_memory_that_torch_keeps_unused_is_free(task: ProxyTask, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an earlier training of the process, which the images of another split may have."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (30_000, 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 50_000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 10_000)
    assert len(task._pixels("train", gpu.device)[0]) == 6


def test_mixing_devices_would_be_seen(task: ProxyTask, gpu: Gpu) -> None:
    weights = torch.ones(2)  # stays where it is

    class OnTheHost(nn.Module):
        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, weights, ignore_index=255)

    task(OnTheHost(), 0, "cpu")
    with pytest.raises(RuntimeError, match="different devices"):
        task(OnTheHost(), 0, "cuda:0")
    with pytest.raises(TypeError, match="numpy"):
        torch.ones(2, device="cuda:0").numpy()
