"""The fused pass on a CPU in native code, see `pointwise.cpp`.

Forward and backward compute softmax from the logits, each pixel's largest logit and its sum of powers; nothing else is
saved.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from autoseg.surrogates.fast.cpu.native import MAX_PIECES, call, plain
from autoseg.surrogates.fast.cpu.pieces import table
from autoseg.surrogates.fast.first_order import once
from autoseg.surrogates.fast.passes import Bound


class Term(ctypes.Structure):
    """The structure `Term` of pointwise.cpp."""

    _fields_ = (
        ("pieces", ctypes.c_void_p),
        ("count", ctypes.c_int64),
        ("mask", ctypes.c_void_p),
        ("classes", ctypes.c_void_p),
    )


def takes(logits: Tensor, curves: Iterable[Tensor]) -> bool:
    """Return whether there is native code: on the CPU, computed in float32, for curves of at most `MAX_PIECES`
    pieces.
    """
    few = all(len(curve) <= MAX_PIECES for curve in curves)
    return logits.device.type == "cpu" and logits.dtype != torch.float64 and few


def totals(logits: Tensor, work: Bound) -> Tensor:
    """Return the result of `fused.totals`, for logits that `takes` accepts.

    Raises:
        InputError: there is no C++ compiler.
    """
    return _Totals.apply(logits, work)


class _Totals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, work: Bound) -> Tensor:
        x, terms = plain(logits), _Terms(work)
        n, c, pixels = x.shape
        normalizer = x.new_empty(2, n, pixels)
        sums = x.new_empty(len(work), n, c, dtype=torch.float64)
        call("pointwise_forward", *terms.arguments(x), normalizer, sums)
        ctx.terms = terms
        ctx.save_for_backward(logits, normalizer, *work.labels())
        return sums

    @staticmethod
    @once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, normalizer, *_ = ctx.saved_tensors
        x, weights = plain(logits), grad.float().contiguous()
        out = torch.empty_like(x)  # float32 as C++ writes it, whatever the default dtype
        call("pointwise_backward", *ctx.terms.arguments(x), normalizer, weights, out)
        return out.view(logits.shape).to(logits.dtype), None


class _Terms:
    """A pass's totals in order, and the tensors that they point to."""

    def __init__(self, work: Bound) -> None:
        self._kept: list[Tensor] = []
        self._array = (Term * len(work))()
        for each in work.everywhere:
            self._array[each.at] = self._term(each.curve, each.pixels.mask, None)
        for own in work.own:
            for curve, at in own.curves:
                assert curve is not None  # pixels are counted without a pass
                self._array[at] = self._term(curve, None, own.pixels.classes)

    def arguments(self, x: Tensor) -> tuple[object, ...]:
        """Return the first arguments of both functions."""
        return (x, *x.shape, self._array, len(self._array))

    def _term(self, curve: Tensor, mask: Tensor | None, classes: Tensor | None) -> Term:
        rows = table(curve.cpu(), torch.float32)
        return Term(self._keep(rows), len(rows), *(None if t is None else self._keep(t) for t in (mask, classes)))

    def _keep(self, tensor: Tensor) -> int:
        tensor = tensor.contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()
