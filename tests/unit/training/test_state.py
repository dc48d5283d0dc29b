"""Kept between two losses, put back and gone on with, a training ends as one that never stopped, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_train import CPU, PROXY, CrossEntropy, Toy, batches_for, digest
from torch import Tensor, nn

from autoseg.config import ProxyConfig
from autoseg.losses import build_loss
from autoseg.training import Training, build_targets
from autoseg.training.precision import precision_of, reproducible
from autoseg.training.state import restore, state


class Own(nn.Module):
    """A loss that is not cross-entropy, changes over the training and draws random numbers."""

    def set_progress(self, share: float) -> None:
        self.share = share

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        noise = 1 + 0.1 * torch.rand(())
        return (1 + self.share) * noise * build_loss("jml", num_classes=2)(logits, labels)


class Scaled(CrossEntropy):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.scale * super().forward(logits, labels)


def new(proxy: ProxyConfig) -> Training:
    model, precision = Toy(), precision_of(proxy, CPU)
    return Training(
        model, batches_for(proxy, 3), proxy, precision, build_targets(proxy.labels, proxy.soft, 2, model, precision)
    )


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("labels", ["hard", "smooth", "pseudo"])
@pytest.mark.parametrize("after", [0, 1, 5])
def test_forked_equals_trained_through(tmp_path: Path, optimizer: str, labels: str, after: int) -> None:
    proxy = replace(PROXY, iters=8, optimizer=optimizer, labels=labels)
    proxy.soft.confidence = 0.5
    with reproducible(CPU, 0, threads=1, deterministic=False):
        through = new(proxy)
        through.run(CrossEntropy() if labels == "hard" else build_loss("ce", num_classes=2), until=after)
        through.forget()
        save_file(state(through), tmp_path / "state.safetensors")
        through.run(Own())
    with reproducible(CPU, 99, threads=1, deterministic=False):  # another process is in another random state
        forked = new(proxy)
        restore(forked, load_file(tmp_path / "state.safetensors"))
        assert forked.iteration == after
        forked.run(Own())
    assert digest(forked.model) == digest(through.model)
    assert torch.equal(forked.losses, through.losses)
    for one, other in zip(forked.targets.state().values(), through.targets.state().values(), strict=True):
        assert torch.equal(one, other)


def test_a_state_is_a_copy() -> None:
    training = new(replace(PROXY, iters=4))
    training.run(CrossEntropy(), until=2)
    kept = state(training)
    before = {name: value.clone() for name, value in kept.items()}
    training.run(CrossEntropy())
    assert all(torch.equal(kept[name], before[name]) for name in kept)
    assert not torch.equal(kept["model.main.weight"], training.model.state_dict()["main.weight"])


def test_after_another_loss_the_size_of_a_loss_does_not_matter() -> None:
    """Nor does it without one: Adam divides by the size of the gradients, but of those that it has seen."""

    def trained(scale: float, forget: bool) -> Tensor:
        with reproducible(CPU, 0, threads=1, deterministic=False):
            training = new(replace(PROXY, iters=8, optimizer="adamw"))
            training.run(CrossEntropy(), until=4)
            if forget:
                training.forget()
            training.run(Scaled(scale))
        return training.model.state_dict()["main.weight"].clone()

    small, large = (trained(scale, forget=True) for scale in (0.01, 1.0))
    torch.testing.assert_close(small, large, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(trained(0.01, forget=False), trained(1.0, forget=False), rtol=1e-3, atol=1e-5)


def test_stopping_on_the_way_changes_nothing() -> None:
    def trained(*stops: int) -> str:
        with reproducible(CPU, 0, threads=1, deterministic=False):
            training = new(replace(PROXY, iters=6))
            for stop in stops:
                training.run(CrossEntropy(), until=stop)
            training.run(CrossEntropy())
            return digest(training.model)

    assert trained() == trained(1, 4) == trained(6)
