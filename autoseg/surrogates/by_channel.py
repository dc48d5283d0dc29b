"""Totals of formulas that erode or dilate the prediction, a few channels of one image at a time.

Every plane is computed class by class, so once softmax's normalizer is known the channels need each other no more:
their temporaries are made, summed and forgotten. Backward makes them again and saves nothing but the logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from autoseg.metrics.bits import BITS
from autoseg.metrics.logic import Plane, Region
from autoseg.surrogates.asked import Asked
from autoseg.surrogates.logic import CurveLogic
from autoseg.surrogates.pieces import Piece, pieces_of, value_alone, value_and_slope
from autoseg.surrogates.windows import dilated, eroded

BLOCK = 2**18  # elements of a block, its channels times the image's pixels; one channel at least


@dataclass(frozen=True, eq=False)
class Work:
    """What is computed.

    Attributes:
        asked: the totals.
        curves: coefficients (K, 6) per (operation, operand), see `curves.prepare`.
        map: (N, H, W) class map of a plane of the labels.
        widened: a dilated plane of the labels, see `bits.widened`.
        selected: (N, H, W) bool of the pixels that count, given a region and whether void ones do; None for all.
    """

    asked: Sequence[Asked]
    curves: Mapping[tuple[str, str], Tensor]
    map: Callable[[Plane], Tensor]
    widened: Callable[[Plane], list[Tensor]]
    selected: Callable[[Region | None, bool], Tensor | None]


class _Curve(torch.autograd.Function):
    """g(x) with its slope computed along the way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pieces: list[Piece]) -> Tensor:
        if not ctx.needs_input_grad[0]:
            return value_alone(x, pieces)
        value, slope = value_and_slope(x, pieces)
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.saved_tensors[0], None


class _Edge(torch.autograd.Function):
    """OR minus AND of curves' values, not below 0: (b0 + b1 - b0 b1 - a0 a1)+."""

    @staticmethod
    def forward(ctx: Any, a0: Tensor, a1: Tensor, b0: Tensor, b1: Tensor) -> Tensor:
        ctx.save_for_backward(a0, a1, b0, b1)
        edge = (b0 + b1).addcmul_(b0, b1, value=-1).addcmul_(a0, a1, value=-1).clamp_min_(0)
        ctx.rises = torch.gt(edge, 0, out=torch.empty_like(edge))
        return edge

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        a0, a1, b0, b1 = ctx.saved_tensors
        grad = grad * ctx.rises
        return -grad * a1, -grad * a0, torch.addcmul(grad, grad, b1, value=-1), torch.addcmul(grad, grad, b0, value=-1)


class _Channels(CurveLogic):
    """Planes of some channels of one image; those of labels are 0 and 1 in the prediction's dtype."""

    def __init__(self, probs: Tensor, image: int, first: int, work: Work) -> None:
        super().__init__(probs, probs.new_empty((1, 0, 0), dtype=torch.int64), {})  # no labels: `work` has them
        self._work, self._image, self._first = work, image, first

    def _make_dense(self, plane: Plane) -> Tensor:
        if plane.soft and plane.op == "boundary":
            values = (self._curve(op, x, self._dense(x)) for op in ("and", "or") for x in plane.args)
            return _Edge.apply(*values)
        if plane.soft:
            return super()._make_dense(plane)
        dense = torch.empty_like(self._probs)
        if plane.op == "dilate":
            for k in range(self._classes):
                word, bit = divmod(self._first + k, BITS)
                torch.ne(self._work.widened(plane)[word][self._image] & (1 << bit), 0, out=dense[0, k])
            return dense
        classes = self._work.map(plane)[self._image].to(self._probs.dtype)
        for k in range(self._classes):
            torch.eq(classes, self._first + k, out=dense[0, k])
        return dense

    def _pooled(self, plane: Plane) -> Tensor:
        inner = self._dense(plane.args[0])
        if plane.op == "dilate":
            return dilated(inner, plane.px)
        return eroded(inner, plane.px, 0.0 if plane.border else 1.0)

    def _curve(self, op: str, operand: Plane, values: Tensor) -> Tensor:
        return (
            _Curve.apply(values, pieces_of(self._work.curves[op, operand.name], values.dtype))
            if operand.soft
            else values
        )

    def total(self, a: Plane, within: Plane | Region | None = None, void: bool = False) -> Tensor:
        dense = self._dense(a)
        if isinstance(within, Plane):
            dense, within = dense * self._dense(within), None
        selected = self._work.selected(within, void)
        if selected is not None:
            dense = dense * selected[self._image].to(dense.dtype)
        return dense.sum((2, 3)).to(self._sum_dtype)[0]

    def all(self) -> Tensor:
        """(totals, channels)."""
        return torch.stack([self.total(each.plane, each.within, each.void) for each in self._work.asked])


def channel_totals(logits: Tensor, work: Work) -> Tensor:
    """(len(work.asked), N, C) float64; differentiable once in the logits (N, C, H, W), which are on the CPU."""
    return _Totals.apply(logits, work)


class _Totals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, work: Work) -> Tensor:
        ctx.work = work
        n, c = logits.shape[:2]
        result = torch.zeros(len(work.asked), n, c, dtype=torch.float64)
        normalizer = torch.empty(n, *logits.shape[2:], dtype=_work(logits[:0]).dtype)
        for image in range(n):
            torch.logsumexp(_work(logits[image]), 0, out=normalizer[image])
        for image, part in _blocks(logits.shape):
            probs = _probs(logits, normalizer, image, part)
            result[:, image, part] = _Channels(probs, image, part.start, work).all()
        ctx.save_for_backward(logits, normalizer)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, normalizer = ctx.saved_tensors
        out = torch.empty(logits.shape, dtype=normalizer.dtype)
        blocks = list(_blocks(logits.shape))
        for image in range(len(logits)):
            parts = [part for of, part in blocks if of == image]
            probs = [_probs(logits, normalizer, image, part) for part in parts]
            whole = torch.zeros_like(normalizer[image])
            for part, p in zip(parts, probs, strict=True):
                p.requires_grad_()
                with torch.enable_grad():
                    found = (_Channels(p, image, part.start, ctx.work).all() * grad[:, image, part]).sum()
                (slope,) = torch.autograd.grad(found, p)  # of a scalar: grad_outputs would import half of torch
                torch.mul(slope[0], p.detach()[0], out=out[image, part])
                whole += out[image, part].sum(0)
            for part, p in zip(parts, probs, strict=True):
                out[image, part].addcmul_(p.detach()[0], whole, value=-1)
        return out.to(logits.dtype), None


def _work(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _probs(logits: Tensor, normalizer: Tensor, image: int, part: slice) -> Tensor:
    """(1, channels, H, W) softmax."""
    return torch.sub(_work(logits[image, part]), normalizer[image]).exp_().clamp_(max=1)[None]


def _blocks(shape: torch.Size) -> Iterator[tuple[int, slice]]:
    """(image, channels) of every block."""
    n, c, height, width = shape
    step = max(1, BLOCK // (height * width))
    for image in range(n):
        for start in range(0, c, step):
            yield image, slice(start, min(start + step, c))
