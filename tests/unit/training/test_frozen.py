"""A frozen backbone stays as it was; what no head reads is not kept; what is kept comes back in every bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoseg.config import ProxyConfig
from autoseg.errors import InputError
from autoseg.training import Segmentor
from autoseg.training.frozen import Stored, write
from autoseg.training.precision import Precision, precision_of
from autoseg.training.schedule import build_optimizer

CPU = torch.device("cpu")


class Backbone(nn.Module):
    """Three maps, of which the head reads the last two."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.deeper = nn.Conv2d(4, 8, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        first = self.stem(images)
        return first, first.relu(), self.deeper(first)


class Head(nn.Module):
    align_corners = False

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high, self.norm = nn.Conv2d(4, 2, 1), nn.Conv2d(8, 2, 1), nn.BatchNorm2d(2)

    def forward(self, maps: Any) -> Tensor:
        return self.norm(self.high(maps[2])) + self.low(maps[1])[..., ::2, ::2]


class Network(nn.Module):
    with_neck = False

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.decode_head = Backbone(), Head()


@pytest.fixture
def model() -> Segmentor:
    torch.manual_seed(0)
    return Segmentor(Network())


def test_only_the_heads_are_trained(model: Segmentor) -> None:
    model.freeze(torch.channels_last)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = build_optimizer(model.train(), ProxyConfig(lr=0.1))
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in model.network.decode_head.parameters()}
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 8, 8))[0].square().mean().backward()
        optimizer.step()
    assert not model.network.backbone.training and model.network.decode_head.training
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("network.decode_head.") for name in changed)


@pytest.mark.parametrize("settings", [ProxyConfig(), ProxyConfig(channels_last="off"), ProxyConfig(amp="bf16")])
def test_what_is_kept_comes_back_in_every_bit(model: Segmentor, settings: ProxyConfig, tmp_path: Path) -> None:
    precision: Precision = precision_of(settings, CPU)
    model.freeze(precision.layout)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches, scored = [torch.randn(2, 3, 8, 8) for _ in range(3)], [torch.randn(n, 3, 6, 10) for n in (2, 1)]
    shown = {"train": (iter(batches), [(2, 8, 8)] * 3), "scored": (iter(scored), [(2, 6, 10), (1, 6, 10)])}
    write(tmp_path / "features.safetensors", model, shown, precision, most_gb=1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()) and model.training
    stored = Stored(tmp_path / "features.safetensors", CPU)
    for images, kept in [*zip(batches, map(stored.batch, range(3)), strict=True), (scored[1], stored.scored(1))]:
        with precision.autocast():
            computed = model.features(images.to(memory_format=precision.layout))
        assert kept.size == computed.size == tuple(images.shape[-2:]) and kept.maps[0] is None
        for one, other in zip(kept.maps[1:], computed.maps[1:], strict=True):
            assert one is not None and other is not None
            assert one.dtype == other.dtype and one.stride() == other.stride() and torch.equal(one, other)


def test_a_backbone_that_returns_something_else_is_refused(model: Segmentor) -> None:
    model.network.backbone = nn.Conv2d(3, 4, 1)
    model.freeze(torch.channels_last)
    with pytest.raises(InputError, match=r"proxy\.backbone: expected trained, .* got Conv2d"):
        model(torch.randn(1, 3, 8, 8))
