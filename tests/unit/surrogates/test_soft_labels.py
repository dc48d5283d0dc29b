"""Soft labels: equal to the hard surrogate on hard labels, JML at identity, maximum at prediction = label."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import autoseg
from autoseg import metrics
from autoseg.errors import InputError
from autoseg.losses import searched_loss

C = 4
NAMES = [*(f"paper-{m}" for m in metrics.searchable()), "default-biou", "default-miou+0.5*bf1"]


def make(name: str, seed: int, **options):
    space = autoseg.build_space(name)
    theta = 0.1 + 0.8 * np.random.default_rng(seed).random(space.dim)
    return searched_loss(space, theta, num_classes=C, tolerance=1, **options)


def soft_batch(seed: int, void: bool = True):
    g = torch.Generator().manual_seed(seed)
    labels = (2 * torch.randn(2, C, 10, 12, generator=g, dtype=torch.float64)).softmax(1)
    if void:
        labels[:, :, :3, :2] = 0
    return torch.randn(2, C, 10, 12, generator=g, dtype=torch.float64), labels


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_equals_the_hard_form_on_hard_labels(name, seed):
    g = torch.Generator().manual_seed(seed)
    hard = torch.randint(0, C, (2, 5, 6), generator=g).repeat_interleave(2, 1).repeat_interleave(2, 2)
    hard[:, :2, :3] = 255
    one_hot = F.one_hot(torch.where(hard < C, hard, C), C + 1).permute(0, 3, 1, 2)[:, :C].double()
    logits = torch.randn(2, C, 10, 12, generator=g, dtype=torch.float64)
    loss = make(name, seed)
    a, b = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    x, y = loss(a, hard), loss(b, one_hot)
    x.backward()
    y.backward()
    torch.testing.assert_close(x, y, atol=1e-10, rtol=0)
    torch.testing.assert_close(a.grad, b.grad, atol=1e-9, rtol=1e-6)


def jml(p, y, valid):
    """1 - (s - d) / (s + d) per class over the batch, from the paper's definition."""
    p, y = p * valid, y * valid
    d, s = (p - y).abs().sum((0, 2, 3)), (p + y).sum((0, 2, 3))
    return (1 - (s - d) / (s + d)).mean()


def test_identity_curves_are_jml():
    logits, labels = soft_batch(0)
    valid = (labels.sum(1, keepdim=True) > 0).double()
    expected = jml(logits.softmax(1), labels, valid)
    assert float(autoseg.SurrogateLoss("miou", C)(logits, labels)) == pytest.approx(float(expected), abs=1e-8)


@pytest.mark.parametrize("name", ["paper-miou", "paper-fwiou", "paper-dice", "paper-biou", "default-miou"])
@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), step=st.floats(1e-3, 1.0))
def test_least_exactly_where_prediction_equals_label(name, seed, step):
    logits, labels = soft_batch(seed, void=False)
    loss = make(name, seed)
    at_label = loss(labels.log(), labels)
    elsewhere = loss(((1 - step) * labels + step * logits.softmax(1)).log(), labels)
    assert float(at_label) == pytest.approx(0, abs=1e-7)
    assert elsewhere > at_label


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name):
    logits, labels = soft_batch(3)
    loss = make(name, 3)
    small = logits[:1, :, 1:4, :4].clone().requires_grad_()
    target = labels[:1, :, 1:4, :4]
    assert torch.autograd.gradcheck(lambda x: loss(x, target), small, eps=1e-7, atol=1e-4)


def test_all_void_is_zero_with_zero_gradient():
    logits = torch.randn(1, C, 6, 6, requires_grad=True)
    value = autoseg.SurrogateLoss("miou", C)(logits, torch.zeros(1, C, 6, 6))
    value.backward()
    assert float(value) == 0 and not logits.grad.any()


def test_labels_that_went_through_half_precision_are_taken():
    """As the hand-made losses take them: a thousandth off the sum is rounding, a tenth is not."""
    logits, labels = soft_batch(1)
    rounded = labels.bfloat16()
    assert (rounded.double().sum(1) - 1).abs().max() > 1e-3
    for loss in (autoseg.SurrogateLoss("miou", C), autoseg.build_loss("jml", num_classes=C)):
        exact = float(loss(logits, labels))
        for soft in (rounded, rounded.to(labels.dtype)):
            assert float(loss(logits, soft)) == pytest.approx(exact, abs=1e-2)
    with pytest.raises(InputError, match="sum to 1"):
        autoseg.SurrogateLoss("miou", C)(logits, 0.9 * labels)


@pytest.mark.parametrize("scale", [0.5, 2.0, -1.0])
def test_rows_that_are_no_probabilities_raise(scale):
    logits, labels = soft_batch(1)
    with pytest.raises(InputError, match="sum to 1"):
        autoseg.SurrogateLoss("miou", C)(logits, scale * labels)
    with pytest.raises(InputError, match=r"labels: expected integer .* or float of shape"):
        autoseg.SurrogateLoss("miou", C)(logits, labels[:, :2])
