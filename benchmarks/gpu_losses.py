"""Losses on a GPU, bf16 logits (16, 21, 512, 512), forward and backward, against F.cross_entropy in the same run.

"Triton" is the kernels of `surrogates/fast/gpu`, "reference" this project's own plain path. Every call is timed
until the device has done its work. "Replayed" are both losses as CUDA graphs, which the host starts at once: what the
device needs, also with other programs of the kernels, once they agree with the usual ones, and with float32 logits, as
the trainings of a search have them, of few classes and of many. Peak memory is what one forward and backward allocates
at its peak, in multiples of the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from autoseg.surrogates.fast.gpu import launches
from autoseg.training.cuda_graph import CudaGraph
from benchmarks import losses
from benchmarks.harness import Row, attempted, by_kernels, paired

DEVICE = "cuda"
SHAPE = (16, losses.C, 512, 512)
METRICS = ("miou", "fwiou", "dice", "macc", "gacc", "biou")
OTHER_TILES = ((32, 4), (32, 16), (64, 4))  # of a program: pixels of a tile, tiles
TRAINED = ((32, losses.C, 128, 128), (4, 150, 512, 512))  # shapes of float32 logits, which the networks return
BOUNDS = {"miou": "<= 1.3"}


def rows(device: str = DEVICE, shape: tuple[int, ...] = SHAPE, repeats: int = 25) -> Iterator[Row]:
    """None where there is no GPU; a row that cannot be taken there is said to be missing."""
    if device == "cuda" and not torch.cuda.is_available():
        print("gpu_losses: there is no GPU here; nothing was measured, nothing is kept")
        return
    kinds = [(f"{m}, Triton", losses.build(m), BOUNDS.get(m, "")) for m in METRICS]
    kinds += [(f"{m}, reference", losses.build(m, fused=False), "") for m in ("miou", "biou")]
    figures = [(what, partial(_timed, what, loss, bound, device, shape, repeats)) for what, loss, bound in kinds]
    last = "miou, Triton, channels-last"
    figures.append((last, partial(_timed, last, losses.build("miou"), "", device, shape, repeats, last=True)))
    if device == "cuda":
        for what, loss, _ in [*kinds, ("cross-entropy", losses.build("cross-entropy"), "")]:
            name = f"{what}, peak extra memory"
            figures.append((name, partial(_memory, name, loss, shape)))
        # The device's time alone; of mIoU also that of the kernels for many classes, and of other tiles.
        others = ({"HELD": 0}, *({"TILES": tiles} for tiles in OTHER_TILES))
        for metric, options in [("miou", {}), ("biou", {}), *(("miou", each) for each in others)]:
            name = f"{metric}, Triton, replayed" + "".join(f", {key}={value}" for key, value in options.items())
            figures.append((name, partial(_replayed, name, metric, options, shape, repeats)))
        for each in TRAINED:
            name = f"miou, Triton, replayed, float32 logits of {' x '.join(map(str, each))}"
            figures.append((name, partial(_replayed, name, "miou", {}, each, repeats, torch.float32)))
    with by_kernels():
        yield from attempted(figures)


def batch(
    device: str, shape: tuple[int, ...], last: bool = False, dtype: torch.dtype = torch.bfloat16
) -> tuple[Tensor, Tensor]:
    """As `losses.batch`, bf16 unless said otherwise, on the device."""
    logits, labels = _drawn(shape, dtype)
    form = torch.channels_last if last else torch.contiguous_format
    return logits.to(device, memory_format=form, copy=True).requires_grad_(), labels.to(device)


@cache
def _drawn(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Once for all rows: a CPU takes a second to draw as many numbers."""
    logits, labels = losses.batch(shape)
    return logits.detach().to(dtype), labels


def _timed(
    what: str, loss: nn.Module, bound: str, device: str, shape: tuple[int, ...], repeats: int, last: bool = False
) -> Iterator[Row]:
    logits, labels = batch(device, shape, last)
    ours = losses.step(loss.to(device), logits, labels)
    theirs = losses.step(losses.build("cross-entropy"), logits, labels)
    mine, other, ratio = paired(ours, theirs, repeats=repeats, device=device)
    yield Row(what, "F.cross_entropy", 1e3 * mine, 1e3 * other, ratio, "ms", bound,
              {"shape": list(shape), "dtype": "bfloat16", "repeats": repeats})  # fmt: skip


def _replayed(
    what: str,
    metric: str,
    options: dict[str, Any],
    shape: tuple[int, ...],
    repeats: int,
    dtype: torch.dtype = torch.bfloat16,
) -> Iterator[Row]:
    logits, labels = batch("cuda", shape, dtype=dtype)
    loss = losses.build(metric, num_classes=shape[1]).to("cuda")
    theirs = _graph(losses.step(losses.build("cross-entropy"), logits.detach().requires_grad_(), labels))
    usual = _computed(loss, logits, labels)
    with _launched(options):
        check_same(*_computed(loss, logits, labels), *usual)
        ours = _graph(losses.step(loss, logits, labels))
    mine, other, ratio = paired(ours, theirs, repeats=repeats, device="cuda")
    yield Row(what, "F.cross_entropy, replayed", 1e3 * mine, 1e3 * other, ratio, "ms", "",
              {"shape": list(shape), "dtype": str(dtype).removeprefix("torch."), "repeats": repeats})  # fmt: skip


@contextmanager
def _launched(options: dict[str, Any]) -> Iterator[None]:
    """Within, kernels are launched with other constants of `launches`."""
    kept = {name: getattr(launches, name) for name in options}
    try:
        for name, value in options.items():
            setattr(launches, name, value)
        yield
    finally:
        for name, value in kept.items():
            setattr(launches, name, value)


def _computed(loss: nn.Module, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient."""
    leaf = logits.detach().requires_grad_()
    value = loss(leaf, labels)
    value.backward()
    return value.detach(), leaf.grad


def check_same(value: Tensor, grad: Tensor, usual: Tensor, usual_grad: Tensor) -> None:
    """Refuse to time kernels that compute something else: what `checks` tried are the usual ones.

    Gradients may be apart by a hundredth of the largest, and one number, or one of 100,000, by more: where a curve has
    a knot its slope may jump, and a probability beside it may be rounded to either side.
    """
    wrong = ~((grad - usual_grad).abs() <= 1e-2 * usual_grad.abs().max())
    off, count = float((value - usual).abs()), int(wrong.sum())
    if not off <= 5e-6 or count > max(1, 1e-5 * wrong.numel()):
        raise RuntimeError(f"not the usual values: the loss is off by {off:.1e}, and {count} numbers of its gradient")


def _graph(run: Callable[[], None]) -> Callable[[], None]:
    """A call that replays what `run` does."""
    graph = CudaGraph(torch.device("cuda"))
    for _ in range(3):
        graph.warm_up(run)
    graph.capture(run)
    return graph.replay


def _memory(what: str, loss: nn.Module, shape: tuple[int, ...]) -> Iterator[Row]:
    logits, labels = batch("cuda", shape)
    run = losses.step(loss.to("cuda"), logits, labels)
    run()  # what is allocated once
    logits.grad = None
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    extra, size = torch.cuda.max_memory_allocated() - before, logits.numel() * logits.element_size()
    yield Row(what, "the logits", extra / 1e6, size / 1e6, extra / size, "MB", "",
              {"shape": list(shape), "by": "torch.cuda.max_memory_allocated"})  # fmt: skip
