"""Losses on a GPU, bf16 logits (16, 21, 512, 512), forward and backward, against F.cross_entropy in the same run.

"Triton" is the kernels of `surrogates/fast/gpu`, "reference" this project's own plain path. Every call is timed
until the device has done its work. "Replayed" are both losses as CUDA graphs, which the host starts at once: what the
device needs, also with other programs of the kernels. Peak memory is what one forward and backward allocates at its
peak, in multiples of the logits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from autoseg.surrogates.fast.gpu import launches
from autoseg.training.replay import CudaGraph
from benchmarks import losses
from benchmarks.harness import Row, paired

DEVICE = "cuda"
SHAPE = (16, losses.C, 512, 512)
METRICS = ("miou", "fwiou", "dice", "macc", "gacc", "biou")
OTHER_TILES = ((32, 4), (32, 16), (64, 4))  # of a program: pixels of a tile, tiles
BOUNDS = {"miou": "<= 1.3"}


def rows(device: str = DEVICE, shape: tuple[int, ...] = SHAPE, repeats: int = 25) -> Iterator[Row]:
    """None where there is no GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        print("gpu_losses: there is no GPU here; nothing was measured, nothing is kept")
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*Triton kernels cannot run")  # else the reference would be timed
        kinds = [(f"{m}, Triton", losses.build(m), BOUNDS.get(m, "")) for m in METRICS]
        kinds += [(f"{m}, reference", losses.build(m, fused=False), "") for m in ("miou", "biou")]
        for what, loss, bound in kinds:
            yield _timed(what, loss, bound, device, shape, repeats)
        yield _timed("miou, Triton, channels-last", losses.build("miou"), "", device, shape, repeats, last=True)
        if device == "cuda":
            yield from _replayed(shape, repeats)
            for what, loss, _ in [*kinds, ("cross-entropy", losses.build("cross-entropy"), "")]:
                yield _memory(what, loss, shape)


def batch(device: str, shape: tuple[int, ...], last: bool = False) -> tuple[Tensor, Tensor]:
    """As `losses.batch`, bf16, on the device."""
    logits, labels = losses.batch(shape)
    form = torch.channels_last if last else torch.contiguous_format
    logits = logits.detach().to(device, torch.bfloat16).contiguous(memory_format=form)
    return logits.requires_grad_(), labels.to(device)


def _timed(
    what: str, loss: nn.Module, bound: str, device: str, shape: tuple[int, ...], repeats: int, last: bool = False
) -> Row:
    logits, labels = batch(device, shape, last)
    ours = losses.step(loss.to(device), logits, labels)
    theirs = losses.step(losses.build("cross-entropy"), logits, labels)
    mine, other, ratio = paired(ours, theirs, repeats=repeats, device=device)
    return Row(what, "F.cross_entropy", 1e3 * mine, 1e3 * other, ratio, "ms", bound,
               {"shape": list(shape), "dtype": "bfloat16", "repeats": repeats})  # fmt: skip


def _replayed(shape: tuple[int, ...], repeats: int) -> Iterator[Row]:
    """The device's time alone; of mIoU also that of the kernels for many classes, and of other tiles."""
    logits, labels = batch("cuda", shape)
    theirs = _graph(losses.step(losses.build("cross-entropy"), logits.detach().requires_grad_(), labels))
    kinds = [("miou", {}), ("biou", {}), ("miou", {"HELD": 0}), *(("miou", {"TILES": tiles}) for tiles in OTHER_TILES)]
    for metric, options in kinds:
        kept = {name: getattr(launches, name) for name in options}
        try:
            for name, value in options.items():
                setattr(launches, name, value)
            ours = _graph(losses.step(losses.build(metric).to("cuda"), logits, labels))
            mine, other, ratio = paired(ours, theirs, repeats=repeats, device="cuda")
        finally:
            for name, value in kept.items():
                setattr(launches, name, value)
        how = "".join(f", {name}={value}" for name, value in options.items())
        yield Row(f"{metric}, Triton, replayed{how}", "F.cross_entropy, replayed", 1e3 * mine, 1e3 * other, ratio, "ms",
                  "", {"shape": list(shape), "dtype": "bfloat16", "repeats": repeats})  # fmt: skip


def _graph(run: Callable[[], None]) -> Callable[[], None]:
    """A call that replays what `run` does."""
    graph = CudaGraph(torch.device("cuda"))
    for _ in range(3):
        graph.warm_up(run)
    graph.capture(run)
    return graph.replay


def _memory(what: str, loss: nn.Module, shape: tuple[int, ...]) -> Row:
    logits, labels = batch("cuda", shape)
    run = losses.step(loss.to("cuda"), logits, labels)
    run()  # what is allocated once
    logits.grad = None
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    extra, size = torch.cuda.max_memory_allocated() - before, logits.numel() * logits.element_size()
    return Row(f"{what}, peak extra memory", "the logits", extra / 1e6, size / 1e6, extra / size, "MB", "",
               {"shape": list(shape), "by": "torch.cuda.max_memory_allocated"})  # fmt: skip
