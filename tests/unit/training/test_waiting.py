"""Between two looks at the loss, a training on a GPU never waits for it: tried on one without values to wait for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from disguise import CUDA, Device, Waits
from test_train import MEAN, PROXY, STD, Toy, bright_squares
from torch import Tensor, nn

import autoseg
from autoseg.cli.configuration.compose import compose
from autoseg.config import SearchConfig
from autoseg.data import Augment
from autoseg.losses import build_loss, loss_names
from autoseg.metrics import searchable
from autoseg.metrics.logic import Logic, Plane
from autoseg.surrogates.fast.formula_plan import FormulaPlan
from autoseg.surrogates.fast.gpu import checks
from autoseg.surrogates.fast.reading import FusedLogic
from autoseg.training import Batches, Targets, Training, build_model, build_targets, loop
from autoseg.training.precision import Precision
from autoseg.training.targets import Distilled

PRECISION = Precision(CUDA, None, torch.channels_last)
ITERS = 2  # waiting is allowed in the first, where constants are moved to the device
SHORT = {"shape_prior": "shape_prior(steps=1)"}  # it learns shapes first
LOSSES = [*(SHORT.get(name, name) for name in loss_names()), *(
    "wce(class_weight=[1,2])", "wce(class_weight=inverse)", "focal(mode=sigmoid,alpha=0.25)", "focal(alpha=[1,2])",
    "ssim(mode=sigmoid)", "lovasz(classes=all,per_image=true)", "jml(reduction={I:0.5,C:0.5},class_weight=[1,2])",
    "lmp(p=inf)", "ohem(min_kept=0)", "0.25*ce+0.75*(jml+2*boundary)",
)]  # fmt: skip
SURROGATES = searchable()


class CrossEntropy(nn.Module):
    """A loss without anything that this project's losses have."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, ignore_index=255)


class Forbidding(nn.Module):
    """A loss that forbids waiting from the second iteration on."""

    def __init__(self, loss: nn.Module, device: Device) -> None:
        super().__init__()
        self.loss, self.device, self.iteration = loss, device, 0

    def prepare(self, labels: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError  # done on the host before

    def set_progress(self, progress: float) -> None:
        self.iteration += 1
        self.device.strict = self.iteration > 1
        if hasattr(self.loss, "set_progress"):
            self.loss.set_progress(progress)

    def forward(self, logits: Tensor, labels: Tensor, extra: dict[str, Tensor]) -> Tensor:
        return self.loss(logits, labels, extra) if hasattr(self.loss, "prepare") else self.loss(logits, labels)


class NoKernel:
    """In the place of a Triton kernel."""

    def __getitem__(self, grid: object) -> NoKernel:
        return self

    def __call__(self, *args: object, **options: object) -> None:
        pass


@pytest.fixture(autouse=True)
def without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="needs triton, which torch brings along on Linux only")
    from autoseg.surrogates.fast.gpu.kernels import band, loops, rows, score

    monkeypatch.setattr(loop, "_check", lambda losses: None)  # the look itself, which waits
    for name in ("forward_kernel", "backward_kernel"):
        for kernels in (rows, loops):
            monkeypatch.setattr(kernels, name, NoKernel())
    monkeypatch.setattr(score, "score_kernel", NoKernel())
    for name in ("edge_kernel", "widen_kernel"):
        monkeypatch.setattr(band, name, NoKernel())
    monkeypatch.setattr(checks, "draws", lambda *_: True)
    monkeypatch.setattr(checks, "usable", lambda *_: True)  # tried before the first use, which waits
    monkeypatch.setattr(torch.cuda, "device_of", lambda _: contextlib.nullcontext())


@pytest.fixture
def device() -> Iterator[Device]:
    device = Device()
    yield device
    device.strict = False


def train(
    loss: nn.Module,
    device: Device,
    optimizer: str = "adamw",
    labels: str = "hard",
    model: nn.Module | None = None,
    crop: int = 16,
) -> None:
    proxy = replace(PROXY, iters=ITERS, optimizer=optimizer, labels=labels, crop=crop)
    images, ids = bright_squares()
    extra = loss.prepare(ids) if hasattr(loss, "prepare") else {}
    augment = Augment(proxy.crop, proxy.scale, proxy.flip, proxy.photometric, MEAN, STD)
    with device:
        model = (model or Toy()).to(CUDA)
        if labels == "distill":
            targets: Targets = Distilled(Toy().to(CUDA), PRECISION, 0.5, 2.0)
        else:
            targets = build_targets(proxy.labels, proxy.soft, 2, model, PRECISION)
        batches = Batches(
            images.to(CUDA), ids.to(CUDA), torch.arange(len(images)), augment,
            extra=extra, seed=0, iters=ITERS, batch_size=proxy.batch_size,
        )  # fmt: skip
        training = Training(model, batches, proxy, PRECISION, targets)
        training.run(Forbidding(loss, device).to(CUDA))
        device.strict = False
    assert training.iteration == ITERS


def call(loss: nn.Module, device: Device) -> None:
    """Forward and backward as in a training, twice: the second time it must not wait."""
    ids = torch.randint(0, 2, (2, 6, 8), generator=torch.Generator().manual_seed(0))
    extra = loss.prepare(ids) if hasattr(loss, "prepare") else {}
    with device:
        loss, ids = loss.to(CUDA), ids.to(CUDA)
        given = {"extra": {key: value.to(CUDA) for key, value in extra.items()}} if hasattr(loss, "prepare") else {}
        for device.strict in (False, True):
            logits = torch.zeros(2, 2, 6, 8, device=CUDA, requires_grad=True)
            loss(logits, ids, **given).backward()
            assert logits.grad is not None
        device.strict = False


@pytest.mark.parametrize("spec", LOSSES)
def test_no_loss_waits(spec: str, device: Device) -> None:
    """Every hand-made one: there is none for which waiting is inherent."""
    call(build_loss(spec, num_classes=2), device)


@pytest.mark.parametrize("metric", SURROGATES)
def test_no_surrogate_waits(metric: str, device: Device) -> None:
    """With its kernels, and where it falls back to the reference."""
    for fused in (True, False):
        loss = autoseg.SurrogateLoss(metric, 2, tolerance=2)
        loss.fused = fused
        call(loss, device)


@pytest.mark.parametrize("labels", ["smooth", "boundary_smooth", "distill", "pseudo"])
def test_no_targets_wait(labels: str, device: Device) -> None:
    train(build_loss("ce", num_classes=2), device, labels=labels)


def test_no_formula_waits(device: Device) -> None:
    """Of a user's metric: the area that is predicted, which none of those there are asks for."""

    def formula(p: Plane, y: Plane, logic: Logic) -> dict[str, Tensor]:
        return {"area": logic.total(p), "label": logic.total(y)}

    with device:
        for device.strict in (False, True):
            logits = torch.zeros(2, 2, 6, 8, device=CUDA, requires_grad=True)
            logic = FusedLogic(logits, torch.zeros(2, 6, 8, dtype=torch.int64, device=CUDA), {})
            logic.read(FormulaPlan(formula, kernels=True))["area"].sum().backward()
        device.strict = False


@pytest.mark.parametrize("spec", ["boundary", "asl2021/miou"])
def test_no_training_waits(spec: str, device: Device) -> None:
    """With a loss that has extra inputs and is told its progress, and with a surrogate."""
    train(build_loss(spec, num_classes=2), device)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_no_optimizer_waits(optimizer: str, device: Device) -> None:
    train(CrossEntropy(), device, optimizer)
    assert device.kernels["convolution_backward"] == 6 and device.kernels[f"_fused_{optimizer}_"] == 2


@pytest.mark.slow  # imports mmsegmentation
def test_no_network_waits(device: Device) -> None:
    network = compose("search", SearchConfig, ["model=tiny"]).model
    train(build_loss("asl2021/miou", num_classes=2), device, model=build_model(network, 2, 0), crop=32)


def item(x: Tensor) -> float:
    return float(x.detach().sum())


WAITING = {
    "a number": item,
    "a truth": lambda x: bool(x.any()),
    "a copy to the host": lambda x: x.cpu(),
    "a copy to the device": lambda x: torch.ones(3).to(x.device),
    "a constant": lambda x: torch.tensor([1.0], device=x.device),
    "a mask": lambda x: x[x > 0],
    "a mask to write to": lambda x: x.detach().index_put_((x > 0,), x.new_ones(())),
    "places": lambda x: x.nonzero(),
    "a count": lambda x: x.detach().long().flatten().bincount(),
    "a place as an index": lambda x: x[x.new_zeros((), dtype=torch.int64)],
}


@pytest.mark.parametrize("what", WAITING)
def test_waiting_would_be_seen(what: str, device: Device) -> None:
    class Waiting(nn.Module):
        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            if device.strict:
                WAITING[what](logits)
            return F.cross_entropy(logits, labels, ignore_index=255)

    with pytest.raises((Waits, RuntimeError, NotImplementedError)):
        train(Waiting(), device)


def test_a_copy_that_does_not_wait_is_none(device: Device) -> None:
    class Copying(nn.Module):
        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, torch.ones(2).to(logits.device, non_blocking=True), ignore_index=255)

    train(Copying(), device)
