"""A training replayed as a CUDA graph replays it, without Python and on the same memory, ends as the plain one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from disguise import NO_KERNEL
from safetensors.torch import load_file, save_file
from test_train import CPU, PROXY, CrossEntropy, Toy, batches_for, bright_squares, digest
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import autoseg
from autoseg.config import ProxyConfig
from autoseg.errors import InputError
from autoseg.losses import build_loss
from autoseg.training import Training, build_targets, loop
from autoseg.training.cuda_graph import WARM_UP, CudaGraph, Step, check_replayable, replayable
from autoseg.training.precision import Precision, precision_of, reproducible
from autoseg.training.state import restore, state

GRAPH = replace(PROXY, iters=12, cuda_graph=True)
ON_THE_HOST = {"_local_scalar_dense", "nonzero", "masked_select"}  # what a capture would fail at


class Tape(TorchDispatchMode):
    """In the place of a CUDA graph, on a CPU: keeps every operation with its tensors and does them again.

    As with a graph, the tensors stay those of the captured step and no Python runs; unlike one, capturing runs them.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.kept: list[tuple[Any, Any, Any, list[Tensor]]] = []
        self.replays = 0

    def warm_up(self, step: Step) -> None:
        step()

    def capture(self, step: Step) -> None:
        with self:
            step()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        assert name not in ON_THE_HOST, f"{name} in a step that is captured"
        result = func(*args, **kwargs)
        if name not in NO_KERNEL:
            self.kept.append((func, args, kwargs, tensors(result)))
        return result

    def replay(self) -> None:
        self.replays += 1
        with torch.no_grad():
            for func, args, kwargs, results in self.kept:
                inputs = {id(each) for each in tensors((args, kwargs))}
                for old, new in zip(results, tensors(func(*args, **kwargs)), strict=True):
                    if id(old) not in inputs:  # else it was written in place
                        old.copy_(new)


def tensors(tree: Any) -> list[Tensor]:
    return [each for each in tree_leaves(tree) if isinstance(each, Tensor)]


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> list[Tape]:
    """Tapes take the place of CUDA graphs; those that were made."""
    made: list[Tape] = []

    def new(device: torch.device) -> Tape:
        made.append(Tape(device))
        return made[-1]

    monkeypatch.setattr(loop, "CudaGraph", new)
    return made


def new(proxy: ProxyConfig, loss: nn.Module) -> Training:
    model, precision = Toy(), precision_of(proxy, CPU)
    extra = loss.prepare(bright_squares()[1]) if hasattr(loss, "prepare") else None
    batches = batches_for(proxy, 3, extra)
    return Training(model, batches, proxy, precision, build_targets(proxy.labels, proxy.soft, 2, model, precision))


def trained(proxy: ProxyConfig, loss: nn.Module, *stops: int) -> tuple[str, list[float]]:
    with reproducible(CPU, 0, threads=1, deterministic=False):
        training = new(proxy, loss)
        for stop in (*stops, None):
            training.run(loss, until=stop)
        return digest(training.model), training.losses.tolist()


def unchecked(spec: str) -> nn.Module:
    """A loss that does not look at its labels on the host; a surrogate by its reference, which does so nowhere."""
    loss = build_loss(spec, num_classes=2, validate=False)
    for part in loss.modules():
        if isinstance(part, autoseg.SurrogateLoss):
            part.fused = False
    return loss


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("spec", ["ce", "asl2021/miou", "0.5*jml+0.5*boundary", "ohem", "wce"])
def test_replayed_equals_plain(spec: str, optimizer: str, tapes: list[Tape]) -> None:
    """Rates, batches, augmentation, dropout's draws and the weight of a loss that is told its progress go on."""
    proxy = replace(GRAPH, optimizer=optimizer)
    replayed = trained(proxy, unchecked(spec))
    assert [tape.replays for tape in tapes] == [12 - WARM_UP - 1] and len(tapes[0].kept) > 50
    plain = trained(replace(proxy, cuda_graph=False), unchecked(spec))
    assert len(tapes) == 1 and replayed == plain


@pytest.mark.parametrize("labels", ["smooth", "boundary_smooth"])
def test_soft_targets_are_replayed(labels: str, tapes: list[Tape]) -> None:
    proxy = replace(GRAPH, labels=labels)
    assert trained(proxy, unchecked("ce")) == trained(replace(proxy, cuda_graph=False), unchecked("ce"))
    assert tapes[0].replays


def test_stopping_on_the_way_changes_nothing(tapes: list[Tape]) -> None:
    """As a pruner's rungs do; each part is captured anew, or too short to be."""
    expected = trained(replace(GRAPH, cuda_graph=False), unchecked("ce"))
    assert expected == trained(GRAPH, unchecked("ce"), 2, 7) == trained(GRAPH, unchecked("ce"), 12)
    assert [tape.replays for tape in tapes] == [0, 1, 1, 8, 0]


def test_forked_after_a_warm_up(tmp_path: Path, tapes: list[Tape]) -> None:
    found = []
    for proxy in (GRAPH, replace(GRAPH, cuda_graph=False)):
        with reproducible(CPU, 0, threads=1, deterministic=False):
            first = new(proxy, unchecked("ce"))
            first.run(unchecked("ce"), until=6)
            first.forget()
            save_file(state(first), tmp_path / "state.safetensors")
        with reproducible(CPU, 99, threads=1, deterministic=False):
            forked = new(proxy, unchecked("jml"))
            restore(forked, load_file(tmp_path / "state.safetensors"))
            forked.run(unchecked("jml"))
            found.append((digest(forked.model), forked.losses.tolist()))
    assert found[0] == found[1] and [tape.replays for tape in tapes] == [2, 2]


def test_a_rate_that_is_a_number_would_be_seen(tapes: list[Tape], monkeypatch: pytest.MonkeyPatch) -> None:
    """A step told its rate on the host repeats that of the captured iteration: the test above can fail."""
    expected = trained(replace(GRAPH, cuda_graph=False), unchecked("ce"))
    steps = iter(range(100))

    def as_numbers(optimizer: torch.optim.Optimizer, row: Tensor) -> None:
        iteration = next(steps) % 12
        for group in optimizer.param_groups:
            group["lr"] = loop_rate(group["base_lr"], iteration)

    monkeypatch.setattr(loop, "set_rates", as_numbers)
    plain = trained(replace(GRAPH, cuda_graph=False), unchecked("ce"))
    assert plain == expected  # the numbers are right
    assert trained(GRAPH, unchecked("ce")) != expected


def loop_rate(base: float, iteration: int) -> float:
    return base * (1 - iteration / GRAPH.iters) ** GRAPH.poly_power


def test_a_look_at_a_value_would_be_seen(tapes: list[Tape]) -> None:
    class Looks(CrossEntropy):
        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            return super().forward(logits, labels) if bool(labels.any()) else logits.sum()

    with pytest.raises(AssertionError, match="_local_scalar_dense"):
        trained(GRAPH, Looks())


def test_a_cpu_has_no_graphs() -> None:
    with pytest.raises(InputError, match=r"proxy\.cuda_graph.*GPU.*cpu"):
        trained(GRAPH, CrossEntropy())
    with pytest.raises(InputError, match="GPU"):
        CudaGraph(CPU)


class Told(CrossEntropy):
    def set_progress(self, progress: float) -> None:
        self.progress = progress


class Declared(Told):
    replayable = True


@pytest.mark.parametrize(
    ("change", "precision", "loss", "said"),
    [
        ({"labels": "pseudo"}, {}, "ce", "labels=pseudo"),
        ({"compile": "on"}, {}, "ce", "compile=on"),
        ({}, {"dtype": torch.float16}, "ce", "fp16"),
        ({}, {}, "told", "Told"),
        ({}, {}, "checked", "CrossEntropy"),
    ],
)
def test_what_cannot_be_replayed_is_refused(change: Any, precision: Any, loss: str, said: str, tapes: Any) -> None:
    losses = {"told": Told(), "checked": build_loss("ce", num_classes=2, validate=True)}
    proxy = replace(GRAPH, **change)
    training = new(proxy, CrossEntropy())
    training.precision = replace(training.precision, **precision)
    with pytest.raises(InputError, match=rf"proxy\.cuda_graph.*{said}"):
        training.run(losses.get(loss) or build_loss(loss, num_classes=2))
    assert training.iteration == 0


def test_stored_features_are_refused() -> None:
    training = new(GRAPH, CrossEntropy())
    training.batches.stored = object()  # type: ignore[assignment]
    with pytest.raises(InputError, match="backbone=frozen"):
        check_replayable(
            CrossEntropy(), training.targets, training.batches, GRAPH, Precision(CPU, None, torch.channels_last)
        )


def test_losses_say_whether_they_can_be_replayed() -> None:
    assert all(replayable(part) for part in build_loss("0.5*boundary+0.5*asl2021/miou", num_classes=2).modules())
    assert replayable(CrossEntropy()) and replayable(Declared()) and not replayable(Told())
    assert not replayable(autoseg.SurrogateLoss("miou", 2, validate=True))
