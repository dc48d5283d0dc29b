"""Checks the user's own losses before anything is trained."""

from __future__ import annotations

import copy

import torch
from torch import nn

from autoseg.errors import InputError, in_a_line
from autoseg.losses.base import SegLoss
from autoseg.metrics.base import is_ours
from autoseg.metrics.trace import own_line

SIDE = 64  # of the two images on which they are tried, in pixels


def check_own_losses(loss: nn.Module) -> None:
    """Raise if a loss of the user's, or one in a sum, fails on a few pixels: it would fail when its turn comes, maybe
    hours later. It stays as it is, and so do torch's random numbers.

    Raises:
        InputError: names the loss, and the line of its file if it raised an error of its own.
    """
    for part in loss.modules():
        if isinstance(part, SegLoss) and not is_ours(type(part)):
            _try(copy.deepcopy(part))


def _try(loss: SegLoss) -> None:
    classes = loss.num_classes
    labels = (torch.arange(2 * SIDE**2) // 7 % classes).view(2, SIDE, SIDE)
    logits = (torch.arange(2.0 * classes * SIDE**2) % 11 / 11).view(2, classes, SIDE, SIDE).requires_grad_()
    try:
        with torch.random.fork_rng(devices=[]):
            value = loss(logits, labels)
            if value.requires_grad:
                value.backward()
    except InputError:
        raise
    except Exception as error:
        expected = f"a loss that can be computed for {classes} classes"
        raise InputError(f"loss {loss.name}", expected, f"{in_a_line(error)}{own_line(error)}") from error
    if logits.grad is None:
        raise InputError(f"compute() of {loss.name}", "a value with a gradient to the logits", "one without")
