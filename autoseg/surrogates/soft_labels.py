"""Surrogates for soft labels: label smoothing, several annotators, distillation.

With a label y in [0, 1] instead of {0, 1}, the obvious g(min(x, y)) and g(max(x, y)) break the surrogate: at
x = y they give a ratio other than 1. What must hold is that AND never exceeds y, OR never falls below it, and both
equal y exactly at x = y. So the curves are applied to the *share* of what can be won or lost:

    AND(x, y) = y gA(min(x, y) / y)                 the share of the label's mass that the prediction has,
    OR(x, y)  = y + (1 - y) gO(max(x - y, 0) / (1 - y))   the share of the rest that it claims beside.

For y in {0, 1} these are gA(x) y and y + (1 - y) gO(x) = gO(x) + y - gO(x) y, today's surrogate. For identity
curves they are min(x, y) and max(x, y): the surrogate of mIoU is then JML, 1 - (s - d) / (s + d), exactly. For
curves that rise strictly between exact ends, AND = y only if x >= y and OR = y only if x <= y, so the ratio's
maximum, 1, is taken at x = y alone. JML: Wang et al., NeurIPS 2023; the extension to curves is this project's.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from autoseg.metrics.logic import Plane, Region
from autoseg.metrics.maps import NO_CLASS
from autoseg.surrogates.curves import evaluate
from autoseg.surrogates.logic import CurveLogic


class SoftLabelLogic(CurveLogic):
    """Soft predictions against soft labels.

    Regions (a trimap) come from the labels' most probable class. The boundary of a soft label is what erosion
    takes away from it, y - min-pool(y), its edge if y is hard.

    Args:
        probs: (N, C, H, W) float32 or float64 softmax; gradients flow through it.
        labels: (N, C, H, W) in [0, 1], rows summing to 1; an all-zero row is void.
        curves: coefficients (K, 6) per (operation, operand), see `curves.prepare`.
        per_image: totals are (N, C) instead of (C,).
    """

    def __init__(
        self,
        probs: Tensor,
        labels: Tensor,
        curves: Mapping[tuple[str, str], Tensor],
        per_image: bool = False,
    ) -> None:
        self._soft = labels.to(probs.dtype)
        hard = torch.where(labels.sum(1) > 0, labels.argmax(1), NO_CLASS)
        super().__init__(probs, hard, curves, per_image)

    def _make_dense(self, plane: Plane) -> Tensor:
        if plane.op == "label":
            return self._soft
        if plane.op in ("and", "or") and not all(operand.soft for operand in plane.args):
            return self._pair(plane)
        if plane.op == "boundary" and not plane.soft:
            whole, inner = map(self._dense, plane.args)
            return whole - inner
        if plane.op in ("erode", "dilate"):
            return self._pooled(plane)
        return super()._make_dense(plane)

    def _pair(self, plane: Plane) -> Tensor:
        """Return AND or OR of a prediction x and a label y (or of two labels: minimum, maximum)."""
        a, b = plane.args
        if not a.soft and not b.soft:
            pick = torch.minimum if plane.op == "and" else torch.maximum
            return pick(self._dense(a), self._dense(b))
        soft, label = (a, b) if a.soft else (b, a)
        x, y = self._dense(soft), self._dense(label)
        curve = self._curves[plane.op, soft.name]
        if plane.op == "and":
            share = torch.where(y > 0, x / torch.where(y > 0, y, 1), 0).clamp(max=1)
            return y * evaluate(share, curve)
        rest = 1 - y
        share = torch.where(rest > 0, (x - y) / torch.where(rest > 0, rest, 1), 0).clamp(0, 1)
        return y + rest * evaluate(share, curve)

    def total(self, a: Plane, within: Plane | Region | None = None, void: bool = False) -> Tensor:
        """Return float totals, see `Logic.total`."""
        dense = self._dense(a)
        if isinstance(within, Plane):
            return self._sum(dense * self._dense(within), self._selected(None, void))
        return self._sum(dense, self._selected(within, void))
