"""Totals of pointwise functions of softmax in one pass over the logits, without C-fold one-hot tensors.

On the CPU; see `passes` for the kinds of totals. The pass walks through blocks of pixels that stay in the cache; sums
are float32 within a block and float64 across blocks. Stored for backward, each of the logits' size: p, and p g'(p) for
each total everywhere. One of these tensors becomes the gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.surrogates.fast.cpu.pieces import ROOM, pieces_of, room_for, total, value_and_slope
from autoseg.surrogates.fast.first_order import once
from autoseg.surrogates.fast.passes import Bound, Own, Pixels

BLOCK = 2**18  # numbers in a block, C times its pixels
OWN = 2**16  # pixels at a time for tensors with one number per pixel


def totals(logits: Tensor, work: Bound) -> Tensor:
    """Return all totals of a pass, (len(work), N, C) float64; differentiable once in the logits.

    Args:
        logits: (N, C, H, W) on the CPU; half precision is computed in float32.
        work: the totals to compute.
    """
    return _Totals.apply(logits, work)


class _Totals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, work: Bound) -> Tensor:
        ctx.work, needed = work, logits.requires_grad
        result, kept = _forward(logits, work, needed)
        if needed:
            ctx.kept = kept
            ctx.save_for_backward(logits, *work.labels())
        return result

    @staticmethod
    @once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits = ctx.saved_tensors[0]
        kept, ctx.kept = ctx.kept, None  # the gradient reuses one of them: new memory costs a fifth of a pass
        if kept is None:  # a second backward pass
            kept = _forward(logits, ctx.work, True)[1]
        return _backward(ctx.work, kept, grad).view(logits.shape).to(logits.dtype), None


@dataclass
class _Kept:
    """The tensors that backward needs, and overwrites.

    Attributes:
        probs: (N, C, P) softmax.
        steep: p g'(p), (N, C, P) of each total everywhere.
        own_steep: the same, (N P,) of each own total.
    """

    probs: Tensor
    steep: list[Tensor]
    own_steep: list[Tensor] = field(default_factory=list)


def _work_dtype(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _cut(x: Tensor, c: int) -> list[Tensor]:
    """Split an (N, …, P) tensor into blocks of about BLOCK / C pixels, image by image.

    An image's blocks are of one size, and their rows begin at the same place of a cache line.
    """
    step = -(-x.shape[-1] // max(1, round(c * x.shape[-1] / BLOCK)))
    return [block for image in x.unbind(0) for block in image.split(max(16, -(-step // 16) * 16), -1)]


def _forward(logits: Tensor, work: Bound, slopes: bool) -> tuple[Tensor, _Kept]:
    """Return the totals, and the tensors that backward needs; `steep` only if `slopes`."""
    kept = _Kept(softmax(logits.flatten(2)), [])
    n, c, pixels = kept.probs.shape
    result = kept.probs.new_zeros(len(work), n, c, dtype=torch.float64)
    kept.steep = [torch.empty_like(kept.probs) for _ in work.everywhere] if slopes else []
    found = [kept.probs.new_empty(n, 1, pixels) for _ in work.own]
    _walk(work, kept, found, result)
    while found:  # each is freed after it is read
        kept.own_steep += _own(work.own[-len(found)], found.pop(0).view(-1), result)
    return result, kept


def _walk(work: Bound, kept: _Kept, found: list[Tensor], result: Tensor) -> None:
    """Compute, block by block, the totals everywhere, and for each class map the probability (N, 1, P) of its class."""
    (n, c), dtype = kept.probs.shape[:2], kept.probs.dtype
    curves = [pieces_of(each.curve, dtype) for each in work.everywhere]
    masks = [
        None if m is None else _cut(numbers(m.flatten(1), dtype), c) for m in (e.pixels.mask for e in work.everywhere)
    ]
    own = [(_cut(_rows(each), c), _cut(out, c)) for each, out in zip(work.own, found, strict=True)]
    steep = [_cut(each, c) for each in kept.steep]
    blocks = _cut(kept.probs, c)
    buffers = kept.probs.new_empty(ROOM * max((p.numel() for p in blocks), default=0) if work.everywhere else 0)
    for b, p in enumerate(blocks):
        for ids, out in own:
            torch.gather(p, 0, ids[b].clamp_min(0), out=out[b])
        room = room_for(p, buffers) if work.everywhere else []
        for k, each in enumerate(work.everywhere):
            counts, slope = masks[k], steep[k][b] if steep else None
            mask = None if counts is None else counts[b]
            result[each.at, b * n // len(blocks)] += total(p, curves[k], mask, slope, room)
            if slope is not None:
                slope.mul_(p) if mask is None else slope.mul_(p).mul_(mask)


def _own(own: Own[Tensor, Pixels], probs: Tensor, result: Tensor) -> list[Tensor]:
    """Write own totals of (N P,) probabilities of each pixel's class to `result`; return p g'(p) of each curve."""
    n, c = result.shape[1:]
    index, out = bins(own.pixels.classes, c).split(OWN), []
    for curve, at in own.curves:
        assert curve is not None  # pixels are counted without a pass
        pieces, steep = pieces_of(curve, probs.dtype), torch.empty_like(probs)
        sums = result.new_zeros(n * (c + 1))
        for ids, p, to in zip(index, probs.split(OWN), steep.split(OWN), strict=True):
            value, slope = value_and_slope(p, pieces)
            sums.index_add_(0, ids, value.double())
            torch.mul(slope, p, out=to)
        result[at] = sums.view(n, c + 1)[:, :-1]
        out.append(steep)
    return out


def softmax(logits: Tensor) -> Tensor:
    """Return softmax over the classes, contiguous; in float32 for half precision."""
    return torch.softmax(logits, 1, dtype=_work_dtype(logits)).contiguous()


def numbers(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return 0 and 1 for a bool tensor, read as bytes, an eighth of the time that torch takes for bools."""
    return mask.view(torch.uint8).to(dtype)


def _rows(own: Own[Tensor, Pixels]) -> Tensor:
    """Return the classes, (N, 1, P), negative where a pixel has none."""
    return own.pixels.classes.flatten(1).unsqueeze(1)


def bins(classes: Tensor, num_classes: int) -> Tensor:
    """Return (N P,) int32 indices of each pixel's total among (N, C + 1).

    The last of an image is for pixels without a class.
    """
    index = classes.flatten(1).int()
    index.masked_fill_(index < 0, num_classes)
    first = (num_classes + 1) * torch.arange(len(index), dtype=torch.int32, device=index.device)
    return index.add_(first.unsqueeze(1)).reshape(-1)


def _backward(work: Bound, kept: _Kept, grad: Tensor) -> Tensor:
    """Return the gradient (N, C, P) in the logits: p (d - sum_c p d) with d = dL/dp.

    It overwrites a tensor of `kept`.
    """
    probs, steep = kept.probs, kept.steep
    n, c = probs.shape[:2]
    weights = grad.to(probs.dtype)
    own = [(_cut(ids, c), _cut(pull, c)) for ids, pull in own_gradients(work, kept.own_steep, weights)]
    weight = [weights[each.at].unsqueeze(-1) for each in work.everywhere]
    blocks = list(zip(_cut(probs, c), *(_cut(each, c) for each in steep), strict=True))
    for b, (p, *steepness) in enumerate(blocks):
        image, pull = b * n // len(blocks), None
        for k, each in enumerate(steepness):
            pull = each.mul_(weight[k][image]) if pull is None else pull.addcmul_(each, weight[k][image])
        if pull is None:  # only own totals: p (0 - sum) now, their part is added then
            pull = p.mul_(-torch.stack([values[b] for _, values in own]).sum(0))
        for ids, values in own:
            pull.scatter_add_(0, ids[b].clamp_min(0), values[b])
        if steepness:
            pull.addcmul_(p, pull.sum(0), value=-1)
    return steep[0] if steep else probs


def own_gradients(work: Bound, steep: Sequence[Tensor], weights: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return for each class map: (N, 1, P) classes to add to, negative without one, and p dL/dp there, 0 without one.

    Args:
        work: the pass.
        steep: (N P,) p g'(p) of every own total.
        weights: (len(work), N, C) gradients of the results.
    """
    out, slopes = [], iter(steep)
    for own in work.own:
        index, pull = bins(own.pixels.classes, weights.shape[2]), None
        for (_, at), slope in zip(own.curves, slopes, strict=False):
            each = F.pad(weights[at], (0, 1)).view(-1).index_select(0, index).mul_(slope)
            pull = each if pull is None else pull.add_(each)
        assert pull is not None
        rows = _rows(own)
        out.append((rows, pull.view_as(rows)))
    return out
