"""Losses on the CPU, float32, 2 threads, forward and backward, against F.cross_entropy in the same run.

"reference" is this project's own plain path, which the fused pass is tested against. Peak memory is the resident
memory that one forward and backward adds at its peak, in a process of its own, over that before the call, in
multiples of the logits; peaks of less than a sampling step (1 ms) are missed. The first run on a machine compiles
for some minutes more.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import autoseg
from benchmarks.harness import Row, paired

C = 21
SHAPES = ((8, C, 128, 128), (2, C, 512, 512))
PUBLISHED = {"miou": "asl2021/miou", "fwiou": "asl2021/fwiou", "macc": "asl2021/macc", "gacc": "asl2021/gacc",
             "biou": "asl2021/biou", "bf1": "asl2021/bf1"}  # fmt: skip
EAGER = {"biou": (7, 7), "bf1": (25, 25)}  # bounds for the small and the large shape
COMPILED = {"biou": 3, "bf1": 12}
METRICS = ("miou", "fwiou", "dice", "macc", "gacc", "biou", "bf1")
BY_REFERENCE = (("miou", SHAPES[0]), ("miou", SHAPES[1]), ("biou", SHAPES[0]), ("bf1", SHAPES[0]))


def rows() -> list[Row]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        out = [_timed(f"{m}, eager", build(m), shape, EAGER.get(m, (5, 2.5))[i])
               for i, shape in enumerate(SHAPES) for m in METRICS]  # fmt: skip
        out += [_compiled(m, shape) for shape in SHAPES for m in METRICS if m != "bf1"]
        out += [_timed(f"{m}, reference", build(m, fused=False), shape, repeats=3)
                for m, shape in BY_REFERENCE]  # fmt: skip
        for shape in SHAPES:
            out += [_timed(name, loss, shape, repeats=3) for name, loss in _rivals()]
        return out + [_memory(m, SHAPES[1]) for m in ("cross-entropy", "miou", "biou", "bf1")]
    finally:
        torch.set_num_threads(threads)


def build(metric: str, **options: bool) -> nn.Module:
    """The loss of a metric with the paper's published curves, identity curves where it published none."""
    fused = options.pop("fused", True)
    if metric == "cross-entropy":
        return nn.CrossEntropyLoss(ignore_index=255)
    if metric in PUBLISHED:
        loss = autoseg.load_loss(PUBLISHED[metric], num_classes=C, **options)
    else:
        loss = autoseg.SurrogateLoss(metric, C, **options)
    loss.fused = fused
    return loss


def batch(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Logits that need a gradient, and labels in blocks of 16 pixels with a void corner."""
    g = torch.Generator().manual_seed(0)
    n, c, height, width = shape
    labels = torch.randint(0, c, (n, height // 16, width // 16), generator=g)
    labels = labels.repeat_interleave(16, 1).repeat_interleave(16, 2)
    labels[:, : height // 32, : width // 14] = 255
    return torch.randn(shape, generator=g, requires_grad=True), labels


def step(loss: nn.Module, logits: Tensor, labels: Tensor) -> Callable[[], None]:
    """One forward and backward."""

    def run() -> None:
        logits.grad = None
        loss(logits, labels).backward()

    return run


def _timed(
    what: str, loss: nn.Module, shape: tuple[int, ...], bound: float = 0, repeats: int = 9, **detail: float
) -> Row:
    ours, theirs = step(loss, *batch(shape)), step(build("cross-entropy"), *batch(shape))
    mine, other, ratio = paired(ours, theirs, repeats=repeats, warmup=1)
    target = f"<= {bound:g}" if bound else ""
    sizes = {"shape": list(shape), "threads": 2, "repeats": repeats}
    return Row(f"{what}, {_name(shape)}", "F.cross_entropy", 1e3 * mine, 1e3 * other, ratio, "ms", target,
               {**sizes, **detail})  # fmt: skip


def _compiled(metric: str, shape: tuple[int, ...]) -> Row:
    loss = build(metric, compile=True)
    start = time.perf_counter()
    step(loss, *batch(shape))()
    first = time.perf_counter() - start  # compilation, or a look into inductor's cache of an earlier run
    return _timed(f"{metric}, compiled", loss, shape, COMPILED.get(metric, 2), first_batch_seconds=round(first, 2))


def _rivals() -> list[tuple[str, nn.Module]]:
    rivals = [("lovasz, ours", autoseg.build_loss("lovasz", num_classes=C))]
    try:
        from segmentation_models_pytorch.losses import LovaszLoss
    except ImportError:
        return rivals
    return [*rivals, ("lovasz, segmentation_models_pytorch", LovaszLoss("multiclass", ignore_index=255))]


def _memory(metric: str, shape: tuple[int, ...]) -> Row:
    """Peak extra memory in multiples of the logits; the bound is 3, what cross-entropy takes (BF1 8)."""
    arguments = [sys.executable, "-m", "benchmarks.losses", metric, *map(str, shape)]
    extra = float(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)
    size = 4e-6 * torch.Size(shape).numel()
    bound = "" if metric == "cross-entropy" else "<= 8" if metric == "bf1" else "<= 3"
    return Row(f"{metric}, peak extra memory, {_name(shape)}", "the logits", extra, size, extra / size, "MB", bound,
               {"shape": list(shape), "by": "resident memory sampled every ms"})  # fmt: skip


def _name(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _peak(metric: str, shape: tuple[int, ...]) -> float:
    """MB that a step adds at its peak; a small step first, for what is loaded on first use."""
    import psutil

    torch.set_num_threads(2)
    loss, process = build(metric), psutil.Process()
    step(loss, *batch((1, C, 32, 32)))()
    run = step(loss, *batch(shape))
    before = peak = process.memory_info().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, process.memory_info().rss)
            time.sleep(1e-3)

    watcher = threading.Thread(target=watch)
    watcher.start()
    run()
    done.set()
    watcher.join()
    return (max(peak, process.memory_info().rss) - before) / 1e6


if __name__ == "__main__":
    print(_peak(sys.argv[1], tuple(map(int, sys.argv[2:]))))
