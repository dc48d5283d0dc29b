"""A whole network with our layers and blocks against the same one as mmsegmentation and torch compute it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

from autoseg.config import ModelConfig
from autoseg.training import build_model, models
from autoseg.training.layers.blocks import FastConvModule, FastSeparableASPPHead
from autoseg.training.layers.depthwise import DilatedDepthwise
from autoseg.training.layers.normalization import FastBatchNorm
from autoseg.training.layers.pointwise import PointwiseConv

PRESETS = Path(__file__).resolve().parents[3] / "configs" / "model"
KINDS = (FastConvModule, FastSeparableASPPHead, FastBatchNorm, PointwiseConv)


def pair(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[nn.Module, nn.Module]:
    config = ModelConfig(**yaml.safe_load((PRESETS / f"{name}.yaml").read_text()))
    ours = build_model(config, 4, 0)
    monkeypatch.setattr(models, "speed_up", lambda network: None)
    return ours, build_model(config, 4, 0)


def trained(model: nn.Module, images: Tensor, towards: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(0)  # dropout
    logits = model(images)[0]
    (logits * towards).sum().backward()
    return logits.detach(), {name: weight.grad for name, weight in model.named_parameters()}


@pytest.mark.parametrize("name", ["tiny", "deeplabv3plus_mobilenet_v2"])
def test_value_gradient_and_statistics_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, plain = pair(name, monkeypatch)
    kinds = {type(layer) for layer in ours.modules()}
    assert kinds >= {*KINDS, *([DilatedDepthwise] if name != "tiny" else [])}
    assert not {type(layer) for layer in plain.modules()} & {*KINDS, DilatedDepthwise}
    assert list(ours.state_dict()) == list(plain.state_dict())
    images, towards = torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last), torch.randn(2, 4, 64, 64)
    exact, exact_grads = trained(plain.double(), images.double(), towards)
    got, grads = trained(ours.double(), images.double(), towards)
    torch.testing.assert_close(got, exact, rtol=0, atol=1e-4)  # logits are upsampled in float32
    largest = max(grad.abs().max() for grad in exact_grads.values())
    for key, grad in grads.items():
        torch.testing.assert_close(grad, exact_grads[key], rtol=1e-4, atol=1e-6 * largest.item())
    for mine, theirs in zip(ours.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)
    ours.float(), plain.float()
    single, _ = trained(ours, images, towards)  # now by the C++ where there is a compiler
    expected, _ = trained(plain, images, towards)
    assert (single - expected).abs().max() < 0.01 * expected.abs().max()
