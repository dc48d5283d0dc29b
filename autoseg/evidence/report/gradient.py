"""The gradient of a loss at one pixel, by the probability that the network gives it there: why a loss works.

No derivative is written by hand: the real loss is called on a constructed image and differentiated by autograd.

The image is 32 x 32 with two classes, an object of 16 x 16 in its middle and background around it. Every pixel gives
its own class the probability 0.7, except one: directly inside the object's upper edge (a
pixel of the class, "target"), or directly outside it ("non-target"). That one gives the object p and the background
1 - p. The result is the derivative of the loss with respect to the object's logit at that pixel, times the number of
pixels, positive where gradient descent moves the logit towards the label.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SIDE, LOW, HIGH = 32, 8, 24  # side of the image; range of the object's rows and columns
CONFIDENCE = 0.7
COLUMN = SIDE // 2
GRID = np.concatenate([np.linspace(0.002, 0.08, 14), np.linspace(0.1, 0.9, 41), np.linspace(0.92, 0.998, 14)])

DESCRIPTION = (
    f"Computed by autograd from the losses themselves, on a constructed image of {SIDE} x {SIDE} px with two classes: "
    f"an object of {HIGH - LOW} x {HIGH - LOW} px on background. Every pixel gives its own class {CONFIDENCE}, but for "
    "one directly inside (target) or directly outside (non-target) the object's edge, which gives the object p. Shown "
    f"is the derivative of the loss by the object's logit at that pixel, times the {SIDE * SIDE} pixels of the image; "
    "positive: gradient descent moves the pixel towards its label."
)


class Pulls(NamedTuple):
    """The scaled derivatives of a loss along `GRID`, each (n,) float64."""

    target: NDArray[np.float64]
    other: NDArray[np.float64]


def pulls(losses: Mapping[str, nn.Module]) -> dict[str, Pulls]:
    """Return the scaled derivatives of losses of two classes; those that raise, or are not finite here, are left out.

    Args:
        losses: name to loss(logits (1, 2, H, W) float64, labels (1, H, W) int64).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # hundreds of small steps: several threads would be slower
    found: dict[str, Pulls] = {}
    try:
        for name, loss in losses.items():
            with contextlib.suppress(Exception):  # a loss of the user's own may be for its number of classes alone
                found[name] = Pulls(_along(loss, LOW, -1.0), _along(loss, LOW - 1, 1.0))
    finally:
        torch.set_num_threads(threads)
    return {name: pull for name, pull in found.items() if all(np.isfinite(values).all() for values in pull)}


def _along(loss: nn.Module, row: int, sign: float) -> NDArray[np.float64]:
    return np.array([sign * SIDE * SIDE * _derivative(loss, float(p), row) for p in GRID])


def _derivative(loss: nn.Module, p: float, row: int) -> float:
    """Return the derivative of the loss by the object's logit at (row, COLUMN), where the object has probability p."""
    labels = _labels()
    own = torch.tensor([1 - CONFIDENCE, CONFIDENCE], dtype=torch.float64).log()
    logits = torch.stack([own[1 - labels], own[labels]], dim=1)
    logits[0, :, row, COLUMN] = torch.tensor([math.log(1 - p), math.log(p)])
    logits.requires_grad_()
    loss(logits, labels).backward()
    gradient = logits.grad
    return 0.0 if gradient is None else float(gradient[0, 1, row, COLUMN])


def _labels() -> Tensor:
    """Return the labels, (1, H, W) int64: 1 is the object."""
    labels = torch.zeros(1, SIDE, SIDE, dtype=torch.int64)
    labels[0, LOW:HIGH, LOW:HIGH] = 1
    return labels
