"""Losses and metrics on an Apple GPU, which has no float64: their values are those on the CPU."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from imitated_gpu import imitated

import autoseg
from autoseg.evidence.export.formats import as_python
from autoseg.losses import loss_names
from autoseg.losses.build import known_card
from autoseg.metrics import names, searchable

C = 4
GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 2 * torch.randn(2, C, 12, 12, generator=GENERATOR)
LABELS = torch.randint(0, C - 1, (2, 12, 12), generator=GENERATOR)
LABELS[0, :2] = 255
QUICK = {"shape_prior": "shape_prior(steps=2)"}  # it learns shapes first
LOSSES = [QUICK.get(name, name) for name in loss_names()] + [f"identity/{name}" for name in searchable()]


def value_and_gradient(loss: torch.nn.Module, device: str) -> list[torch.Tensor]:
    logits = LOGITS.to(device).requires_grad_()
    value = loss(logits, LABELS.to(device))
    (gradient,) = torch.autograd.grad(value, logits)
    return [value.detach().cpu(), gradient.cpu()]


@pytest.mark.parametrize("spec", [*LOSSES, "camvid/miou", "crackforest/f1"])
def test_a_loss_is_as_on_the_cpu(spec, monkeypatch):
    expected = value_and_gradient(autoseg.build_loss(spec, num_classes=C), "cpu")
    with imitated(monkeypatch, "mps"):
        loss = autoseg.build_loss(spec, num_classes=C).to("mps")
        got = value_and_gradient(loss, "mps")
    torch.testing.assert_close(got, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", names())
def test_a_metric_is_as_on_the_cpu(name, monkeypatch):
    def score(device):
        metric = autoseg.build_metric(name, num_classes=C)
        if metric.needs_probs:
            metric.update_probs(LOGITS.softmax(1).to(device), LABELS.to(device))
        else:
            metric.update(LOGITS.argmax(1).to(device), LABELS.to(device))
        return metric.compute(), metric.per_class()

    expected = score("cpu")
    with imitated(monkeypatch, "mps"):
        got = score("mps")
    torch.testing.assert_close(got, expected, equal_nan=True)


def test_a_surrogate_comes_back_exact(monkeypatch):
    loss = autoseg.build_loss("camvid/miou", num_classes=C)
    expected = loss.double()(LOGITS.double(), LABELS)
    with imitated(monkeypatch, "mps"):
        loss.to("mps")
        loss.to("cpu")
    torch.testing.assert_close(loss(LOGITS.double(), LABELS), expected, rtol=0, atol=0)


@pytest.mark.parametrize("spec", ["camvid/miou", "asl2021/bf1"])
def test_an_exported_file_is_as_on_the_cpu(spec, monkeypatch):
    module = types.ModuleType("exported")
    monkeypatch.setitem(sys.modules, "exported", module)  # dataclasses look it up
    exec(compile(as_python(known_card(spec), "x"), "x.py", "exec"), module.__dict__)
    expected = value_and_gradient(module.build_loss(num_classes=C), "cpu")
    with imitated(monkeypatch, "mps"):
        got = value_and_gradient(module.build_loss(num_classes=C).to("mps"), "mps")
    torch.testing.assert_close(got, expected, rtol=2e-5, atol=2e-6)
