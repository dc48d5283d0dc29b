"""The optimisers update as torch's do, bit for bit, and leave torch.compile alone."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from autoseg.optimizers import PlainAdam, PlainAdamW, PlainSGD

CASES = [
    (PlainAdam, torch.optim.Adam, {"lr": 0.1}),
    (PlainAdamW, torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.1, "fused": True}),
    (PlainSGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "fused": True}),
]


@pytest.mark.parametrize(("ours", "torchs", "options"), CASES)
def test_updates_and_state_are_torchs(ours, torchs, options):
    torch.manual_seed(0)
    start, target = torch.randn(3, 4), torch.randn(3, 4)
    found = []
    for kind in (ours, torchs):
        weight = start.clone().requires_grad_()
        optimizer = kind([weight], **options)
        for _ in range(5):
            optimizer.zero_grad()
            (weight - target).pow(4).sum().backward()
            optimizer.step()
        other = kind([weight], **options)
        other.load_state_dict(optimizer.state_dict())
        found.append((weight.detach(), *(torch.as_tensor(v) for v in other.state[weight].values() if v is not None)))
    assert len(found[0]) > 1
    for mine, theirs in zip(*found, strict=True):
        assert torch.equal(mine, theirs)


def test_a_first_step_that_is_skipped_leaves_no_momentum():
    """torch's fused SGD leaves memory as it found it, which deterministic algorithms make NaN."""
    weights = [torch.ones(3).requires_grad_() for _ in range(2)]
    first, second = (PlainSGD([weight], lr=0.1, momentum=0.9, fused=True) for weight in weights)
    torch.use_deterministic_algorithms(True)
    try:
        first.found_inf, first.grad_scale = torch.ones(()), torch.ones(())  # as torch.amp.GradScaler tells it
        weights[0].grad = torch.full((3,), torch.inf)
        first.step()
        del first.found_inf, first.grad_scale
        for weight, optimizer in zip(weights, (first, second), strict=True):
            weight.grad = torch.arange(3.0)
            optimizer.step()
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(*weights)
    assert torch.equal(weights[0], 1 - 0.1 * torch.arange(3.0))


def test_a_step_does_not_import_torch_compile():
    code = """
import sys, torch
from autoseg.optimizers import PlainAdamW
weight = torch.ones(2, requires_grad=True)
optimizer = PlainAdamW([weight])
weight.sum().backward(); optimizer.step(); optimizer.zero_grad()
print(float(weight[0]) < 1, "torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
