"""What a step of a loss on a GPU asks of the host, taken without one: CPU time, beside cross-entropy's.

bf16 logits (2, 21, 16, 16), forward and backward, one thread; the losses in turn, 25 blocks of 20 steps. Kernels are
specialised as for sm_90 and launched into nothing (`tests/unit/surrogates/pretended.py`), so that what Triton's C
launcher does is missing, some 20 us for each kernel; what PyTorch does runs on the CPU. Kept too are Python's calls and
PyTorch's operations, without views and the check of the labels.
"""

from __future__ import annotations

import contextlib
import cProfile
import pstats
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from autoseg.surrogates import loss
from autoseg.surrogates.fast import reading
from autoseg.surrogates.fast.gpu import checks
from benchmarks import losses
from benchmarks.harness import Row

PRETENDED = Path(__file__).parents[1] / "tests" / "unit" / "surrogates"
SHAPE = (2, losses.C, 16, 16)
METRICS = ("miou", "macc", "biou")
PEER = "cross-entropy"


class _Started(TorchDispatchMode):
    """Counts operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


def pretend() -> None:
    """Have tensors on the CPU stand for those on a GPU, from now on."""
    import triton

    sys.path.insert(0, str(PRETENDED))
    from pretended import Driver

    driver = Driver(90)
    driver.launcher_cls = lambda source, metadata: lambda *args: None
    triton.runtime.driver._active = driver
    options: list[tuple[Any, str, Callable[..., Any]]] = [
        (torch.cuda, "device_of", lambda _: contextlib.nullcontext()), (torch, "_assert_async", lambda *_: None),
        (checks, "usable", lambda *_: True), (checks, "draws", lambda *_: True),
        (loss, "by_kernels", lambda _: True), (reading, "by_kernels", lambda _: True),
        (loss, "check_labels", lambda *_, **__: None),
    ]  # fmt: skip
    for place, name, instead in options:
        setattr(place, name, instead)


@dataclass(frozen=True)
class Step:
    """A step of a loss: CPU microseconds of each block, Python's calls, PyTorch's operations."""

    taken: list[float]
    calls: int
    operations: int


def steps(names: Sequence[str], blocks: int = 25, repeats: int = 20) -> dict[str, Step]:
    """Of each loss; for a process of its own, in which nothing runs on a GPU afterwards."""
    torch.set_num_threads(1)
    pretend()
    calls: dict[str, Callable[[], None]] = {}
    for name in names:
        logits, labels = losses.batch(SHAPE)
        calls[name] = losses.step(losses.build(name), logits.detach().bfloat16().requires_grad_(), labels)
    for call in calls.values():
        for _ in range(30):
            call()
    taken: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(blocks):
        for name, call in calls.items():
            start = time.process_time()
            for _ in range(repeats):
                call()
            taken[name].append((time.process_time() - start) / repeats * 1e6)
    return {name: Step(taken[name], *_counted(call)) for name, call in calls.items()}


def _counted(call: Callable[[], None]) -> tuple[int, int]:
    with _Started() as started:
        call()
    profile = cProfile.Profile()
    profile.runcall(call)
    return pstats.Stats(profile).total_calls, started.count  # type: ignore[attr-defined]


def rows() -> Iterator[Row]:
    """None where there is no Triton."""
    if find_spec("triton") is None:
        print("host: there is no Triton here; nothing was measured, nothing is kept")
        return
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        found = process.submit(steps, [*METRICS, PEER]).result()
    peer = found[PEER]
    for name in METRICS:
        one = found[name]
        yield Row(
            what=f"host's time of a step on a GPU, {losses.C} classes, {name}",
            peer=PEER,
            ours=median(one.taken),
            theirs=median(peer.taken),
            ratio=median(a / b for a, b in zip(one.taken, peer.taken, strict=True)),
            unit="us",
            detail={
                "least": [min(one.taken), min(peer.taken)],
                "calls": [one.calls, peer.calls],
                "operations": [one.operations, peer.operations],
            },
        )
