"""Chains against torch's layers one by one, in double precision."""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DepthwiseSeparableConvModule
from mmseg.models.utils import InvertedResidual
from torch import Tensor, nn

from autoseg import native as built
from autoseg.training.layers import chain, native
from autoseg.training.layers.blocks import FastConvModule, FastInvertedResidual, FastSeparableConvModule
from autoseg.training.layers.chain import Link
from autoseg.training.layers.normalization import NO_BOUNDS
from autoseg.training.models import speed_up

LAST = torch.channels_last
RELU6 = (0.0, 6.0)


@pytest.fixture
def compiler() -> None:
    if native.library() is None:
        pytest.skip("no C++ compiler")


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def randomised(network: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias, std=2.0)
    return network.to(memory_format=LAST)


def link(
    wide: int, out: int, bounds: tuple[float, float], *, stride: int = 0, dilation: int = 1, dense: bool = False
) -> Link:
    """Dense 3x3 if so wished; else pointwise without a stride, depthwise with one."""
    conv = nn.Conv2d(wide, out, 3, padding=1, bias=False) if dense else nn.Conv2d(wide, out, 1, bias=False)
    if stride:
        conv = nn.Conv2d(wide, wide, 3, stride, dilation, dilation, groups=wide, bias=False)
    layers = nn.Sequential(conv, nn.BatchNorm2d(out))
    speed_up(layers)
    randomised(layers)
    return Link(layers[0], layers[1], bounds)


def plain(links: list[Link], maps: Tensor, added: Tensor | None) -> Tensor:
    for each in links:
        conv, norm = each.conv, each.norm
        maps = F.conv2d(maps, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
        maps = F.batch_norm(
            maps, norm.running_mean, norm.running_var, norm.weight, norm.bias, True, norm.momentum, norm.eps
        )
        maps = maps.clamp(*each.bounds)
    return maps if added is None else maps + added


def weights(links: list[Link]) -> list[Tensor]:
    return [weight for each in links for weight in (each.conv.weight, each.norm.weight, each.norm.bias)]


def statistics(links: list[Link]) -> list[Tensor]:
    return [each.norm.get_buffer(name).double() for each in links for name in ("running_mean", "running_var")]


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("with_added", [True, False])
@pytest.mark.parametrize(
    ("shape", "wide", "out", "stride", "dilation"),
    [
        ((2, 8, 5, 7), 24, 16, 1, 1),
        ((3, 16, 9, 6), 40, 16, 2, 1),
        ((1, 24, 13, 10), 72, 24, 2, 2),
        ((2, 16, 3, 4), 88, 32, 1, 6),  # the taps reach beyond the map
        ((1, 8, 30, 31), 336, 8, 1, 2),  # several blocks of rows, deeper than one block of a product
        ((7, 16, 1, 1), 16, 48, 1, 1),
    ],
)
def test_equals_the_layers_it_stands_for(
    shape: tuple[int, int, int, int], wide: int, out: int, stride: int, dilation: int, with_added: bool
) -> None:
    links = [link(shape[1], wide, RELU6), link(wide, wide, (0.0, float("inf")), stride=stride, dilation=dilation)]
    compare([*links, link(wide, out, NO_BOUNDS)], torch.randn(shape), with_added)


@pytest.mark.usefixtures("compiler", "threads")
@pytest.mark.parametrize("threads_used", [1, 2])
@pytest.mark.parametrize("shape", [(2, 32, 5, 7), (1, 40, 33, 34), (9, 32, 8, 8), (2, 32, 1, 2), (3, 48, 12, 9)])
def test_dense_equals_the_layers_it_stands_for(shape: tuple[int, int, int, int], threads_used: int) -> None:
    torch.set_num_threads(threads_used)
    links = [link(shape[1], 56, RELU6, dense=True), link(56, 32, (0.0, float("inf")), dense=True)]
    assert [each.kind for each in links] == [chain.DENSE] * 2
    compare(links, torch.randn(shape), with_added=False)


@pytest.mark.usefixtures("compiler")
def test_dense_without_a_gradient_to_its_maps() -> None:
    only, maps = link(32, 32, RELU6, dense=True), torch.randn(2, 32, 6, 5).to(memory_format=LAST)
    mine = torch.autograd.grad(chain.run([only], maps).square().sum(), only.conv.weight)
    theirs = torch.autograd.grad(chain.run([only], maps.requires_grad_()).square().sum(), only.conv.weight)
    assert torch.equal(*mine, *theirs)


@pytest.mark.usefixtures("compiler")
def test_registers_of_eight_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(built, "VARIANTS", (("-march=native", "-mno-avx512f"), ()))
    narrow = built.library(*native.SOURCES, headers=native.HEADERS)
    monkeypatch.setattr(native, "library", lambda: narrow)
    compare([link(32, 56, RELU6, dense=True), link(56, 56, RELU6, stride=2), link(56, 24, RELU6)],
            torch.randn(3, 32, 15, 14), with_added=True)  # fmt: skip
    built.library.cache_clear()


def doubled(links: list[Link]) -> list[Link]:
    return [Link(copy.deepcopy(one.conv).double(), copy.deepcopy(one.norm).double(), one.bounds) for one in links]


def compare(links: list[Link], maps: Tensor, with_added: bool) -> None:
    """A chain with the same layers in double precision: results, gradients, statistics."""
    exact = doubled(links)
    assert all(each.suits() for each in links)
    maps = maps.to(memory_format=LAST).requires_grad_()
    assert chain.usable(links, maps)
    added = None
    if with_added:
        shape = plain(doubled(links), maps.detach().double(), None).shape
        added = torch.randn(shape).to(memory_format=LAST).requires_grad_()
    got, inputs = chain.run(links, maps, added), [maps, *([] if added is None else [added])]
    towards = torch.randn_like(got)
    mine = torch.autograd.grad(got, [*inputs, *weights(links)], towards)
    exact_inputs = [each.detach().double().requires_grad_() for each in inputs]
    expected = plain(exact, exact_inputs[0], exact_inputs[1] if with_added else None)
    theirs = torch.autograd.grad(expected, [*exact_inputs, *weights(exact)], towards.double())
    for a, b in zip((got, *mine, *statistics(links)), (expected, *theirs, *statistics(exact)), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=2e-5 * b.detach().abs().max().item())
    assert got.is_contiguous(memory_format=LAST)
    assert all(each.norm.num_batches_tracked == 1 for each in links)


@pytest.mark.usefixtures("compiler", "threads")
def test_bitwise_the_same_again_and_nearly_with_more_threads() -> None:
    links = [link(8, 48, RELU6), link(48, 48, RELU6, stride=1), link(48, 32, RELU6, dense=True)]
    links.append(link(32, 16, NO_BOUNDS))
    maps = torch.randn(5, 8, 24, 23).to(memory_format=LAST).requires_grad_()

    def everything(threads: int) -> list[Tensor]:
        torch.set_num_threads(threads)
        result = chain.run(links, maps)
        return [result.detach(), *torch.autograd.grad(result.square().sum(), [maps, *weights(links)])]

    one, two = everything(1), everything(2)
    for again, first, other in zip(everything(2), two, one, strict=True):
        assert torch.equal(again, first)
        torch.testing.assert_close(first, other, rtol=1e-4, atol=1e-5 * other.abs().max().item())


@pytest.mark.usefixtures("compiler", "threads")
def test_more_threads_than_there_is_work_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would have its own gradient to every weight."""
    links = [link(8, 32, RELU6), link(32, 32, RELU6, stride=1), link(32, 32, RELU6, dense=True)]
    maps = torch.randn(2, 8, 6, 5).to(memory_format=LAST)
    torch.set_num_threads(2)
    as_many_as_images = torch.autograd.grad(chain.run(links, maps).square().sum(), weights(links))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2**31 - 1)
    more = torch.autograd.grad(chain.run(links, maps).square().sum(), weights(links))
    assert all(map(torch.equal, more, as_many_as_images))


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("shape", [(2**45, 1, 1), (1, 1, 2**45)])  # found in the function itself, and in a thread
def test_out_of_memory_is_an_error(shape: tuple[int, int, int]) -> None:
    """An exception of C++ that nobody catches would end the process."""
    links, maps = [link(8, 8, RELU6, stride=1)], torch.zeros(2, 8, 1, 1)
    described = chain._described(links, weights(links), torch.zeros(16), [maps])
    with pytest.raises(MemoryError, match="not enough memory for chain"):
        native.call("chain", described, ctypes.c_int64(1), (ctypes.c_int64 * 3)(*shape), 2, maps, None, maps)


@pytest.mark.usefixtures("compiler")
def test_an_outlier_in_the_statistics_does_not_cancel() -> None:
    links, maps = [link(8, 8, NO_BOUNDS)], torch.randn(4, 8, 16, 16) + 3000.0
    exact = Link(copy.deepcopy(links[0].conv).double(), copy.deepcopy(links[0].norm).double(), NO_BOUNDS)
    links[0].conv.weight.data = torch.eye(8)[..., None, None].clone()
    exact.conv.weight.data = links[0].conv.weight.data.double()
    maps = maps.to(memory_format=LAST)
    torch.testing.assert_close(
        chain.run(links, maps).double(), plain([exact], maps.double(), None), rtol=1e-3, atol=1e-3
    )


@pytest.mark.usefixtures("compiler")
def test_what_is_frozen_gets_no_gradient_and_nan_goes_through() -> None:
    links = [link(8, 32, RELU6), link(32, 32, RELU6, stride=1), link(32, 32, RELU6, dense=True)]
    for each in links:
        each.conv.weight.requires_grad_(False)
    maps = torch.randn(1, 8, 6, 6).to(memory_format=LAST)
    chain.run(links, maps).sum().backward()
    assert all(each.conv.weight.grad is None and each.norm.weight.grad is not None for each in links)
    maps[0, 0, 0, 0] = float("nan")
    assert chain.run(links, maps).isnan().all()


def blocks() -> list[nn.Module]:
    settings = {"norm_cfg": {"type": "BN"}, "act_cfg": {"type": "ReLU6"}}
    return [
        InvertedResidual(16, 16, 1, 6, **settings),
        InvertedResidual(16, 24, 2, 6, dilation=2, **settings),
        InvertedResidual(16, 16, 1, 1, **settings),
        DepthwiseSeparableConvModule(16, 32, 3, padding=1, **settings),
    ]


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("mode", ["train", "eval", "contiguous", "double", "no compiler"])
def test_blocks_of_mmsegmentation(index: int, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = randomised(blocks()[index])
    fast = nn.Sequential(copy.deepcopy(slow))
    speed_up(fast)
    assert isinstance(fast[0], FastInvertedResidual | FastSeparableConvModule)
    maps = torch.randn(2, 16, 11, 9).to(memory_format=torch.contiguous_format if mode == "contiguous" else LAST)
    if mode == "no compiler":
        monkeypatch.setattr(native, "library", lambda: None)
    if mode == "eval":
        slow.eval(), fast.eval()
    if mode == "double":
        slow.double(), fast.double()
        maps = maps.double()
    towards = torch.randn_like(slow(maps))
    both = []
    for network in (slow, fast):
        read = maps.clone().requires_grad_()
        result = network(read)
        both.append([result, *torch.autograd.grad(result, [read, *network.parameters()], towards)])
    for ours, theirs in zip(*reversed(both), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.detach().abs().max().item())
    fast(maps), slow(maps), slow(maps)  # the first of slow's gave the shape
    assert [name.removeprefix("0.") for name in fast.state_dict()] == list(slow.state_dict())


def test_maps_that_do_not_fit_are_left_to_the_layers_to_refuse() -> None:
    links = [link(8, 16, RELU6), link(16, 16, RELU6, stride=1)]
    for shape in [(2, 16, 6, 6), (2, 8, 0, 6), (1, 8, 1, 1), (8, 6, 6)]:
        maps = torch.zeros(shape)
        assert not chain.usable(links, maps.to(memory_format=LAST) if maps.ndim == 4 else maps)
    assert not chain.usable([links[0], links[0]], torch.zeros(2, 8, 6, 6).to(memory_format=LAST))
    block = nn.Sequential(blocks()[0])
    speed_up(block)
    with pytest.raises(RuntimeError, match=r"to have 16 channels|expected input|shapes cannot be multiplied"):
        block(torch.randn(2, 24, 8, 8).to(memory_format=LAST))


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_one_pixel_has_no_variance(stride: int) -> None:
    """It would leave a running variance that is not a number."""
    links, alone = [link(8, 8, RELU6), link(8, 8, RELU6, stride=stride)], torch.zeros(1, 8, stride, 1)
    assert not chain.usable(links, alone.to(memory_format=LAST))
    several = torch.randn(1, 8, stride + 1, 1).to(memory_format=LAST)
    assert chain.usable(links, several)
    chain.run(links, several)
    assert all(each.isfinite().all() for each in statistics(links))


CHANGES: list[Callable[[nn.Conv2d, nn.BatchNorm2d], object]] = [
    lambda conv, norm: conv.to("meta"),
    lambda conv, norm: norm.to("meta"),
    lambda conv, norm: setattr(norm, "momentum", None),
    lambda conv, norm: setattr(norm, "track_running_stats", False),
    lambda conv, norm: setattr(norm, "running_mean", None),
    lambda conv, norm: setattr(norm, "running_var", norm.running_var.double()),
    lambda conv, norm: setattr(norm, "bias", None),
    lambda conv, norm: setattr(norm, "bias", nn.Parameter(norm.bias.bfloat16())),
    lambda conv, norm: setattr(norm, "weight", nn.Parameter(norm.weight[:8])),
    lambda conv, norm: setattr(norm, "weight", nn.Parameter(torch.ones(16, 2)[:, 0])),  # with gaps
]


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("change", CHANGES)
def test_layers_changed_since_are_left_to_torch(change: Callable[[nn.Conv2d, nn.BatchNorm2d], object]) -> None:
    """C++ would read what is not there."""
    changed, maps = link(8, 16, RELU6), torch.randn(2, 8, 6, 6).to(memory_format=LAST)
    assert chain.usable([changed], maps)
    change(changed.conv, changed.norm)
    assert not chain.usable([changed], maps)


@pytest.mark.usefixtures("compiler")
def test_statistics_are_taken_anew_after_averaging_weights() -> None:
    block = nn.Sequential(blocks()[0])
    speed_up(block)
    batches = [torch.randn(2, 16, 8, 8).to(memory_format=LAST) for _ in range(2)]
    expected = copy.deepcopy(block).double()
    torch.optim.swa_utils.update_bn([each.double() for each in batches], expected)
    torch.optim.swa_utils.update_bn(batches, block)
    for ours, theirs in zip(block.buffers(), expected.buffers(), strict=True):
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("compiler")
def test_another_default_dtype_changes_nothing() -> None:
    """C++ writes float32, whatever torch would allocate."""
    links, maps = [link(8, 16, RELU6), link(16, 16, RELU6, stride=1)], torch.randn(2, 8, 6, 6).to(memory_format=LAST)
    expected = chain.run(links, maps)
    torch.set_default_dtype(torch.float64)
    try:
        found = chain.run(links, maps)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)


def test_a_hook_is_called() -> None:
    block = nn.Sequential(blocks()[0])
    speed_up(block)
    seen = []
    block[0].conv[1].conv.register_forward_hook(lambda layer, read, result: seen.append(result.shape))
    block(torch.randn(2, 16, 8, 8).to(memory_format=LAST))
    assert seen == [(2, 96, 8, 8)]


@pytest.mark.parametrize(
    "block",
    [
        InvertedResidual(16, 16, 1, 6, norm_cfg={"type": "BN"}, with_cp=True),
        InvertedResidual(16, 20, 1, 6, norm_cfg={"type": "BN"}),  # channels that are no multiple of 8
        InvertedResidual(16, 16, 1, 6, norm_cfg={"type": "BN"}, act_cfg={"type": "HSwish"}),
        DepthwiseSeparableConvModule(16, 32, 5, padding=2, norm_cfg={"type": "BN"}),
        DepthwiseSeparableConvModule(16, 32, 3, norm_cfg={"type": "BN"}),  # shrinks
    ],
)
def test_leaves_other_blocks_alone(block: nn.Module) -> None:
    network = nn.Sequential(block)
    speed_up(network)
    assert not isinstance(network[0], FastInvertedResidual | FastSeparableConvModule)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({}, chain.DENSE),
        ({"stride": 2}, None),
        ({"dilation": 2, "padding": 2}, None),
        ({"padding": 0}, None),
        ({"groups": 2}, None),
        ({"bias": True}, None),
        ({"in_channels": 24}, None),
        ({"out_channels": 36}, None),
        ({"padding_mode": "reflect"}, None),
        ({"groups": 32}, chain.DEPTHWISE),
        ({"groups": 32, "stride": (1, 2)}, None),
        ({"groups": 32, "out_channels": 64}, None),
    ],
)
def test_which_convolutions_there_are_functions_for(settings: dict[str, object], kind: int | None) -> None:
    given = {"in_channels": 32, "out_channels": 32, "kernel_size": 3, "padding": 1, "bias": False, **settings}
    conv = nn.Conv2d(**given)
    assert Link(conv, nn.BatchNorm2d(conv.out_channels), RELU6).kind == kind


def test_one_block_is_a_chain_of_one() -> None:
    if native.library() is None:
        pytest.skip("no C++ compiler")
    network = nn.Sequential(blocks()[3].pointwise_conv)
    speed_up(network)
    assert isinstance(network[0], FastConvModule)
    result = network(torch.randn(2, 16, 8, 8).to(memory_format=LAST))
    assert type(result.grad_fn).__name__ == "_ChainBackward"
