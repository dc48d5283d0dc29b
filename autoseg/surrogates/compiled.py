"""The fused pass on CUDA as torch.compile makes it: forward and backward each one function, Triton kernels both.

On the CPU `native_pass` takes its place. Curves and labels are arguments, so one compilation serves every θ, every
loss of the same structure and, by inductor's cache on disk, every process of a search. Backward makes softmax and
the slopes again: nothing is saved but the logits and their logsumexp. It has not been run on a GPU yet, and no speed
is claimed for it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from autoseg.surrogates.fused import Pass, add_own, own_gradients
from autoseg.surrogates.pieces import table

Part = tuple[Tensor, Tensor | None]  # a curve's table and a mask (N, P)
# Everything is computed where it is used: inductor's own limits would write a dozen tensors the size of the logits.
INLINE: dict[str, Any] = dict.fromkeys(
    ("realize_reads_threshold", "realize_opcount_threshold", "realize_acc_reads_threshold"), 10_000
)


def totals(logits: Tensor, work: Pass) -> Tensor:
    """As `fused.totals`, compiled; the first call of a structure takes seconds to minutes."""
    return _Totals.apply(logits, work)


class _Totals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, work: Pass) -> Tensor:
        x, dtype = logits.flatten(2), torch.float64 if logits.dtype == torch.float64 else torch.float32
        masks = [None if each.mask is None else each.mask.flatten(1) for each in work.everywhere]
        ctx.work, ctx.parts = (
            work,
            [(table(e.curve.to(x.device), dtype), m) for e, m in zip(work.everywhere, masks, strict=True)],
        )
        normalizer, sums = _compiled(_everywhere)(x, ctx.parts)
        result = x.new_zeros(len(work), *x.shape[:2], dtype=torch.float64)
        for each, total in zip(work.everywhere, sums, strict=True):
            result[each.at] = total
        steep: list[Tensor] = []
        for own in work.own:
            tables = [table(curve.to(x.device), dtype) for curve, _ in own.curves]
            values, slopes = _compiled(_own)(x, normalizer, own.classes.flatten(1), tables)
            add_own(result, own, values)
            steep += slopes
        ctx.save_for_backward(logits, normalizer, *steep)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, normalizer, *steep = ctx.saved_tensors
        weights = grad.to(normalizer.dtype)
        own = own_gradients(ctx.work, steep, weights)
        chosen = [weights[each.at] for each in ctx.work.everywhere]
        found = _compiled(_gradient)(logits.flatten(2), normalizer, ctx.parts, chosen, own)
        return found.view(logits.shape), None


@cache
def _compiled(function: Any) -> Any:
    return torch.compile(function, fullgraph=True, options=INLINE)


def _value_and_slope(x: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """g(x) and g'(x) as `curves.evaluate` has them, but for rounding."""
    chosen = list(table[0])
    for row in table[1:]:
        chosen = [torch.where(x > row[0], new, old) for new, old in zip(row, chosen, strict=True)]
    left, inverse, a, low, high, start, rise, bend = chosen
    u = ((x - left) * inverse).clamp(0, 1)
    root = (low * (1 - u) + high * u).sqrt()
    t = u / (a + root)
    half = rise + bend * t
    return start + t * (half + rise), half * inverse / root


def _work(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _everywhere(logits: Tensor, parts: list[Part]) -> tuple[Tensor, list[Tensor]]:
    """The logsumexp (N, P), and (N, C) of every total."""
    x = _work(logits)
    highest = x.amax(1)
    normalizer = highest + (x - highest.unsqueeze(1)).exp().sum(1).log()
    sums = []
    for rows, mask in parts:
        value, _ = _value_and_slope((x - normalizer.unsqueeze(1)).exp(), rows)
        sums.append((value if mask is None else value * mask.unsqueeze(1)).double().sum(2))
    return normalizer, sums


def _own(
    logits: Tensor, normalizer: Tensor, classes: Tensor, tables: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """(N, P) g(p) and p g'(p) of each curve, p of the pixel's class (of class 0 where it has none)."""
    own = _work(logits.gather(1, classes.clamp_min(0).unsqueeze(1)).squeeze(1))
    p = (own - normalizer).exp()
    found = [_value_and_slope(p, table) for table in tables]
    return [value for value, _ in found], [slope * p for _, slope in found]


def _gradient(
    logits: Tensor,
    normalizer: Tensor,
    parts: list[Part],
    weights: list[Tensor],
    own: list[tuple[Tensor, Tensor]],
) -> Tensor:
    """P (d - sum_c p d) with d = dL/dp, in the logits' dtype."""
    p = (_work(logits) - normalizer.unsqueeze(1)).exp()
    pull = torch.zeros_like(p)
    for (rows, mask), weight in zip(parts, weights, strict=True):
        _, slope = _value_and_slope(p, rows)
        each = p * slope * weight.unsqueeze(2)
        pull = pull + (each if mask is None else each * mask.unsqueeze(1))
    ids = torch.arange(p.shape[1], device=p.device).view(1, -1, 1)
    for classes, values in own:
        pull = pull + torch.where(classes.unsqueeze(1) == ids, values.unsqueeze(1), 0)
    return (pull - p * pull.sum(1, keepdim=True)).to(logits.dtype)
