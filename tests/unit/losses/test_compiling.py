"""`proxy.compile`: surrogates switch to their own compiled pass, decided by the configuration alone."""

from __future__ import annotations

import pytest
import torch

import autoseg
from autoseg.errors import InputError
from autoseg.losses import LossSum, build_loss, compiled_loss
from autoseg.losses.compiling import WORTH_BUILDING
from autoseg.surrogates.fast.cpu import native

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
ENOUGH = WORTH_BUILDING // 4  # pixels, of 4 classes


def surrogate():
    return autoseg.SurrogateLoss("miou", 4)


@pytest.mark.parametrize(
    ("choice", "pixels", "device", "expected"),
    [
        ("on", 1, CPU, True),
        ("on", 1, CUDA, True),
        ("off", 10 * ENOUGH, CPU, False),
        ("auto", ENOUGH, CPU, True),
        ("auto", ENOUGH - 1, CPU, False),
        ("auto", 10 * ENOUGH, CUDA, False),
    ],
)
def test_a_surrogate(choice, pixels, device, expected):
    loss = surrogate()
    assert compiled_loss(loss, choice, pixels, device) is loss
    assert loss.compiled is expected


def test_a_surrogate_within_a_sum():
    part = surrogate()
    loss = LossSum([0.5, 0.5], [build_loss("ce", num_classes=4), part])
    assert compiled_loss(loss, "on", 1, CPU) is loss and part.compiled


def test_hand_made_losses_take_torch_compile_only_when_asked(monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "compile", lambda loss, **options: seen.append(loss) or loss)
    loss = build_loss("jml", num_classes=4)
    assert compiled_loss(loss, "auto", 100 * ENOUGH, CPU) is loss and not seen
    assert compiled_loss(loss, "on", 1, CPU) is loss and seen == [loss]


def test_auto_does_without_a_compiler_and_says_so(monkeypatch, caplog):
    def refuse():
        raise InputError("compile", "a C++ compiler", "none of c++")

    monkeypatch.setattr(native, "library", refuse)
    loss = surrogate()
    assert compiled_loss(loss, "auto", 10**9, CPU) is loss
    assert not loss.compiled
    assert "expected a C++ compiler" in caplog.text
