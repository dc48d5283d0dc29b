"""The fused pass on a GPU: one Triton kernel forward, one backward, and one more from totals to the loss.

`kernels.rows` has the kernels for few classes, `kernels.loops` those for any number. From memory, forward reads the
logits once; backward reads them once more and writes their gradient. Both read the labels without conversion; forward
also counts and checks them. Only the logits and their logsumexp are stored between the two. `checks` finds out whether
all this works on the GPU.

The kernels have run in Triton's interpreter and have been compiled for NVIDIA's sm_80 and sm_90. They have not been
run on a GPU yet, and no speed is claimed for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from autoseg.surrogates.fast.first_order import once
from autoseg.surrogates.fast.gpu.plans import Plan
from autoseg.surrogates.fast.ratios import Ratio

HELD = 96  # most numbers per thread that `rows` holds for a pixel and its totals, so that no registers spill
TILES = (32, 8)  # a program of `rows`: pixels per tile, one per thread, and number of tiles
LOGITS = 4096  # most logits, pixels times C, of a program of `loops`: those of a multiprocessor then share its cache
PIXELS = (32, 128)  # fewest and most pixels of such a program: one to four per thread
OPTIONS = {"num_warps": 1, "enable_fp_fusion": True}  # one warp: sums over a tile are shuffles, without barriers


@dataclass(eq=False)
class Score:
    """The computation of a score from the totals of a pass, see `kernels.score`.

    Attributes:
        ratio: the ratio of totals.
        present: only classes that the labels have count.
        eps: added to denominators.
        curve: (K, 6) float64, applied to the scores; None: no curve.
    """

    ratio: Ratio
    present: bool
    eps: float
    curve: Tensor | None


def totals(logits: Tensor, plan: Plan, apart: bool = False) -> Tensor:
    """Return all totals of a pass.

    Args:
        logits: (N, C, H, W) bf16, fp16 or fp32 on CUDA, contiguous or channels-last (others are copied).
        plan: from `plans.planned`.
        apart: return totals per image.

    Returns:
        (T, C) float64, or (T, N, C) if `apart`: the same bits for the same batch; differentiable once in the logits. A
        wrong label fails an assertion on the device, which is not waited for.
    """
    found: Tensor = _Totals.apply(logits, plan, apart, None)
    return found


def loss(logits: Tensor, plan: Plan, score: Score) -> Tensor:
    """Return 1 - score of a pass's totals, 0 if nothing counts: 0-d float32, differentiable once.

    Otherwise as `totals`.
    """
    found: Tensor = _Totals.apply(logits, plan, False, score)
    return found


class _Totals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, plan: Plan, apart: bool, score: Score | None) -> Tensor:
        result, normalizer = forward(logits.flatten(2), plan, apart)
        slopes = None
        if score is not None:
            result, slopes = scored(result, score)
        elif not (plan.structure.everywhere or plan.structure.hits):  # counts have no gradient
            ctx.mark_non_differentiable(result)
        ctx.plan = plan
        ctx.save_for_backward(logits, normalizer, slopes, *plan.ids)  # torch notices a change of the labels
        return result

    @staticmethod
    @once
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None, None]:
        logits, normalizer, slopes, *_ = ctx.saved_tensors
        weights, factor = (grad, None) if slopes is None else (slopes, grad)
        return backward(logits.flatten(2), normalizer, ctx.plan, weights, factor).view(logits.shape), None, None, None


# ---------------------------------------------------------------------------------------- launches


def forward(x: Tensor, plan: Plan, apart: bool = False) -> tuple[Tensor, Tensor]:
    """Return totals, (T, C) or (T, N, C) if `apart`, float64, and logsumexp in base 2 (N, P) float32 of logits (N, C,
    P).
    """
    kernels, sizes = _kernels(plan, x)
    n, c, pixels = x.shape
    programs, s = _programs(x, sizes), plan.structure
    fresh = x.new_empty if "TILES" in sizes else x.new_zeros  # `loops` does not write classes that do not occur
    sums = fresh((len(s), n, programs, c), dtype=torch.float32)
    normalizer = x.new_empty((n, pixels), dtype=torch.float32)
    known = x.new_empty((n, programs), dtype=torch.uint8)
    looked_at = -1 if plan.ignore is None else s.labels
    with torch.cuda.device_of(x):
        kernels.forward_kernel[programs, n](
            x, plan.ids, plan.within, plan.curves, sums, normalizer, known, *x.stride(), pixels, plan.ignore or 0,
            EVERYWHERE=s.everywhere, HITS=s.hits, COUNTS=s.counts, LABELS=looked_at, PIECES=s.pieces, C=c,
            BINS=_bins(c), **sizes, **OPTIONS,
        )  # fmt: skip
    if looked_at >= 0:
        torch._assert_async(known.all())
    return sums.sum(2 if apart else (1, 2), dtype=torch.float64), normalizer


def scored(totals: Tensor, score: Score) -> tuple[Tensor, Tensor]:
    """Return the loss, 0-d float32, and its slopes (T, C) float64 in the totals (T, C)."""
    from autoseg.surrogates.fast.gpu.kernels.score import score_kernel

    (count, c), ratio = totals.shape, score.ratio
    loss, slopes = totals.new_empty((), dtype=torch.float32), torch.empty_like(totals)
    with torch.cuda.device_of(totals):
        score_kernel[1,](
            totals, _rows(ratio, totals.device), score.curve, loss, slopes, score.eps, C=c, TOTALS=count,
            LABEL=ratio.label, EQUAL=len(ratio.rows) == 2, PRESENT=score.present, POOLED=ratio.pooled,
            PIECES=0 if score.curve is None else len(score.curve), BINS=_bins(c), **OPTIONS,
        )  # fmt: skip
    return loss, slopes


@lru_cache(maxsize=32)
def _rows(ratio: Ratio, device: torch.device) -> Tensor:
    """Return the ratio's rows on a device; cached, since a transfer in every batch would wait for the device."""
    return torch.tensor(ratio.rows, dtype=torch.float64, device=device)


def backward(x: Tensor, normalizer: Tensor, plan: Plan, weights: Tensor, factor: Tensor | None = None) -> Tensor:
    """Return the gradient (N, C, P) in the logits, in their dtype and layout.

    `weights` are the gradients of the totals, (T, C) or (T, N, C) float64; `factor`, one number, multiplies all of
    them.
    """
    kernels, sizes = _kernels(plan, x)
    n, c, pixels = x.shape
    out, s, weights = torch.empty_like(x), plan.structure, weights.contiguous()
    with torch.cuda.device_of(x):
        kernels.backward_kernel[_programs(x, sizes), n](
            x, plan.ids, plan.within, plan.curves, weights, factor, weights[0].numel(), c if weights.dim() > 2 else 0,
            normalizer, out, *x.stride(), *out.stride(), pixels,
            EVERYWHERE=s.everywhere, HITS=s.hits, PIECES=s.pieces, C=c, **sizes, **OPTIONS,
        )  # fmt: skip
    return out


def _bins(c: int) -> int:
    """Return a power of two, at least c and 32."""
    return max(32, 1 << (c - 1).bit_length())


def _kernels(plan: Plan, x: Tensor) -> tuple[ModuleType, dict[str, int]]:
    """Return the module with the kernels to use, and the size of their programs."""
    c = x.shape[1]
    if c * (1 + len(plan.structure.pieces)) <= HELD:
        from autoseg.surrogates.fast.gpu.kernels import rows

        return rows, dict(zip(("BLOCK", "TILES"), TILES, strict=True))
    from autoseg.surrogates.fast.gpu.kernels import loops

    return loops, {"BLOCK": block_of(c), "FAR": _extent(x) >= 2**31}


def _extent(x: Tensor) -> int:
    """Return the largest offset inside an image, in the logits or in their gradient."""
    (_, c, pixels), (_, stride_c, stride_p) = x.shape, x.stride()
    return max(c * pixels, (c - 1) * stride_c + (pixels - 1) * stride_p)


def _programs(x: Tensor, sizes: dict[str, int]) -> int:
    """Return the number of programs per image."""
    return -(-x.shape[2] // (sizes["BLOCK"] * sizes.get("TILES", 1)))


def block_of(num_classes: int) -> int:
    """Return the pixels of a program of `loops`, a power of two."""
    least, most = PIXELS
    return min(most, max(least, 1 << (LOGITS // num_classes).bit_length() - 1))
