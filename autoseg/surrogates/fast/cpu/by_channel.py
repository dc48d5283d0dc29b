"""Totals of formulas that erode or dilate the prediction, a few channels of one image at a time.

Every plane is computed class by class, so once softmax is known the channels are independent: their
temporaries are made, summed and freed. The backward pass makes them again and stores only softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from autoseg.metrics.bits import BITS
from autoseg.metrics.logic import Plane, Region
from autoseg.metrics.trace import TotalCall
from autoseg.surrogates.fast.cpu.fused import numbers, softmax
from autoseg.surrogates.fast.cpu.pieces import Piece, pieces_of, value_alone, value_and_slope
from autoseg.surrogates.fast.cpu.windows import dilated, eroded, greatest_around
from autoseg.surrogates.fast.first_order import once
from autoseg.surrogates.logic import CurveLogic

BLOCK = 2**18  # elements of a block, its channels times the image's pixels; one channel at least
HALF = BITS // 2  # classes in one int32 map, which is read several times as fast as int64

Listed = tuple[Tensor, Tensor, list[int]]  # (M,) pixels, (M,) their classes, and the start of each of the C classes


@dataclass(frozen=True, eq=False)
class Work:
    """The totals to compute, and their inputs.

    Attributes:
        calls: the totals.
        labels: (N, H, W), which backward reads again.
        curves: coefficients (K, 6) per (operation, operand), see `curves.prepare`.
        map: returns the (N, H, W) class map of a plane of the labels.
        widened: returns a dilated plane of the labels, see `bits.widened`.
        selected: returns (N, H, W) bool of the pixels that count, given a region and whether void ones do; None for
            all.
        classes: C.
    """

    calls: Sequence[TotalCall]
    labels: Tensor
    curves: Mapping[tuple[str, str], Tensor]
    map: Callable[[Plane], Tensor]
    widened: Callable[[Plane], list[Tensor]]
    selected: Callable[[Region | None, bool], Tensor | None]
    classes: int
    _halves: dict[Plane, list[Tensor]] = field(default_factory=dict, init=False)
    _lists: dict[tuple[Plane, bool], list[Listed]] = field(default_factory=dict, init=False)
    _pieces: dict[tuple[str, str, torch.dtype], list[Piece]] = field(default_factory=dict, init=False)

    def pieces(self, op: str, operand: Plane, dtype: torch.dtype) -> list[Piece]:
        """Return the pieces of an operand's curve, for planes of a dtype; made once per batch."""
        key = (op, operand.name, dtype)
        if key not in self._pieces:
            self._pieces[key] = pieces_of(self.curves[key[:2]], dtype)
        return self._pieces[key]

    def halves(self, plane: Plane) -> list[Tensor]:
        """Return a dilated plane of the labels, (N, H, W) int32 for each `HALF` classes, a bit each."""
        if plane not in self._halves:
            words, starts = self.widened(plane), range(0, self.classes, HALF)
            parts = [(words[k // BITS] >> k % BITS) & ((1 << HALF) - 1) for k in starts]
            self._halves[plane] = [part.int() for part in parts]
        return self._halves[plane]

    def listed(self, plane: Plane, void: bool) -> list[Listed]:
        """Return the pixels of a class map, class by class, for each image."""
        if (plane, void) not in self._lists:
            classes, selected = self.map(plane).flatten(1), self.selected(None, void)
            inside = classes >= 0 if selected is None else (classes >= 0) & selected.flatten(1)
            self._lists[plane, void] = [_list(*both, self.classes) for both in zip(classes, inside, strict=True)]
        return self._lists[plane, void]


def _list(classes: Tensor, inside: Tensor, num_classes: int) -> Listed:
    pixels = inside.nonzero().squeeze(1)
    found, order = classes[pixels].sort(stable=True)
    starts = torch.searchsorted(found, torch.arange(num_classes + 1, device=found.device))
    return pixels[order], found, starts.tolist()


class _Curve(torch.autograd.Function):
    """g(x) with its slope computed in the forward pass."""

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
    """OR minus AND of two planes, not below 0: (f(x) + h(y) - f(x) h(y) - g(x) k(y))+ with the curves f, h, g, k."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, either: Sequence[list[Piece]], both: Sequence[list[Piece]]) -> Tensor:
        if not any(ctx.needs_input_grad):
            f, h, g, k = (value_alone(z, curve) for curve, z in zip((*either, *both), (x, y) * 2, strict=True))
            return (f + h).addcmul_(f, h, value=-1).addcmul_(g, k, value=-1).clamp_min_(0)
        (f, df), (h, dh) = (value_and_slope(z, curve) for curve, z in zip(either, (x, y), strict=True))
        (g, dg), (k, dk) = (value_and_slope(z, curve) for curve, z in zip(both, (x, y), strict=True))
        df.addcmul_(df, h, value=-1).addcmul_(dg, k, value=-1)
        dh.addcmul_(dh, f, value=-1).addcmul_(dk, g, value=-1)
        edge = (f + h).addcmul_(f, h, value=-1).addcmul_(g, k, value=-1).clamp_min_(0)
        ctx.save_for_backward(edge, df, dh)
        return edge

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        edge, dx, dy = ctx.saved_tensors
        grad = torch.ops.aten.threshold_backward(grad, edge, 0)  # 0 where the edge is
        return grad * dx, grad * dy, None, None


class _Channels(CurveLogic):
    """Planes of some channels of one image; those of labels are 0 and 1 in the prediction's dtype."""

    def __init__(self, probs: Tensor, image: int, first: int, work: Work) -> None:
        super().__init__(probs, probs.new_empty((1, 0, 0), dtype=torch.int64), {})  # no labels: `work` has them
        self._work, self._image, self._first = work, image, first

    def _make_dense(self, plane: Plane) -> Tensor:
        if plane.soft and plane.op == "boundary":
            either, both = ([self._pieces(op, x) for x in plane.args] for op in ("or", "and"))
            return _Edge.apply(*(self._dense(x) for x in plane.args), either, both)
        if plane.soft:
            return super()._make_dense(plane)
        dense, image = torch.empty_like(self._probs), self._image
        channels = range(self._first, self._first + self._classes)
        if plane.op == "dilate":
            for start, half in zip(range(0, self._work.classes, HALF), self._work.halves(plane), strict=True):
                part = range(max(channels.start, start), min(channels.stop, start + HALF))
                if part:
                    bits = torch.tensor([[[1 << c - start]] for c in part], dtype=torch.int32, device=dense.device)
                    at = slice(part.start - self._first, part.stop - self._first)
                    dense[0, at].copy_(half[image] & bits).clamp_max_(1)
            return dense
        classes = torch.arange(channels.start, channels.stop, dtype=dense.dtype, device=dense.device).view(-1, 1, 1)
        torch.eq(self._work.map(plane)[image].to(dense.dtype), classes, out=dense[0])
        return dense

    def _pooled(self, plane: Plane) -> Tensor:
        inner = self._dense(plane.args[0])
        if plane.op == "dilate":
            return dilated(inner, plane.px)
        return eroded(inner, plane.px, 0.0 if plane.border else 1.0)

    def _curve(self, op: str, operand: Plane, values: Tensor) -> Tensor:
        return _Curve.apply(values, self._pieces(op, operand)) if operand.soft else values

    def _pieces(self, op: str, operand: Plane) -> list[Piece]:
        return self._work.pieces(op, operand, self._probs.dtype)

    def total(self, a: Plane, within: Plane | Region | None = None, void: bool = False) -> Tensor:
        if isinstance(within, Plane):
            soft, hard = (a, within) if a.soft else (within, a)
            if soft.op == "dilate" and soft.px and hard.is_map:
                return self._dilated_at(hard, soft, void)
        dense = self._dense(a)
        if isinstance(within, Plane):
            dense, within = dense * self._dense(within), None
        selected = self._work.selected(within, void)
        if selected is not None:
            dense = dense * numbers(selected[self._image], dense.dtype)
        return dense.sum((2, 3)).to(self._sum_dtype)[0]

    def _dilated_at(self, labels: Plane, dilated: Plane, void: bool) -> Tensor:
        """Return S(y dilate(x)) of a class map y: at each of its pixels only its own class is needed."""
        pixels, classes, starts = self._work.listed(labels, void)[self._image]
        part = slice(starts[self._first], starts[self._first + self._classes])
        channels = classes[part] - self._first
        found = greatest_around(self._dense(dilated.args[0]), pixels[part], channels, dilated.px)
        return found.new_zeros(self._classes, dtype=self._sum_dtype).index_add(0, channels, found.to(self._sum_dtype))

    def all(self) -> Tensor:
        """Return all totals, (totals, channels)."""
        return torch.stack([self.total(each.plane, each.within, each.void) for each in self._work.calls])


def channel_totals(logits: Tensor, work: Work) -> Tensor:
    """Return (len(work.calls), N, C) float64; differentiable once in the logits (N, C, H, W), which are on the CPU."""
    return _Totals.apply(logits, work)


class _Totals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, work: Work) -> Tensor:
        ctx.work = work
        n, c = logits.shape[:2]
        result = torch.zeros(len(work.calls), n, c, dtype=torch.float64, device=logits.device)
        probs = softmax(logits)
        for image, part in _blocks(logits.shape):
            result[:, image, part] = _Channels(probs[image : image + 1, part], image, part.start, work).all()
        ctx.dtype = logits.dtype
        ctx.save_for_backward(logits, probs, work.labels)
        return result

    @staticmethod
    @once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        _, probs, _ = ctx.saved_tensors
        out = torch.empty(probs.shape, dtype=probs.dtype, device=probs.device)
        for image, part in _blocks(probs.shape):
            p = probs[image : image + 1, part].detach().requires_grad_()
            with torch.enable_grad():
                found = (_Channels(p, image, part.start, ctx.work).all() * grad[:, image, part]).sum()
            (slope,) = torch.autograd.grad(found, p)  # a scalar, since grad_outputs would import half of torch
            torch.mul(slope[0], p.detach()[0], out=out[image, part])
        for p, pull in zip(probs, out, strict=True):
            pull.addcmul_(p, pull.sum(0), value=-1)
        return out.to(ctx.dtype), None


def _blocks(shape: torch.Size) -> Iterator[tuple[int, slice]]:
    """Yield (image, channels) of every block."""
    n, c, height, width = shape
    step = max(1, BLOCK // (height * width))
    for image in range(n):
        for start in range(0, c, step):
            yield image, slice(start, min(start + step, c))
