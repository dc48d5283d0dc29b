from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from autoseg.config import ModelConfig
from autoseg.training import build_model
from autoseg.training.layers.depthwise import DilatedDepthwise
from autoseg.training.models import speed_up


def assert_same(ours: nn.Sequential, plain: nn.Conv2d, maps: torch.Tensor, **apart: float) -> None:
    """Values, layout and gradients; these may be `apart`."""
    expected, got = plain(maps), ours(maps)
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got, expected)
    towards = torch.randn_like(expected)
    theirs = torch.autograd.grad(expected, (maps, plain.weight), towards)
    mine = torch.autograd.grad(got, (maps, ours[0].weight), towards)
    torch.testing.assert_close(mine, theirs, **apart)


@pytest.mark.parametrize("size", [(8, 8), (5, 9), (1, 1), (2, 17)])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 2), (3, (2, 6)), (3, 7), (3, 18), (5, 3), (5, 6)])
def test_equals_the_convolution_it_stands_for(
    size: tuple[int, int], kernel: int, dilation: int | tuple[int, int]
) -> None:
    torch.manual_seed(0)
    pair = (dilation, dilation) if isinstance(dilation, int) else dilation
    padding = (pair[0] * (kernel // 2), pair[1] * (kernel // 2))
    plain = nn.Conv2d(6, 6, kernel, padding=padding, dilation=dilation, groups=6, bias=False).double()
    ours = nn.Sequential(nn.Conv2d(6, 6, kernel, padding=padding, dilation=dilation, groups=6, bias=False)).double()
    ours[0].load_state_dict(plain.state_dict())
    speed_up(ours)
    assert isinstance(ours[0], DilatedDepthwise)
    maps = torch.randn(3, 6, *size, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    assert_same(ours, plain, maps)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, padding=2, dilation=2),  # dense
        nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=4, bias=False),  # two outputs per channel
        nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),  # no dilation
        nn.Conv2d(4, 4, 3, padding=1, dilation=2, groups=4, bias=False),  # shrinks
        nn.Conv2d(4, 4, 3, stride=2, padding=2, dilation=2, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=False, padding_mode="reflect"),
    ],
)
def test_leaves_other_layers_alone(layer: nn.Conv2d) -> None:
    assert not DilatedDepthwise.suits(layer)


def test_half_precision_works() -> None:
    layer = nn.Sequential(nn.Conv2d(4, 4, 3, padding=6, dilation=6, groups=4, bias=False))
    speed_up(layer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = layer(torch.ones(1, 4, 8, 8)).float().sum()
    value.backward()
    assert layer[0].weight.grad is not None


@pytest.mark.parametrize("dilation", [7, 8, 36])
def test_elsewhere_a_kernel_wider_than_the_map_is_its_centre_tap(dilation: int) -> None:
    plain = nn.Conv2d(4, 4, 3, padding=dilation, dilation=dilation, groups=4, bias=False)
    ours = copy.deepcopy(nn.Sequential(plain))
    speed_up(ours)
    maps = torch.randn(2, 4, 8, 5).to(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):  # as on a GPU
        assert_same(ours, plain, maps, rtol=2e-2, atol=2e-2)


def test_networks_are_built_with_it_and_keep_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = {
        "pretrained": None, "auxiliary_head": None,
        "backbone": {
            "_delete_": True, "type": "ResNet", "depth": 18, "base_channels": 4, "stem_channels": 4, "num_stages": 2,
            "strides": [1, 2], "dilations": [1, 1], "out_indices": [0, 1], "norm_cfg": {"type": "BN"},
        },
        "decode_head": {"in_channels": 8, "in_index": 1, "channels": 8, "c1_in_channels": 4, "c1_channels": 4},
    }  # fmt: skip
    config = replace(ModelConfig(), overrides=overrides)
    model = build_model(config, 3, 0).eval()
    found = [layer for layer in model.modules() if isinstance(layer, DilatedDepthwise)]
    assert [layer.dilation[0] for layer in found] == [12, 24, 36]
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        fast = model(images)[0]
    monkeypatch.setattr(DilatedDepthwise, "forward", nn.Conv2d.forward)
    with torch.no_grad():
        torch.testing.assert_close(fast, model(images)[0], atol=1e-5, rtol=1e-5)
