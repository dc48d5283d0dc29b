from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn

import autoseg.native
from autoseg.training.layers import native
from autoseg.training.layers.blocks import FastConvModule
from autoseg.training.layers.normalization import FastBatchNorm
from autoseg.training.models import speed_up

LAST = torch.channels_last


@pytest.fixture(autouse=True)
def compiler() -> None:
    if native.library() is None:
        pytest.skip("no C++ compiler")


def block(channels: int, act: str | None) -> ConvModule:
    torch.manual_seed(0)
    made = ConvModule(5, channels, 1, norm_cfg={"type": "BN"}, act_cfg=act and {"type": act})
    nn.init.normal_(made.bn.weight)
    nn.init.normal_(made.bn.bias, std=2.0)
    return made.to(memory_format=LAST)


def everything(model: nn.Module, maps: Tensor, towards: Tensor) -> list[Tensor]:
    maps = maps.clone().requires_grad_()
    result = model(maps)
    grads = torch.autograd.grad(result, [maps, *model.parameters()], towards.to(result.dtype))
    return [value.double() for value in (result.detach(), *grads, *model.buffers())]


@pytest.mark.parametrize("act", ["ReLU6", "ReLU", None])
@pytest.mark.parametrize(("channels", "size"), [(8, (1, 2)), (56, (7, 5)), (96, (16, 17)), (32, (1, 1))])
def test_equals_the_layers_it_stands_for_in_double_precision(channels: int, size: tuple[int, int], act: str) -> None:
    plain = block(channels, act)
    fast = nn.Sequential(copy.deepcopy(plain))
    speed_up(fast)
    assert isinstance(fast[0].bn, FastBatchNorm) and isinstance(fast[0], FastConvModule) == (act is not None)
    maps = (3 + torch.randn(4, 5, *size)).to(memory_format=LAST)
    towards = torch.randn(4, channels, *size)
    expected = everything(copy.deepcopy(plain).double(), maps.double(), towards)
    got, torchs = everything(fast, maps, towards), everything(plain, maps, towards)
    assert fast[0](maps).is_contiguous(memory_format=LAST)
    for exact, ours, theirs in zip(expected, got, torchs, strict=True):
        error, allowed = (ours - exact).abs().max(), (theirs - exact).abs().max()
        assert error <= 3 * allowed + 1e-5 * exact.abs().max() + 1e-6


def test_statistics_survive_a_mean_far_from_zero() -> None:
    layer = nn.Sequential(nn.BatchNorm2d(8))
    speed_up(layer)
    maps = (1e4 + torch.randn(8, 8, 40, 40)).to(memory_format=LAST)
    expected = nn.BatchNorm2d(8).double()(maps.double())
    assert (layer(maps) - expected).abs().max() < 2e-3  # float32 keeps 1e4 to 5e-4
    torch.testing.assert_close(
        layer[0].running_var.double(), 0.9 + 0.1 * maps.double().var((0, 2, 3)), rtol=1e-4, atol=0
    )


def test_evaluation_uses_the_running_statistics_with_and_without_gradient() -> None:
    plain = block(16, "ReLU6")
    plain(torch.randn(4, 5, 6, 6))
    fast = nn.Sequential(copy.deepcopy(plain)).eval()
    speed_up(fast)
    maps = torch.randn(4, 5, 6, 6).to(memory_format=LAST)
    before = copy.deepcopy(fast.state_dict())
    expected = plain.eval()(maps)
    with torch.inference_mode():
        torch.testing.assert_close(fast(maps), expected)
    torch.testing.assert_close(fast(maps), expected)
    fast(maps).sum().backward()
    assert fast[0].bn.weight.grad is not None
    assert all(torch.equal(before[name], value) for name, value in fast.state_dict().items())


def test_only_the_bias_learns_in_evaluation() -> None:
    layer = nn.Sequential(nn.BatchNorm2d(8)).eval()
    speed_up(layer)
    layer[0].weight.requires_grad_(False)
    layer(torch.randn(2, 8, 3, 3).to(memory_format=LAST)).sum().backward()
    assert torch.equal(layer[0].bias.grad, torch.full((8,), 18.0))


def test_a_layer_changed_since_is_torchs_own() -> None:
    """C++ would read what is not there."""
    layer, maps = nn.Sequential(nn.BatchNorm2d(8)), torch.randn(2, 8, 3, 3).to(memory_format=LAST)
    speed_up(layer)
    assert layer[0].usable(maps)
    with pytest.raises(RuntimeError, match="running_mean should contain 16 elements"):
        layer(torch.randn(2, 16, 3, 3).to(memory_format=LAST))
    layer[0].momentum = None  # as in torch.optim.swa_utils.update_bn
    layer[0].reset_running_stats()
    layer(maps)
    torch.testing.assert_close(layer[0].running_mean, maps.mean((0, 2, 3)))
    layer[0].running_mean = layer[0].running_var = None
    torch.testing.assert_close(layer.eval()(maps).mean((0, 2, 3)), torch.zeros(8))


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_no_bit(threads: int) -> None:
    maps, towards = torch.randn(4, 24, 30, 30).to(memory_format=LAST), torch.randn(4, 24, 30, 30)
    before, results = torch.get_num_threads(), []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            layer = nn.Sequential(nn.BatchNorm2d(24))
            speed_up(layer)
            results.append(everything(layer, maps, towards))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, many) for one, many in zip(*results, strict=True))


def test_what_is_not_finite_goes_through() -> None:
    layer = nn.Sequential(block(8, "ReLU6"))
    speed_up(layer)
    maps = torch.randn(2, 5, 4, 4).to(memory_format=LAST)
    maps[0, 0, 0, 0] = float("nan")
    assert layer(maps).isnan().all()


@pytest.mark.parametrize("change", [{"order": ("norm", "conv", "act")}, {"act_cfg": {"type": "LeakyReLU"}}])
def test_leaves_other_blocks_alone(change: dict[str, object]) -> None:
    made = nn.Sequential(ConvModule(8, 8, 1, **{"norm_cfg": {"type": "BN"}, **change}))
    speed_up(made)
    assert type(made[0]) is ConvModule


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm2d(12), nn.BatchNorm2d(8, affine=False), nn.BatchNorm2d(8, momentum=None)]
)
def test_leaves_other_layers_alone(layer: nn.Module) -> None:
    assert not FastBatchNorm.suits(layer)


def test_is_torchs_own_in_another_order_format_or_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = block(16, "ReLU")
    fast = nn.Sequential(copy.deepcopy(plain))
    speed_up(fast)
    maps = torch.randn(2, 5, 6, 6)
    torch.testing.assert_close(fast.double()(maps.double()), plain.double()(maps.double()))
    monkeypatch.setattr(native, "library", lambda: None)
    maps = maps.to(memory_format=LAST)
    assert torch.equal(fast.float()(maps), plain.float()(maps))


def test_without_a_compiler_training_goes_on_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Path, **__: object) -> None:
        raise autoseg.native.NotCompiled("none of c++")

    monkeypatch.setattr(autoseg.native, "library", refuse)
    for memory in (native.library, native._loaded):
        memory.cache_clear()
    assert native.library() is None
    assert "want a C++ compiler, there is none of c++" in caplog.text
    for memory in (native.library, native._loaded):
        memory.cache_clear()
