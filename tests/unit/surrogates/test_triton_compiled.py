"""The Triton kernels compile for GPUs that are not here, as they are launched, and what they need of one is bounded."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import autoseg
from autoseg.surrogates import loss as loss_module
from autoseg.surrogates.fast import reading
from autoseg.surrogates.fast.gpu import checks, launches

triton = pytest.importorskip("triton", reason="needs triton, which torch brings along on Linux only")

from pretended import Driver  # noqa: E402  (needs triton)

METRICS = ["miou", "fwiou", "dice", "macc", "gacc", "biou", "bf1", "miou_i"]


@pytest.fixture
def gpu_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Driver]:
    """Makes a GPU of some capability, whose kernels are compiled and never run."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "device_of", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(torch, "_assert_async", lambda *_: None)  # no kernel has said that the labels are right
    monkeypatch.setattr(checks, "usable", lambda *_: True)
    for module in (loss_module, reading):
        monkeypatch.setattr(module, "by_kernels", lambda _: True)
    monkeypatch.setattr(checks, "draws", lambda *_: True)

    def gpu(capability: int) -> Driver:
        monkeypatch.setattr(triton.runtime.driver, "_active", Driver(capability))
        return triton.runtime.driver.active

    return gpu


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capability", "c", "layout"),
    [
        (80, 21, "contiguous"), (90, 21, "channels_last"), (90, 32, "contiguous"),
        (80, 150, "channels_last"), (90, 150, "contiguous"),
    ],
)  # fmt: skip
def test_compiles_for_gpus_without_spills(gpu_of, capability, c, layout, tmp_path):
    """Rows of few classes stay in registers, 255 of which a thread can have; of many classes none does."""
    gpu = step(gpu_of(capability), autoseg.SurrogateLoss("miou", c, space="paper"), c, layout)
    assert [name for name, _ in gpu.cubins] == ["forward_kernel", "score_kernel", "backward_kernel"]
    for name, cubin in gpu.cubins:
        registers, stack = resources(cubin, tmp_path)
        assert stack == 0 and registers <= (255 if c <= 32 or name == "score_kernel" else 72), (name, registers, stack)


@pytest.mark.slow
def test_far_images_compile_without_spills(gpu_of, tmp_path, monkeypatch):
    monkeypatch.setattr(launches, "_extent", lambda _: 2**31)
    gpu = step(gpu_of(90), autoseg.SurrogateLoss("miou", 150, space="paper"), 150, "contiguous")
    assert [resources(cubin, tmp_path)[1] for _, cubin in gpu.cubins] == [0, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_launched_on_a_gpu(gpu_of, name, tmp_path):
    """All three kernels; a mean over images is made in torch, of BF1 all but counts; BIoU's band takes three."""
    gpu = step(gpu_of(90), autoseg.SurrogateLoss(name, 21, tolerance=2), 21, "contiguous")
    assert all(resources(cubin, tmp_path)[1] == 0 for _, cubin in gpu.cubins)
    assert len(gpu.launched) == {"bf1": 1, "miou_i": 2, "biou": 6}.get(name, 3)


class Started(TorchDispatchMode):
    """Counts operations that do something on a device or take its memory: no views."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "bound"), [("miou", 9), ("gacc", 9), ("biou", 11)])
def test_a_step_asks_little_of_the_host(gpu_of, name, bound, monkeypatch):
    """On a GPU each operation costs the host as much as one on a million numbers. A formula is read in no batch."""
    monkeypatch.setattr(loss_module, "check_labels", lambda *_, **__: None)  # on a GPU the kernels do
    loss, gpu = autoseg.SurrogateLoss(name, 21, space="default", tolerance=2), gpu_of(90)
    step(gpu, loss, 21, "contiguous")
    monkeypatch.setattr(type(loss.terms[0][1]), "sums", None)
    logits, labels = torch.randn(2, 21, 16, 16).requires_grad_(), torch.zeros(2, 16, 16, dtype=torch.int64)
    with Started() as started:
        loss(logits, labels).backward()
    assert started.count <= bound


def step(gpu, loss, c, layout):
    """Forward and backward, bf16 and int64, on sizes divisible by 16."""
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    logits = torch.randn(2, c, 16, 16).to(torch.bfloat16, memory_format=form).requires_grad_()
    loss(logits, torch.randint(0, c, (2, 16, 16))).backward()
    return gpu


def resources(cubin, folder):
    """(registers a thread, bytes of stack a thread: what was spilled) of a compiled kernel."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not tool.exists():
        pytest.skip("this triton comes without cuobjdump")
    file = folder / "kernel.cubin"
    file.write_bytes(cubin)
    usage = subprocess.run([tool, "-res-usage", file], capture_output=True, text=True, check=True).stdout
    return tuple(int(re.search(rf"{what}:(\d+)", usage)[1]) for what in ("REG", "STACK"))
