"""Totals of pointwise functions of softmax in one pass over the logits, without C-fold one-hot tensors.

Two kinds of total cover every formula whose prediction planes are not eroded or dilated:

    everywhere: T[n, c] = sum_i m(n, i) g(p_c(n, i)),           m a mask,
    own:        T[n, c] = sum over pixels i of class c of g(p_c(n, i)),  in a class map,

since S(p AND y) = own(gA) and S(p OR y) = everywhere(gO) - own(gO) + S(y). The pass walks through blocks of pixels
that stay in the cache; sums are float32 within a block and float64 across blocks. Kept for backward: the logits,
their logsumexp and, for each total of the first kind, one tensor the size of the logits: p g'(p), which becomes
the gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from autoseg.surrogates.pieces import pieces_of, value_and_slope

BLOCK = 2**17  # elements of a block, C times its pixels


@dataclass(frozen=True, eq=False)
class Everywhere:
    """A total of the first kind.

    Attributes:
        curve: coefficients (K, 6), see `curves.prepare`.
        mask: (N, H, W) bool, None for all pixels.
        at: its place among the pass's results.
    """

    curve: Tensor
    mask: Tensor | None
    at: int


@dataclass(frozen=True, eq=False)
class Own:
    """Totals of the second kind that share a class map.

    Attributes:
        classes: (N, H, W) int64, negative where a pixel has none.
        curves: (coefficients (K, 6), place among the pass's results) of each total.
    """

    classes: Tensor
    curves: list[tuple[Tensor, int]] = field(default_factory=list)


@dataclass
class Pass:
    """What one pass computes; its results are in the order in which they were added."""

    everywhere: list[Everywhere] = field(default_factory=list)
    own: list[Own] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.everywhere) + sum(len(own.curves) for own in self.own)

    def add_everywhere(self, curve: Tensor, mask: Tensor | None) -> int:
        """The place of its result."""
        self.everywhere.append(Everywhere(curve, mask, len(self)))
        return len(self) - 1

    def add_own(self, curve: Tensor, classes: Tensor) -> int:
        """The place of its result."""
        place = len(self)
        group = next((own for own in self.own if own.classes is classes), None)
        if group is None:
            group = Own(classes)
            self.own.append(group)
        group.curves.append((curve, place))
        return place


def totals(logits: Tensor, work: Pass) -> Tensor:
    """All totals of a pass, (len(work), N, C) float64; differentiable once in the logits.

    Args:
        logits: (N, C, H, W) on the CPU; half precision is computed in float32.
        work: what to compute.
    """
    return _Totals.apply(logits, work)


class _Totals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, work: Pass) -> Tensor:
        ctx.work, needed = work, logits.requires_grad
        result, normalizer, ctx.steep = _forward(logits, work, needed)
        if needed:
            ctx.save_for_backward(logits, normalizer)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, normalizer = ctx.saved_tensors
        steep, ctx.steep = ctx.steep, None  # the gradient takes one's place: fresh memory costs a fifth of a pass
        if steep is None:  # asked for a second time
            steep = _forward(logits, ctx.work, True)[2]
        return _backward(logits, ctx.work, normalizer, steep, grad), None


def _work_dtype(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[int, slice]]:
    """(image, range of pixels) of every block of (N, C, P)."""
    n, c, pixels = shape
    step = max(1, BLOCK // c)
    step -= step % 16 if step > 16 else 0  # rows begin at the same place of a cache line
    for image in range(n):
        for start in range(0, pixels, step):
            yield image, slice(start, min(start + step, pixels))


def _forward(logits: Tensor, work: Pass, slopes: bool) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The totals, and what backward needs: logsumexp; p g' of each total everywhere and of each own total."""
    x, dtype = logits.flatten(2), _work_dtype(logits)
    n, c, pixels = x.shape
    result = x.new_zeros(len(work), n, c, dtype=torch.float64)
    normalizer = x.new_empty(n, pixels, dtype=dtype)
    steep = [x.new_empty(x.shape, dtype=dtype) for _ in work.everywhere] if slopes else []
    curves = [pieces_of(each.curve) for each in work.everywhere]
    masks = [None if each.mask is None else each.mask.flatten(1).to(dtype) for each in work.everywhere]
    classes = [own.classes.flatten(1).clamp_min(0) for own in work.own]
    found = [x.new_empty(n, pixels, dtype=dtype) for _ in work.own]
    for image, part in _blocks(x.shape):
        p = _softmax(x[image, :, part], normalizer[image, part])
        for ids, out in zip(classes, found, strict=True):
            torch.gather(p, 0, ids[image : image + 1, part], out=out[image : image + 1, part])
        for k, curve in enumerate(curves):
            mask = masks[k]
            value, slope = value_and_slope(p, curve)
            result[work.everywhere[k].at, image] += value.sum(1) if mask is None else value @ mask[image, part]
            if slopes:
                torch.mul(slope, p, out=steep[k][image, :, part])
                if mask is not None:
                    steep[k][image, :, part].mul_(mask[image, part])
    for own, p in zip(work.own, found, strict=True):
        values, steepness = zip(*(value_and_slope(p, pieces_of(curve)) for curve, _ in own.curves), strict=True)
        add_own(result, own, values)
        steep += [slope.mul_(p) for slope in steepness]
    return result, normalizer, steep


def _softmax(x: Tensor, normalizer: Tensor) -> Tensor:
    """Softmax over the first dimension of a block (C, B); its logsumexp is left in `normalizer`."""
    torch.amax(x, 0, out=normalizer) if x.dtype == normalizer.dtype else normalizer.copy_(x.amax(0))
    p = torch.sub(x, normalizer).exp_()
    whole = p.sum(0)
    normalizer.add_(whole.log())
    return p.div_(whole)


def bins(classes: Tensor, num_classes: int) -> Tensor:
    """(N P,) index of each pixel's total among (N, C + 1): the last of an image is for pixels without a class."""
    flat = classes.flatten(1)
    index = torch.where(flat < 0, num_classes, flat)
    return index.add_((num_classes + 1) * torch.arange(len(flat), device=flat.device).view(-1, 1)).view(-1)


def add_own(result: Tensor, own: Own, values: Sequence[Tensor]) -> None:
    """Sums (N, P) values by class into the places of `result`, in float64."""
    n, c = result.shape[1:]
    index = bins(own.classes, c)
    for (_, at), each in zip(own.curves, values, strict=True):
        sums = result.new_zeros(n * (c + 1)).index_add_(0, index, each.reshape(-1).double())
        result[at] = sums.view(n, c + 1)[:, :-1]


def _backward(logits: Tensor, work: Pass, normalizer: Tensor, steep: list[Tensor], grad: Tensor) -> Tensor:
    """Gradient in the logits, in their dtype: p (d - sum_c p d) with d = dL/dp. `steep` is used up."""
    x, dtype = logits.flatten(2), _work_dtype(logits)
    count = len(work.everywhere)
    weights = grad.to(dtype)
    own = own_gradients(work, steep[count:], weights)
    weight = [weights[each.at].unsqueeze(-1) for each in work.everywhere]
    out = steep[0] if count else x.new_empty(x.shape, dtype=dtype)
    for image, part in _blocks(x.shape):
        p = torch.sub(x[image, :, part], normalizer[image, part]).exp_()
        pull = torch.zeros_like(p) if count == 0 else steep[0][image, :, part] * weight[0][image]
        for k in range(1, count):
            pull.addcmul_(steep[k][image, :, part], weight[k][image])
        for ids, values in own:
            pull.scatter_add_(0, ids[image : image + 1, part], values[image : image + 1, part])
        torch.sub(pull, p.mul_(pull.sum(0)), out=out[image, :, part])
    return out.view(logits.shape).to(logits.dtype)


def own_gradients(work: Pass, steep: Sequence[Tensor], weights: Tensor) -> list[tuple[Tensor, Tensor]]:
    """For each class map: (N, P) classes to add to (0 without one), and p dL/dp there (0 without one).

    Args:
        work: the pass.
        steep: (N, P) p g'(p) of every own total.
        weights: (len(work), N, C) gradients of the results.
    """
    out, slopes = [], iter(steep)
    for own in work.own:
        index, pull = bins(own.classes, weights.shape[2]), None
        for (_, at), slope in zip(own.curves, slopes, strict=False):
            each = F.pad(weights[at], (0, 1)).view(-1).index_select(0, index).view_as(slope).mul_(slope)
            pull = each if pull is None else pull.add_(each)
        assert pull is not None
        out.append((own.classes.flatten(1).clamp_min(0), pull))
    return out
