"""A surrogate loss as numbers to draw: points along its curves, and its AND and OR operands."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from autoseg.losses import load_loss
from autoseg.surrogates import SurrogateLoss, known_losses
from autoseg.surrogates.curves import evaluate

FloatArray = NDArray[np.float64]
STEPS = 61  # number of points of the even grid
# Denser near the ends, where found curves are steepest.
_GRID = (1 - torch.cos(torch.linspace(0, torch.pi, 401, dtype=torch.float64))) / 2


def coefficients(loss: SurrogateLoss) -> dict[str, torch.Tensor]:
    """Return the (K, 6) coefficients of every curve by name, as `curves.evaluate` takes them."""
    return {name: loss.curve(name) for name in loss.space.curves}


def curve_points(loss: SurrogateLoss) -> dict[str, FloatArray]:
    """Return (n, 2) points (x, y) along every curve, by name."""
    return {
        name: torch.stack([_GRID, evaluate(_GRID, rows.double().cpu())], dim=1).numpy()
        for name, rows in coefficients(loss).items()
    }


def operands(loss: SurrogateLoss) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Return the curves of both operands of each AND and OR ("AND", or "bf1 AND" in a sum) on an even grid.

    An operation between prediction and label has one curve, drawn for both operands as in the paper.
    """
    grid = torch.linspace(0, 1, STEPS, dtype=torch.float64)
    values = {name: evaluate(grid, rows.double().cpu()).numpy() for name, rows in coefficients(loss).items()}
    found: dict[str, tuple[FloatArray, FloatArray]] = {}
    for _, metric in loss.terms:
        keys = loss.space.keys(metric.name)
        for operation in dict.fromkeys(op for op, _ in keys):
            used = [values[curve] for (op, _), curve in keys.items() if op == operation]
            title = operation.upper() if len(loss.terms) == 1 else f"{metric.name} {operation.upper()}"
            found[title] = (np.asarray(used[0]), np.asarray(used[-1]))
    return found


def relaxed(g: FloatArray, h: FloatArray, is_and: bool) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return AND, g(a) h(b), or OR, g(a) + h(b) - g(a) h(b), and the truth table.

    Args:
        g: (n,) values of the first operand's curve on an even grid of [0, 1].
        h: the same for the second operand.
        is_and: whether it is AND.

    Returns:
        (n, n) values; the (4, 2) corners; the (4,) truth there.
    """
    product = np.outer(g, h)
    corners = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    truth: FloatArray = np.asarray(corners.all(axis=1) if is_and else corners.any(axis=1), dtype=np.float64)
    return product if is_and else g[:, None] + h[None, :] - product, corners, truth


def published_points(metric: str) -> dict[str, FloatArray] | None:
    """Return the curves of the loss that the paper published for a metric; None if it has none."""
    name = f"asl2021/{metric}"
    loss = load_loss(name, num_classes=2).surrogate if name in known_losses() else None
    return None if loss is None else curve_points(loss)
