"""Captures an iteration in a CUDA graph and replays it: one launch instead of an iteration's hundreds of kernels.

A replay repeats every kernel with the same arguments and addresses and runs no Python. So an iteration may be
replayed only if the next one differs from it in tensors alone, and if nothing in it waits for the device
(`check_replayable`).

Nothing here has run on a GPU yet. What is tested on a CPU is that a training replayed operation by operation, on the
same memory and without Python, ends as the plain one, bit for bit.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Protocol

import torch
from torch import nn

from autoseg.config import ProxyConfig
from autoseg.errors import InputError
from autoseg.training.batches import Batches
from autoseg.training.precision import Precision
from autoseg.training.targets import Targets

FIELD = "proxy.cuda_graph"
WARM_UP = 3  # iterations before the capture; kernels are chosen and compiled, and constants moved, in the first

Step = Callable[[], None]


class Recorder(Protocol):
    """The interface of an object that captures a step."""

    def warm_up(self, step: Step) -> None:
        """Run a step in the place where it will be captured."""

    def capture(self, step: Step) -> None:
        """Run a step and record it."""

    def replay(self) -> None:
        """Run the recorded step once more."""


class CudaGraph:
    """A `torch.cuda.CUDAGraph` of a step, captured beside the current stream.

    Raises:
        InputError: the device is no GPU.
    """

    def __init__(self, device: torch.device) -> None:
        if device.type != "cuda":
            raise InputError(FIELD, "false, or a GPU", f"true on {device.type}", "CUDA graphs are for GPUs alone.")
        self._device, self._stream = device, _stream(device)
        self._graph = torch.cuda.CUDAGraph()

    def warm_up(self, step: Step) -> None:
        """See `Recorder`; torch requires another stream than the current one."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*capturable=True")  # AdamW: that it is not captured yet
            step()
        current.wait_stream(self._stream)

    def capture(self, step: Step) -> None:
        """See `Recorder`; capturing records the kernels without running them, so the step is replayed once."""
        with torch.cuda.device(self._device):
            current = torch.cuda.current_stream()
            try:
                with torch.cuda.graph(self._graph, stream=self._stream):
                    step()
            finally:
                torch.cuda.set_stream(current)  # where a capture fails, torch does not go back to it
        self._graph.replay()

    def replay(self) -> None:
        """See `Recorder`."""
        self._graph.replay()


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream for all graphs of a process: cuBLAS keeps a workspace for each stream it has run on."""
    return torch.cuda.Stream(device)


class Replayed:
    """A step that is run a few times, then captured, then replayed; each call is an iteration of the training."""

    def __init__(self, step: Step, recorder: Recorder) -> None:
        self._step, self._recorder, self._done = step, recorder, 0

    def __call__(self) -> None:
        """Run the next iteration."""
        if self._done < WARM_UP:
            self._recorder.warm_up(self._step)
        elif self._done == WARM_UP:
            self._recorder.capture(self._step)
        else:
            self._recorder.replay()
        self._done += 1


def check_replayable(
    loss: nn.Module, targets: Targets, batches: Batches, proxy: ProxyConfig, precision: Precision
) -> None:
    """Raise if the iterations of a training differ in more than tensors, or wait for the device.

    Raises:
        InputError: names what cannot be replayed.
    """
    reasons = {
        "proxy.amp=fp16, whose loss scale is looked at on the host; use bf16": precision.dtype is torch.float16,
        f"proxy.labels={proxy.labels}, whose teacher follows the student on the host": not targets.replayable,
        "proxy.backbone=frozen, whose features are read from a file": batches.stored is not None,
        "proxy.compile=on, which no surrogate needs on a GPU": proxy.compile == "on",
    }
    for why in (why for why, given in reasons.items() if given):
        raise InputError(FIELD, "false for this training", f"true, with {why}")
    for part in loss.modules():
        if not replayable(part):
            got = f"true, with the loss {type(part).__name__}, which may look at values or keep numbers on the host"
            hint = "If it does neither, and keeps its progress in a tensor, give it the attribute replayable = True."
            raise InputError(FIELD, "false for this training", got, hint)


def replayable(loss: nn.Module) -> bool:
    """Return whether two calls of a loss differ in tensors alone.

    A loss says so by its attribute `replayable`. One without it is taken as replayable if it has no `set_progress`: by
    that it could receive a number that it reads in Python.
    """
    return bool(getattr(loss, "replayable", not hasattr(loss, "set_progress")))
