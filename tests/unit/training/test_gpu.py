"""What only a GPU can show."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoseg.config import ProxyConfig
from autoseg.data import Augment
from autoseg.surrogates import SurrogateLoss
from autoseg.training import Batches, Training
from autoseg.training.loop import CHECK_EVERY
from autoseg.training.precision import precision_of, reproducible

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: the training loop on a GPU is not tried"),
    pytest.mark.filterwarnings("error:.*Triton kernels cannot run"),  # else it would be the reference that is tried
]
PROXY = ProxyConfig(iters=CHECK_EVERY - 1, batch_size=4, crop=32, scale=[0.8, 1.2], optimizer="sgd", lr=0.02)


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 2, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.body(images)]


class CrossEntropy(nn.Module):
    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, ignore_index=255)


class Unwaiting(nn.Module):
    """A loss that forbids the training to wait for the GPU, from its second iteration on until the last."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss, self.iteration = loss, 0

    def set_progress(self, progress: float) -> None:
        self.iteration += 1
        torch.cuda.set_sync_debug_mode("error" if 1 < self.iteration < PROXY.iters else "default")

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.loss(logits, labels)


def squares(count: int = 6) -> tuple[Tensor, Tensor]:
    labels = torch.zeros(count, 40, 48, dtype=torch.uint8)
    for i in range(count):
        labels[i, 3 + i : 21 + i, 4 + i : 24 + i] = 1
    return (40 + 160 * labels)[:, None].expand(-1, 3, -1, -1).contiguous().cuda(), labels.cuda()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", ["ce", "miou"])
def test_the_loop_does_not_wait_for_the_gpu(name: str, optimizer: str) -> None:
    device, proxy = torch.device("cuda"), replace(PROXY, optimizer=optimizer)
    surrogate = SurrogateLoss.from_theta("miou", theta=[0.5] * 12, num_classes=2)
    loss = Unwaiting(CrossEntropy() if name == "ce" else surrogate.cuda())
    images, labels = squares()
    augment = Augment(proxy.crop, proxy.scale, proxy.flip, proxy.photometric, [120.0] * 3, [60.0] * 3)
    batches = Batches(
        images, labels, torch.arange(len(images)), augment,
        extra={}, seed=0, iters=proxy.iters, batch_size=proxy.batch_size,
    )  # fmt: skip
    try:
        with reproducible(device, 0, threads=1, deterministic=False):
            training = Training(Toy().to(device), batches, proxy, precision_of(proxy, device))
            training.run(loss)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert training.losses[-5:].sum() < training.losses[:5].sum()


def test_a_cuda_graph_trains_as_the_plain_loop() -> None:
    """Both compute with the same kernels, so that with deterministic ones the weights are the same, bit for bit."""
    device, weights = torch.device("cuda"), []
    for graph in (False, True):
        proxy = replace(PROXY, optimizer="adamw", lr=0.01, cuda_graph=graph, deterministic=True)
        images, labels = squares()
        augment = Augment(proxy.crop, proxy.scale, proxy.flip, proxy.photometric, [120.0] * 3, [60.0] * 3)
        loss = SurrogateLoss.from_theta("miou", theta=[0.5] * 12, num_classes=2).cuda()
        with reproducible(device, 0, threads=1, deterministic=True):
            model = Toy().to(device)
            batches = Batches(
                images, labels, torch.arange(len(images)), augment,
                extra={}, seed=0, iters=proxy.iters, batch_size=proxy.batch_size,
            )  # fmt: skip
            Training(model, batches, proxy, precision_of(proxy, device)).run(loss)
        weights.append(model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
