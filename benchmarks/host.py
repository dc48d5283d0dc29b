"""What a step of a loss on a GPU asks of the host, taken without one: its CPU time, Python calls and operations.

    python -m benchmarks.host miou biou cross-entropy

bf16 logits (2, 21, 16, 16), forward and backward, one thread. Kernels are specialised as for sm_90 and launched into
nothing (`tests/unit/surrogates/pretended.py`); what PyTorch does runs on the CPU. Time is the least and the median of
25 blocks of 20 steps; views count as no operation, kernels of Triton and the check of the labels are not counted.
"""

from __future__ import annotations

import contextlib
import cProfile
import pstats
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from autoseg.surrogates import loss, reading, triton_trial
from benchmarks import losses

PRETENDED = Path(__file__).parents[1] / "tests" / "unit" / "surrogates"
SHAPE = (2, losses.C, 16, 16)


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
        (triton_trial, "usable", lambda *_: True), (triton_trial, "draws", lambda *_: True),
        (loss, "by_kernels", lambda _: True), (reading, "by_kernels", lambda _: True),
        (loss, "check_ids", lambda *_, **__: None),
    ]  # fmt: skip
    for place, name, instead in options:
        setattr(place, name, instead)


def measured(step: Callable[[], None], blocks: int = 25, steps: int = 20) -> str:
    """A line of figures."""
    for _ in range(30):
        step()
    with _Started() as started:
        step()
    profile = cProfile.Profile()
    profile.runcall(step)
    taken = []
    for _ in range(blocks):
        start = time.process_time()
        for _ in range(steps):
            step()
        taken.append((time.process_time() - start) / steps * 1e6)
    calls = pstats.Stats(profile).total_calls  # type: ignore[attr-defined]
    return f"{min(taken):.0f} us, median {statistics.median(taken):.0f}; {calls} calls, {started.count} operations"


def main(names: list[str]) -> None:
    """Print a line for each loss."""
    torch.set_num_threads(1)
    pretend()
    for name in names:
        logits, labels = losses.batch(SHAPE)
        logits = logits.detach().bfloat16().requires_grad_()
        print(f"{name}: {measured(losses.step(losses.build(name), logits, labels))}")


if __name__ == "__main__":
    main(sys.argv[1:] or ["miou", "biou", "cross-entropy"])
