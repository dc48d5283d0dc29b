"""A loss as a torch.export program: saved, loaded where there is no autoseg, the same loss and gradient at any size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from autoseg.cli import main
from autoseg.errors import InputError
from autoseg.evidence.export.formats import as_program
from autoseg.losses import LossCard, searched_loss
from autoseg.surrogates import build_space

ALONE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("autoseg", "mmseg", "mmengine"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
import torch
folder = sys.argv[1]
loss = torch.export.load(folder + "/loss.pt2").module()
out = []
for logits, labels in torch.load(folder + "/batches.pt", weights_only=True):
    logits.requires_grad_()
    value = loss(logits, labels)
    value.backward()
    out.append((value.detach(), logits.grad))
torch.save(out, folder + "/out.pt")
"""
SIZES = [(2, 12, 11), (1, 9, 30), (5, 25, 18)]


def batches(seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for n, h, w in SIZES:
        labels = torch.randint(0, 4, (n, h, w), generator=generator)
        labels[:, :2] = 255
        found.append((3 * torch.randn(n, 4, h, w, generator=generator), labels))
    return found


@pytest.mark.slow
def test_a_program_gives_the_same_loss_and_gradient_without_autoseg(tmp_path: Path) -> None:
    space = build_space("default", metric="macc+0.5*bf1")
    theta = np.random.default_rng(0).random(space.dim)
    card = LossCard.of(searched_loss(space, theta, 4, tolerance=2, drop_background=True))
    card.save(tmp_path / "loss.json")
    made = ["--format", "torch_export", "-o", str(tmp_path / "loss.pt2")]
    assert main(["export", str(tmp_path / "loss.json"), *made]) == 0
    torch.save(batches(), tmp_path / "batches.pt")
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    for (logits, labels), (value, gradient) in zip(
        batches(), torch.load(tmp_path / "out.pt", weights_only=True), strict=True
    ):
        logits.requires_grad_()
        ours = card.build()(logits, labels)
        ours.backward()
        assert float(value) == pytest.approx(float(ours), abs=1e-6)
        assert logits.grad is not None
        torch.testing.assert_close(gradient, logits.grad, rtol=0, atol=1e-5 * float(logits.grad.abs().max()))


def test_what_cannot_become_a_program() -> None:
    space = build_space("ce-mix", metric="miou")
    mixed = LossCard.of(searched_loss(space, space.identity, 4))
    with pytest.raises(InputError, match="a loss made of several"):
        as_program(mixed)
    plain = build_space("default", metric="miou")
    unknown = LossCard.of(searched_loss(plain, plain.identity, 2), num_classes=None)
    with pytest.raises(InputError, match="without a number of classes"):
        as_program(unknown)
