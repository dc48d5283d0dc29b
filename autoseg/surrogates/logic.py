"""Evaluates a metric's formula with softmax and curves: AND(a, b) = g(a) g(b), OR(a, b) = g(a) + g(b) - g(a) g(b).

Labels are 0 or 1 and are used unchanged. Totals of a prediction and a label only need the label's
own class: S(g(p) AND y) gathers one channel, and S(p OR y) = S(g(p)) - S(g(p) y) + S(y).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.metrics.base import widest
from autoseg.metrics.bits import square
from autoseg.metrics.logic import Plane, Region
from autoseg.metrics.maps import NO_CLASS, MapLogic, one_hot
from autoseg.surrogates.curves import evaluate


class CurveLogic(MapLogic):
    """Soft predictions against hard labels.

    Args:
        probs: (N, C, H, W) float32 or float64 softmax; gradients flow through it.
        labels: (N, H, W) int64; ids outside [0, C) are void.
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
        super().__init__(labels, probs.shape[1], per_image)
        self._probs, self._curves = probs, curves
        self._dense_cache: dict[Plane, Tensor] = {}
        self._sum_dtype = widest(probs.device)

    # ------------------------------------------------------------------------------------ planes

    def _dense(self, plane: Plane) -> Tensor:
        """Return a plane as (N, C, H, W), soft or hard, in the dtype of the probabilities."""
        if plane not in self._dense_cache:
            self._dense_cache[plane] = self._make_dense(plane)
        return self._dense_cache[plane]

    def _make_dense(self, plane: Plane) -> Tensor:
        if plane.op == "pred":
            return self._probs
        if not plane.soft:
            wide = plane.op == "dilate"
            flags = one_hot(self._map(plane.args[0] if wide else plane), self._classes, torch.bool)
            return (square(flags, plane.px) if wide else flags).to(self._probs.dtype)
        if plane.op in ("erode", "dilate"):
            return self._pooled(plane)
        match plane.op:
            case "and":
                return self._and(plane)
            case "or":
                return self._or(plane)
            case "boundary":  # OR minus AND; curves may make it negative, an edge cannot be
                return (self._or(plane) - self._and(plane)).clamp_min(0)
        raise ValueError(f"unknown operation {plane.op!r}")

    def _and(self, plane: Plane) -> Tensor:
        a, b = (self._curve("and", x, self._dense(x)) for x in plane.args)
        return a * b

    def _or(self, plane: Plane) -> Tensor:
        a, b = (self._curve("or", x, self._dense(x)) for x in plane.args)
        return a + b - a * b

    def _pooled(self, plane: Plane) -> Tensor:
        """Return an eroded or dilated plane: minimum or maximum over windows."""
        inner = self._dense(plane.args[0])
        if plane.op == "dilate":
            return _max_pool(inner, plane.px)
        padded = F.pad(inner, (plane.px,) * 4, value=0.0 if plane.border else 1.0)
        return -_max_pool(-padded, plane.px)[..., plane.px : -plane.px, plane.px : -plane.px]

    def _curve(self, op: str, operand: Plane, values: Tensor) -> Tensor:
        return evaluate(values, self._curves[op, operand.name]) if operand.soft else values

    # ------------------------------------------------------------------------------------ totals

    def total(self, a: Plane, within: Plane | Region | None = None, void: bool = False) -> Tensor:
        """Return float totals, see `Logic.total`; gradients flow to the probabilities."""
        if isinstance(within, Plane):
            return self._total_product(a, within, void)
        selected = self._selected(within, void)
        if not a.soft:
            return self._count(self._map(a), selected).to(self._sum_dtype)
        pair = self._soft_and_map(a)
        if pair is None:
            return self._sum(self._dense(a), selected)
        soft, hard = pair
        classes = self._map(hard)
        if selected is not None:
            classes = torch.where(selected, classes, NO_CLASS)
        own = self._curve(a.op, soft, self._own(self._dense(soft), classes))
        hits = self._sum_by_class(own, classes)
        if a.op == "and":
            return hits
        everywhere = self._sum(self._curve("or", soft, self._dense(soft)), selected)
        return everywhere - hits + self._count(classes, None).to(self._sum_dtype)

    def _total_product(self, a: Plane, b: Plane, void: bool) -> Tensor:
        """Return S(a b), class by class."""
        selected = self._selected(None, void)
        if not b.soft and b.op != "dilate":
            a, b = b, a
        if a.soft or a.op == "dilate":
            return self._sum(self._dense(a) * self._dense(b), selected)
        classes = self._map(a)
        if selected is not None:
            classes = torch.where(selected, classes, NO_CLASS)
        return self._sum_by_class(self._own(self._dense(b), classes), classes)

    @staticmethod
    def _soft_and_map(a: Plane) -> tuple[Plane, Plane] | None:
        """Return (soft operand, hard operand) of an AND or OR between a prediction and a class map, else None."""
        if a.op not in ("and", "or") or a.args[0].soft == a.args[1].soft:
            return None
        soft, hard = a.args if a.args[0].soft else a.args[::-1]
        return None if hard.op == "dilate" else (soft, hard)

    @staticmethod
    def _own(dense: Tensor, classes: Tensor) -> Tensor:
        """Return (N, H, W): at each pixel the value of its own class (class 0's if it has none)."""
        return dense.gather(1, classes.clamp_min(0).unsqueeze(1)).squeeze(1)

    def _sum_by_class(self, values: Tensor, classes: Tensor) -> Tensor:
        """Sum (N, H, W) per class (and image), in float64."""
        bins = values.new_zeros(self._n_bins(), dtype=self._sum_dtype)
        flat = values.reshape(-1).to(self._sum_dtype)
        return self._shape(bins.index_add(0, self._bins(classes), flat))

    def _sum(self, dense: Tensor, selected: Tensor | None) -> Tensor:
        """Sum (N, C, H, W) over pixels (and images)."""
        if selected is not None:
            dense = dense * selected.unsqueeze(1)
        per_image = dense.sum((2, 3)).to(self._sum_dtype)
        return per_image if self._per_image else per_image.sum(0)


def _max_pool(x: Tensor, px: int) -> Tensor:
    """Return the maximum over squares of side 2*px+1, (N, K, H, W).

    Separable, the border ignored, with torch's gradient.
    """
    if px == 0:
        return x
    rows = F.max_pool2d(x, (1, 2 * px + 1), 1, (0, px))
    return F.max_pool2d(rows, (2 * px + 1, 1), 1, (px, 0))
