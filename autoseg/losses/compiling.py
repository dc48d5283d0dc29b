"""Compiles the loss of a training: `proxy.compile`."""

from __future__ import annotations

import logging

import torch
from torch import nn

from autoseg.errors import InputError
from autoseg.surrogates import SurrogateLoss
from autoseg.surrogates.fast.cpu import native

log = logging.getLogger(__name__)

# Numbers that a surrogate reads, logits over all iterations, from which building its native code pays within one
# training. Uncompiled a number costs more on a core by 6 ns for mIoU and 48 for BF1, measured, by half a ns for mAcc;
# 5 stands for all. The build is 5 s of a core, several times that on a busy machine
# (`benchmarks/LOG.md`). It is fixed here, not timed, so that a reward does not depend on who computed it.
WORTH_BUILDING = 10**9


def compiled_loss(loss: nn.Module, choice: str, pixels: int, device: torch.device) -> nn.Module:
    """Return the loss in the form that a training calls.

    Surrogates in it are switched to their own compiled pass, in place; a loss without any goes through
    `torch.compile`, which takes a minute or more.

    Args:
        loss: any loss(logits, labels).
        choice: on, off, or auto: surrogates on a CPU with a C++ compiler, if the training is long enough
            (`WORTH_BUILDING`).
        pixels: number of pixels in the training, all iterations together.
        device: device of the training.
    """
    surrogates = [module for module in loss.modules() if isinstance(module, SurrogateLoss)]
    numbers = sum(pixels * surrogate.options.num_classes for surrogate in surrogates)
    worth = device.type == "cpu" and numbers >= WORTH_BUILDING
    if choice == "off" or (choice == "auto" and not (worth and _can_build())):
        return loss
    if not surrogates:
        return torch.compile(loss, dynamic=False)  # type: ignore[return-value]
    for surrogate in surrogates:
        surrogate.compiled = True
    return loss


def _can_build() -> bool:
    try:
        native.library()
    except InputError as error:
        log.warning("The loss is not compiled (proxy.compile=auto): %s", error)
        return False
    return True
