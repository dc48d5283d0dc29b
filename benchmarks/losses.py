"""Losses on the CPU, float32, 2 threads, forward and backward, against F.cross_entropy in the same run.

"reference" is this project's own plain path, which the fused pass is tested against. Every row is taken in a process
forked for it, so that none depends on what the rows before left in the memory allocator; tensors under 32 MB reuse
memory there, larger ones get fresh pages at every step, which is glibc's habit in any process that has run a network.
"first batch" rows take the loss's first call of a process, with and without the code that an earlier process built.

Peak memory is the resident memory that one forward and backward adds at its peak, in a process of its own, over that
before the call, in multiples of the logits; peaks of less than a sampling step (1 ms) are missed.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn

import autoseg
from benchmarks.harness import Row, paired, seconds

C = 21
SHAPES = ((8, C, 128, 128), (2, C, 512, 512))
PUBLISHED = {"miou": "asl2021/miou", "fwiou": "asl2021/fwiou", "macc": "asl2021/macc", "gacc": "asl2021/gacc",
             "biou": "asl2021/biou", "bf1": "asl2021/bf1"}  # fmt: skip
EAGER = {"biou": (7, 7), "bf1": (25, 25)}  # bounds for the small and the large shape
COMPILED = {"biou": 3, "bf1": 12}
THREADS = 2
RIVAL = "lovasz, segmentation_models_pytorch"
MEMORY = (("cross-entropy", 0), ("miou", 0), ("biou", 0), ("bf1", 0), ("miou", 1), ("biou", 1), ("bf1", 1))
METRICS = ("miou", "fwiou", "dice", "macc", "gacc", "biou", "bf1")
BY_REFERENCE = (("miou", SHAPES[0]), ("miou", SHAPES[1]), ("biou", SHAPES[0]), ("bf1", SHAPES[0]))


def rows() -> list[Row]:
    out = [_row(f"{m}, eager", shape, EAGER.get(m, (5, 2.5))[i], m)
           for i, shape in enumerate(SHAPES) for m in METRICS]  # fmt: skip
    out += [_row(f"{m}, compiled", shape, COMPILED.get(m, 2), m, compile=True) for shape in SHAPES for m in METRICS]
    out += [_row(f"{m}, reference", shape, 0, m, repeats=3, fused=False) for m, shape in BY_REFERENCE]
    out += [_row(name, shape, 0, name, repeats=3) for shape in SHAPES for name in _rivals()]
    return out + _first_batches() + [_memory(m, shape, c) for shape in SHAPES for m, c in MEMORY]


def build(name: str, num_classes: int = C, **options: bool) -> nn.Module:
    """A loss by name: a metric's has the curves that the paper published, Dice those of mIoU."""
    fused = options.pop("fused", True)
    if name == "cross-entropy":
        return nn.CrossEntropyLoss(ignore_index=255)
    if name == "lovasz, ours":
        return autoseg.build_loss("lovasz", num_classes=num_classes)
    if name == RIVAL:
        from segmentation_models_pytorch.losses import LovaszLoss

        return LovaszLoss("multiclass", ignore_index=255)
    if name in PUBLISHED:
        loss = autoseg.load_loss(PUBLISHED[name], num_classes=num_classes, **options)
    else:  # of the same operands; identity curves would be cheaper than any that a search finds
        curves = autoseg.load_loss(PUBLISHED["miou"], num_classes).control_points
        loss = autoseg.SurrogateLoss(name, num_classes, control_points=curves, **options)
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


def _row(what: str, shape: tuple[int, ...], bound: float, name: str, repeats: int = 0, **options: bool) -> Row:
    """Timed in a process of its own."""
    repeats = repeats or (31 if shape == SHAPES[0] else 11)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        mine, other, ratio = pool.apply(_timed, (name, shape, repeats, options))
    target = f"<= {bound:g}" if bound else ""
    return Row(f"{what}, {_name(shape)}", "F.cross_entropy", 1e3 * mine, 1e3 * other, ratio, "ms", target,
               {"shape": list(shape), "threads": THREADS, "repeats": repeats})  # fmt: skip


def _timed(name: str, shape: tuple[int, ...], repeats: int, options: dict[str, bool]) -> tuple[float, float, float]:
    torch.set_num_threads(THREADS)
    torch.ones(31 * 2**18)  # 31 MB, freed at once: from here on glibc keeps what is freed below that size
    ours, theirs = step(build(name, **options), *batch(shape)), step(build("cross-entropy"), *batch(shape))
    return paired(ours, theirs, repeats=repeats, warmup=3 if repeats > 3 else 1)


def _rivals() -> list[str]:
    return ["lovasz, ours", *([RIVAL] if find_spec("segmentation_models_pytorch") else [])]


def _first_batches() -> list[Row]:
    """The first batch of a process, in seconds: what building the native code costs, and what it costs once built."""
    with tempfile.TemporaryDirectory() as folder:
        built, again = (_call("first", "miou", 1, SHAPES[0], XDG_CACHE_HOME=folder) for _ in range(2))
    eager = _call("first", "miou", 0, SHAPES[0])
    return [
        Row(f"miou, first batch, compiled, {when}, {_name(SHAPES[0])}", "eager, its first batch", took, eager,
            took / eager, "s", "", {"shape": list(SHAPES[0]), "threads": THREADS})
        for when, took in (("nothing built", built), ("built before", again))
    ]  # fmt: skip


def _call(what: str, name: str, compiled: int, shape: tuple[int, ...], **environment: str) -> float:
    """A number that a process of its own measures."""
    arguments = [sys.executable, "-m", "benchmarks.losses", what, name, str(compiled), *map(str, shape)]
    environment = {**os.environ, **environment}
    return float(subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment).stdout)


def _memory(metric: str, shape: tuple[int, ...], compiled: int) -> Row:
    """Peak extra memory in multiples of the logits; the bound is 3, what cross-entropy takes (BF1 8)."""
    extra = _call("peak", metric, compiled, shape)
    size = 4e-6 * torch.Size(shape).numel()
    bound = "" if metric == "cross-entropy" else "<= 8" if metric == "bf1" else "<= 3"
    what = f"{metric}{', compiled' if compiled else ''}, peak extra memory, {_name(shape)}"
    return Row(what, "the logits", extra, size, extra / size, "MB", bound,
               {"shape": list(shape), "by": "resident memory sampled every ms"})  # fmt: skip


def _name(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _first(metric: str, compiled: bool, shape: tuple[int, ...]) -> float:
    """Seconds of a loss's first forward and backward in this process."""
    torch.set_num_threads(THREADS)
    run = step(build(metric, compile=compiled), *batch(shape))
    step(build("cross-entropy"), *batch(shape))()  # autograd's own first steps
    return seconds(run)


def _peak(metric: str, compiled: bool, shape: tuple[int, ...]) -> float:
    """MB that a step adds at its peak; a small step first, for what is loaded on first use."""
    import psutil

    torch.set_num_threads(THREADS)
    loss, process = build(metric, **({"compile": True} if compiled else {})), psutil.Process()
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
    what, name, compiled, *shape = sys.argv[1:]
    print((_first if what == "first" else _peak)(name, compiled == "1", tuple(map(int, shape))))
