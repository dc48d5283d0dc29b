"""What an exported Python file is made of, beside the metric's formula and the curves that were found.

`gather.py` copies from here: each name defined in this module stands for the package's own of that name. It is written
to be read by whoever gets the file, needs torch alone, and runs where networks are trained: from Python 3.8 and torch
1.13 on. It computes what `SurrogateLoss` does, the plain way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, ContextManager, Dict, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.metrics.labels import ONE_LOGIT, SLICES, hint_at_shapes
from autoseg.surrogates.curves import value_and_slope

Sums = Dict[str, Tensor]  # totals: (C,), or (N, C) with `per_image`


class Ratio(Protocol):
    """Division of totals."""

    def __call__(self, numerator: Tensor, denominator: Tensor, empty: float = math.nan) -> Tensor:
        """Elementwise; `empty` is for the exact metric."""


@dataclass
class MetricOptions:
    """What a formula knows of the data; `tolerance` in pixels."""

    num_classes: int
    ignore_index: int
    tolerance: int
    drop_background: bool


class Metric:
    """A formula: totals over images and pixels, and ratios of them."""

    absent_rule: ClassVar[bool] = True  # whether absent="include" may average over classes that a batch lacks
    per_image: ClassVar[bool] = False

    def __init__(self, options: MetricOptions) -> None:
        self.options = options

    def sums(self, p: Plane, y: Plane, logic: Logic) -> Sums:
        """Totals of predictions and labels per class."""
        raise NotImplementedError

    def scores(self, s: Sums, ratio: Ratio) -> Tensor:
        """A score per class."""
        raise NotImplementedError

    def weights(self, s: Sums) -> Tensor:
        """Weight of each score in the mean."""
        return torch.ones_like(s["label"])


class _Curve(torch.autograd.Function):
    """g(x), whose slope is computed along the way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, coefficients: Tensor) -> Tensor:
        value, slope = value_and_slope(x, coefficients)
        ctx.save_for_backward(x, coefficients, slope)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, coefficients, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated itself
            slope = value_and_slope(x, coefficients)[1]
        return grad * slope, None


def _evaluate(x: Tensor, rows: list[list[float]]) -> Tensor:
    value: Tensor = _Curve.apply(x, torch.tensor(rows, dtype=x.dtype, device=x.device))
    return value


def _wide(x: Tensor) -> Tensor:
    return x if x.device.type == "mps" else x.double()


def _windows(x: Tensor, px: int) -> Tensor:
    """Maximum over squares of side 2 px + 1."""
    rows = F.max_pool2d(x, (1, 2 * px + 1), 1, (0, px))
    return F.max_pool2d(rows, (2 * px + 1, 1), 1, (px, 0))


class Plane:
    """C maps over N images, (N, C, H, W), computed when they are first asked for.

    Args:
        make: computes them.
        name: of their curve, as an operand of AND or OR.
        soft: whether predictions take part; only then does an operand pass through a curve.
        made_of: and, or, dilate, with its operands.
        own: of planes that are set nowhere but at the label's own class, whether they are there, (N, 1, H, W) bool:
            one map instead of C.
    """

    def __init__(
        self,
        make: Callable[[], Tensor],
        name: str,
        soft: bool = False,
        made_of: tuple[Any, ...] = ("",),
        own: Tensor | None = None,
    ) -> None:
        self._make = make
        self._values: Tensor | None = None
        self.name, self.soft, self.made_of, self.own = name, soft, made_of, own

    @property
    def values(self) -> Tensor:
        """The maps."""
        if self._values is None:
            self._values = self._make()
        return self._values


class Logic:
    """The words of a formula, read with soft predictions: AND(a, b) = g(a) g(b), OR(a, b) = g(a) + g(b) - g(a) g(b).

    Args:
        probs: (N, C, H, W) softmax.
        labels: (N, H, W) int64; ids outside [0, C) are void.
        curves: coefficients of each g, by operation and operand.
        per_image: totals are (N, C) instead of (C,).
        volumes: each image is a volume, its slices one below the other: no word may ask for neighbours.
    """

    def __init__(
        self,
        probs: Tensor,
        labels: Tensor,
        curves: dict[tuple[str, str], Any],
        per_image: bool,
        volumes: bool = False,
    ) -> None:
        self._curves, self._per_image, self._volumes = curves, per_image, volumes
        ids = labels.unsqueeze(1)
        self._valid = (ids >= 0) & (ids < probs.shape[1])
        self._ids = torch.where(self._valid, ids, torch.zeros_like(ids))
        self.pred = Plane(lambda: probs, "p", soft=True)
        self.label = self._of_label(self._valid, "y")

    def _of_label(self, own: Tensor, name: str) -> Plane:
        """A plane that is the label's where `own` is set, and 0 elsewhere."""
        probs = self.pred.values
        return Plane(lambda: torch.zeros_like(probs).scatter_(1, self._ids, own.to(probs.dtype)), name, own=own)

    def and_(self, a: Plane, b: Plane) -> Plane:
        """Pixels in both."""
        return Plane(lambda: self._g("and", a) * self._g("and", b), "and", a.soft or b.soft, ("and", a, b))

    def or_(self, a: Plane, b: Plane) -> Plane:
        """Pixels in either."""

        def make() -> Tensor:
            left, right = self._g("or", a), self._g("or", b)
            return left + right - left * right

        return Plane(make, "or", a.soft or b.soft, ("or", a, b))

    def boundary(self, a: Plane, px: int = 1, border: bool = False) -> Plane:
        """Pixels of `a` within `px` of one outside it: OR(a, eroded) minus AND(a, eroded)."""
        self._check_plane()
        if a is self.label:
            return self._of_label(self._valid & ~self._uniform(px, border), "edge")

        def make() -> Tensor:
            padded = F.pad(-a.values, (px,) * 4, value=0.0 if border else -1.0)
            eroded = Plane(lambda: -_windows(padded, px)[..., px:-px, px:-px], "eroded", a.soft)
            return (self.or_(a, eroded).values - self.and_(a, eroded).values).clamp_min(0)

        return Plane(make, "edge", a.soft)

    def _check_plane(self) -> None:
        if self._volumes:
            raise ValueError(f"logits: expected images, since this loss looks at neighbours, got volumes. {SLICES}")

    def _uniform(self, px: int, border: bool) -> Tensor:
        """(N, 1, H, W) bool: where the label has one class within `px`."""
        ids = self._ids.masked_fill(~self._valid, -1).to(self.pred.values.dtype)
        if border:
            ids = F.pad(ids, (px,) * 4, value=-2.0)
        uniform = _windows(ids, px) == -_windows(-ids, px)
        return uniform[..., px:-px, px:-px] if border else uniform

    def dilate(self, a: Plane, px: int) -> Plane:
        """`a` widened by `px` pixels."""
        self._check_plane()
        return Plane(lambda: _windows(a.values, px), "dilated", a.soft, ("dilate", a, px))

    def anywhere(self, a: Plane, skip_first: bool = False) -> Tensor:
        """(N, 1, H, W) bool: where any class of the label's plane is set."""
        inner, px = a.made_of[1:] if a.made_of[0] == "dilate" else (a, 0)  # widening and "any class" commute
        if inner.own is None:
            found = inner.values[:, int(skip_first) :].amax(1, keepdim=True)
        else:
            found = (inner.own & (self._ids >= int(skip_first))).to(self.pred.values.dtype)
        return _windows(found, px) > 0

    def total(self, a: Plane, within: Plane | Tensor | None = None, void: bool = False) -> Tensor:
        """Sum over images and pixels, of void ones with `void` alone."""
        mask = torch.ones_like(self._valid) if void else self._valid
        if isinstance(within, Plane):
            per_image = _sum(a.values * within.values, mask)
        else:
            per_image = self._sum_of(a, mask if within is None else mask & within)
        return per_image if self._per_image else per_image.sum(0)

    def _sum_of(self, a: Plane, mask: Tensor) -> Tensor:
        if a.own is not None:
            return self._by_class((a.own & mask).to(self.pred.values.dtype))
        if a.made_of[0] in ("and", "or"):
            op, soft, hard = a.made_of if a.made_of[1].soft else (a.made_of[0], a.made_of[2], a.made_of[1])
            if soft.soft and hard.own is not None:  # AND is 0 but at the label's class, and OR is g(a) there
                at_own = self._curve(op, soft, soft.values.gather(1, self._ids))
                hits = self._by_class(at_own * (hard.own & mask))
                return hits if op == "and" else _sum(self._g(op, soft), mask) - hits + self._sum_of(hard, mask)
        return _sum(a.values, mask)

    def _by_class(self, values: Tensor) -> Tensor:
        """(N, C): the sum of (N, 1, H, W) by the label's class."""
        sums = _wide(values.new_zeros(self.pred.values.shape[:2]))
        return sums.scatter_add(1, self._ids.flatten(1), _wide(values).flatten(1))

    def _g(self, op: str, a: Plane) -> Tensor:
        return self._curve(op, a, a.values) if a.soft else a.values

    def _curve(self, op: str, a: Plane, values: Tensor) -> Tensor:
        return _evaluate(values, self._curves[op, a.name])


def _sum(maps: Tensor, mask: Tensor) -> Tensor:
    """(N, C)."""
    return _wide((maps * mask).sum((2, 3)))


@dataclass
class Term:
    """One metric of a sum: its weight, its formula, the curves found for it, and that of each class's score, if any."""

    weight: float
    metric: Metric
    curves: dict[tuple[str, str], list[list[float]]]
    score: list[list[float]] | None


class FoundLoss(nn.Module):
    """1 - surrogate of a metric, with curves that were found by a search.

    Args:
        terms: the metrics and their curves.
        absent: "include" averages over all classes, "skip" over those the labels of the batch have.
        eps: added to denominators.
        loss_weight: factor of the result.

    Raises:
        ValueError: one class, over which a softmax is always 1.
    """

    def __init__(self, terms: list[Term], absent: str, eps: float, loss_weight: float) -> None:
        super().__init__()
        if terms[0].metric.options.num_classes == 1:
            raise ValueError(f"num_classes: expected two classes or more, got 1. {ONE_LOGIT}")
        self.terms, self.absent, self.eps, self.loss_weight = terms, absent, eps, loss_weight

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            logits: (N, C, H, W) float; gradients flow. (N, C, D, H, W) of volumes, unless the loss looks at neighbours.
            labels: (N, H, W) or (N, D, H, W) integer class ids, `ignore_index` where there is no label.

        Returns:
            0-d; 0 with zero gradient if the batch has nothing to count.

        Raises:
            ValueError: shapes or dtypes that do not belong together; on the CPU, an id that is neither a class nor
                `ignore_index`.
        """
        options = self.terms[0].metric.options
        _check(logits, labels, options.num_classes, options.ignore_index)
        with _without_autocast(logits.device.type):
            work = logits if logits.dtype == torch.float64 else logits.float()
            probs, ids = work.softmax(1), labels.long()
            volumes = logits.dim() == 5
            if volumes:  # one tall image each
                probs, ids = probs.flatten(2, 3), ids.flatten(1, 2)
            ids = ids.masked_fill(ids == options.ignore_index, -1)
            total = torch.stack([term.weight * self._term(term, probs, ids, volumes) for term in self.terms]).sum()
            return (self.loss_weight * total).to(work.dtype)

    def _term(self, term: Term, probs: Tensor, labels: Tensor, volumes: bool) -> Tensor:
        metric = term.metric
        logic = Logic(probs, labels, term.curves, metric.per_image, volumes)
        sums = metric.sums(logic.pred, logic.label, logic)
        scores = metric.scores(sums, self._ratio)
        if term.score is not None:
            inside = scores.clamp(0, 1)
            scores = _evaluate(inside, term.score) + (scores - inside)
        weights = metric.weights(sums).to(scores.dtype)
        label = sums["label"]
        if label.shape == weights.shape and not (metric.absent_rule and self.absent == "include"):
            weights = weights * (label > 0)
        whole = weights.sum()
        mean = (scores * weights).sum() / whole.clamp_min(torch.finfo(whole.dtype).tiny)
        return torch.where((whole > 0) & (label.sum() > 0), 1 - mean, torch.zeros_like(mean))

    def _ratio(self, numerator: Tensor, denominator: Tensor, empty: float = math.nan) -> Tensor:
        value = numerator / (denominator + self.eps)
        return value if empty == 0 or math.isnan(empty) else value.where(denominator != 0, empty)


def _without_autocast(kind: str) -> ContextManager[Any]:
    # Before torch 2.5 autocast refuses other devices, also to be switched off. Later, it changes nothing here on them:
    # after the softmax there is no product of matrices and no convolution.
    return torch.autocast(kind, enabled=False) if kind in ("cpu", "cuda") else nullcontext()


def _compiling() -> bool:
    compiler: Any = getattr(torch, "compiler", None)  # from torch 2.1 on
    return hasattr(compiler, "is_compiling") and bool(compiler.is_compiling())


def _check(logits: Tensor, labels: Tensor, num_classes: int, ignore_index: int) -> None:
    for name, value in (("logits", logits), ("labels", labels)):
        if not isinstance(value, Tensor):  # of a network with several outputs
            raise ValueError(
                f"{name}: expected a tensor, got {type(value).__name__}. Give the loss one output at a time."
            )
    if logits.dim() not in (4, 5) or logits.shape[1] != num_classes or not logits.is_floating_point():
        expected = f"float of shape (N, {num_classes}, H, W) or, of volumes, (N, {num_classes}, D, H, W)"
        hint = f" {ONE_LOGIT}" if num_classes == 2 and logits.dim() in (4, 5) and logits.shape[1] == 1 else ""
        raise ValueError(f"logits: expected {expected}, got {logits.dtype} of shape {tuple(logits.shape)}.{hint}")
    shape = (logits.shape[0], *logits.shape[2:])
    if tuple(labels.shape) != shape or labels.is_floating_point():
        got = f"{labels.dtype} of shape {tuple(labels.shape)}"
        expected = f"integer class ids of shape {shape}"
        raise ValueError(f"labels: expected {expected}, got {got}. {hint_at_shapes(logits, labels)}".rstrip())
    if labels.device.type == "cpu" and not _compiling():  # elsewhere a look at them would wait for the device
        ids = labels.long()
        wrong = ((ids < 0) | (ids >= num_classes)) & (ids != ignore_index)
        if wrong.any():
            found = ", ".join(map(str, ids[wrong].unique().tolist()[:5]))
            expected = f"class ids 0 to {num_classes - 1} or ignore_index {ignore_index}"
            raise ValueError(f"labels: expected {expected}, got also {found}.")
