"""Whether a pass agrees with the reference, in value and gradient; for the tests of every pass."""

from __future__ import annotations

import torch

from autoseg import metrics

C = 5
ALL = [*metrics.searchable(), "miou+0.5*bf1"]
SPACES = ["paper", "default", "paper-linear", "paper-unconstrained"]
BOUNDS = {  # of the value, and of the gradient as a share of its maximum
    torch.float64: (1e-9, 1e-7),
    torch.float32: (5e-6, 1e-4),
    torch.bfloat16: (5e-6, 1e-2),
    torch.float16: (5e-6, 1e-2),
}


def batch(seed: int, dtype=torch.float64, size=(16, 20)):
    """Logits, and labels with void pixels that lack the last class."""
    g = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, C, *size, generator=g, dtype=torch.float64)
    labels = torch.randint(0, C - 1, (2, size[0] // 4, size[1] // 4), generator=g)
    labels = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)
    labels[:, :4, :9] = 255
    return logits.to(dtype), labels


def value_and_gradient(loss, logits, labels):
    leaf = logits.clone().requires_grad_() if logits.is_contiguous() else logits.detach().requires_grad_()
    value = loss(leaf, labels)
    (grad,) = torch.autograd.grad(value, leaf)
    return value.detach(), grad


def assert_same(loss, logits, labels):
    loss.fused = True
    ours, grad = value_and_gradient(loss, logits, labels)
    loss.fused = False
    theirs, their_grad = value_and_gradient(loss, logits, labels)
    value_bound, grad_bound = BOUNDS[logits.dtype]
    assert ours.dtype == theirs.dtype and grad.dtype == their_grad.dtype
    assert abs(float(ours) - float(theirs)) <= value_bound
    assert float((grad - their_grad).abs().max()) <= grad_bound * float(their_grad.abs().max())
