"""Totals of formulas that erode or dilate the prediction, in native code: see `channels.cpp`.

The formula's planes are written as a program, which runs for each channel of each image. Only the logits and softmax's
normalisation are saved.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from autoseg.metrics.bits import BITS
from autoseg.metrics.logic import Plane
from autoseg.metrics.trace import TotalCall
from autoseg.surrogates.fast.cpu.by_channel import Work
from autoseg.surrogates.fast.cpu.native import call, plain
from autoseg.surrogates.fast.cpu.pieces import table
from autoseg.surrogates.fast.first_order import once

PRED, LABEL, WIDENED, ERODE, DILATE, EDGE, AND, OR = range(8)  # `Op` of channels.cpp
_OPS = {"pred": PRED, "erode": ERODE, "dilate": DILATE, "boundary": EDGE, "and": AND, "or": OR}


class _Rule(ctypes.Structure):
    _fields_ = (("pieces", ctypes.c_void_p), ("count", ctypes.c_int64))


class _Node(ctypes.Structure):
    _fields_ = (
        ("op", ctypes.c_int64),
        ("soft", ctypes.c_int64),
        ("a", ctypes.c_int64),
        ("b", ctypes.c_int64),
        ("px", ctypes.c_int64),
        ("outside", ctypes.c_double),
        ("map", ctypes.c_void_p),
        ("rules", _Rule * 4),
    )


class _Total(ctypes.Structure):
    _fields_ = (("a", ctypes.c_int64), ("b", ctypes.c_int64), ("mask", ctypes.c_void_p))


class _Program(ctypes.Structure):
    _fields_ = (
        ("nodes", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("totals", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("asked", "images", "classes", "height", "width", "bits")),
    )


class _Writer:
    """Writes the program of the totals; the tensors that it points to live as long as this object."""

    def __init__(self, shape: Sequence[int], work: Work) -> None:
        self._work = work
        self._kept: list[Tensor] = []
        self._places: dict[Plane, int] = {}
        self._written: list[_Node] = []
        totals = [self._total(call) for call in work.calls]
        self._nodes = (_Node * len(self._written))(*self._written)
        self._totals = (_Total * len(totals))(*totals)
        address, (n, c, height, width) = ctypes.addressof, shape
        counts = (len(self._totals), n, c, height, width, BITS)
        self.program = _Program(address(self._nodes), len(self._nodes), address(self._totals), *counts)

    def _total(self, call: TotalCall) -> _Total:
        within, first = call.within, self._place(call.plane)
        if isinstance(within, Plane):
            return _Total(first, self._place(within), self._keep(self._work.selected(None, call.void)))
        return _Total(first, -1, self._keep(self._work.selected(within, call.void)))

    def _place(self, plane: Plane) -> int:
        """Return the plane's number in the program."""
        if plane not in self._places:
            node = self._soft(plane) if plane.soft else self._hard(plane)
            self._places[plane] = len(self._written)
            self._written.append(node)
        return self._places[plane]

    def _hard(self, plane: Plane) -> _Node:
        if plane.op == "dilate":
            return _Node(op=WIDENED, map=self._keep(torch.stack(self._work.widened(plane))))
        return _Node(op=LABEL, map=self._keep(self._work.map(plane)))

    def _soft(self, plane: Plane) -> _Node:
        places = [self._place(each) for each in plane.args]
        op = _OPS[plane.op]
        names = {EDGE: ("and", "or"), AND: ("and",), OR: ("or",)}.get(op, ())
        rules = [self._rule(name, operand) for name in names for operand in plane.args]
        a, b = (*places, 0, 0)[:2]
        node = _Node(op=op, soft=1, a=a, b=b, px=plane.px, outside=0.0 if plane.border else 1.0)
        node.rules[: len(rules)] = rules
        return node

    def _rule(self, op: str, operand: Plane) -> _Rule:
        if not operand.soft:
            return _Rule(None, 0)
        rows = table(self._work.curves[op, operand.name].cpu(), torch.float32)
        return _Rule(self._keep(rows), len(rows))

    def _keep(self, tensor: Tensor | None) -> int | None:
        if tensor is None:
            return None
        self._kept.append(tensor.contiguous())
        return self._kept[-1].data_ptr()


def channel_totals(logits: Tensor, work: Work) -> Tensor:
    """Return the result of `by_channel.channel_totals`, for logits and curves that `native_pass.takes` accepts.

    Raises:
        InputError: there is no C++ compiler.
    """
    return _Totals.apply(logits, work)


class _Totals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, work: Work) -> Tensor:
        x, ctx.writer = plain(logits), _Writer(logits.shape, work)
        n, c, pixels = x.shape
        normalizer = x.new_empty(2, n, pixels)
        sums = x.new_empty(len(work.calls), n, c, dtype=torch.float64)
        call("pointwise_forward", x, n, c, pixels, None, 0, normalizer, None)
        call("channels_forward", ctypes.byref(ctx.writer.program), x, normalizer, sums)
        ctx.save_for_backward(logits, normalizer, work.labels)
        return sums

    @staticmethod
    @once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, normalizer, _ = ctx.saved_tensors
        x, weights = plain(logits), grad.float().contiguous()
        out = torch.empty_like(x)  # float32 as C++ writes it, whatever the default dtype
        call("channels_backward", ctypes.byref(ctx.writer.program), x, normalizer, weights, out)
        return out.view(logits.shape).to(logits.dtype), None
