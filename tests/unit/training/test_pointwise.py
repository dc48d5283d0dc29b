from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from autoseg.training.layers.pointwise import PointwiseConv
from autoseg.training.models import speed_up

LAST = torch.channels_last


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(8, 8), (1, 1), (3, 17)])
def test_equals_the_convolution_it_stands_for(size: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 10, 1, bias=bias).double()
    fast = nn.Sequential(copy.deepcopy(plain))
    speed_up(fast)
    assert isinstance(fast[0], PointwiseConv)
    maps = torch.randn(3, 6, *size, dtype=torch.float64).to(memory_format=LAST).requires_grad_()
    expected, got = plain(maps), fast(maps)
    assert got.is_contiguous(memory_format=LAST)
    torch.testing.assert_close(got, expected)
    towards = torch.randn_like(expected)
    theirs = torch.autograd.grad(expected, [maps, *plain.parameters()], towards)
    mine = torch.autograd.grad(got, [maps, *fast.parameters()], towards)
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1, stride=2), nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 4, 1, padding=1)],
)
def test_leaves_other_layers_alone(layer: nn.Conv2d) -> None:
    assert not PointwiseConv.suits(layer)


def test_half_precision_works() -> None:
    layer = nn.Sequential(nn.Conv2d(4, 4, 1))
    speed_up(layer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = layer(torch.ones(1, 4, 8, 8)).float().sum()
    value.backward()
    assert layer[0].weight.grad is not None
