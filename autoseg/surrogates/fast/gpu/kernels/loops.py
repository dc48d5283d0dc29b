"""The pass as two Triton kernels for any number of classes; importing this needs triton.

A program processes BLOCK pixels of one image and loops over their classes: per pixel it holds a
few numbers in registers, whatever C is, and the logits that it reads again are still in the cache.

    forward    max_c x_c;  sum_c exp(x_c - max);  for each total: for each class: sum over the block's pixels
    backward   for each class: p d, summed over the classes;  for each class: p (d - sum_c p d), written

with d = dL/dp. A pixel's own class is one number of its row, gathered: own curves are evaluated once per pixel.
The only tensor of the logits' size that is written is their gradient. Labels are read without conversion, 1 to 8 bytes
per pixel.

The arguments of these kernels and of those of `rows`:

    logits        (N, C, P) bf16, fp16 or fp32 at any strides: contiguous or channels-last
    ids, within   for each group of pixels (N, P) labels of any integer type, and (N, P) bytes, 0 where pixels do not
                  count; both may be None, see `passes.Pixels`
    curves        (K, 6) fp64 of each total everywhere, then of each own one, see `curves.prepare`
    sums          (T, N, programs, C) fp32: written
    normalizer    (N, P) fp32: logsumexp over the classes in base 2, written by forward
    known         (N, programs) bytes: written, 0 where a label is neither a class nor `ignore`
    weights       (T, C) or (T, N, C) fp64, dL/dT over `factor`
    factor        one number that multiplies all weights; None: 1
    stride_t      stride of the weights from one total to the next
    apart         stride of the weights from one image to the next: 0 or C
    grad          (N, C, P) in the logits' dtype, with its own strides: written
    EVERYWHERE    for each total everywhere: its group, the group that counts as 1 in its own class (-1: none), its
                  index among the results
    HITS, COUNTS  for each own total, and for each count of pixels: its group, its index among the results
    LABELS        the group whose ids are checked for `known`; -1: none
    PIECES        K of each curve
    FAR           offsets in an image have 64 bits; else 32, for which ptxas needs a third of the registers
    BINS          a power of two, at least C and 32

Sums are float32 within a program; each program writes its own and the caller adds them up in float64, so that no
atomics are needed and the same batch gives the same bits again. Exponentials are powers of 2, which the
hardware computes: p = 2^(x log2(e) - n) with n the logsumexp in base 2.
"""

from __future__ import annotations

import triton
import triton.language as tl

from autoseg.surrogates.fast.gpu.kernels.parts import (
    LOG2E,
    classes_at,
    curves_of,
    factor_of,
    load,
    own_pulls,
    slope,
    strange,
    value,
    weights_of,
)


@triton.jit
def forward_kernel(
    logits, ids, within, curves, sums, normalizer, known, stride_n, stride_c, stride_p, pixels, ignore,
    EVERYWHERE: tl.constexpr, HITS: tl.constexpr, COUNTS: tl.constexpr, LABELS: tl.constexpr, PIECES: tl.constexpr,
    C: tl.constexpr, BLOCK: tl.constexpr, FAR: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    """Compute all totals of a block of pixels, and logsumexp; grid (blocks of an image, N). `sums` must be zeros."""
    block, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    blocks, images = tl.num_programs(0), tl.num_programs(1)
    if FAR:
        stride_c, stride_p = tl.cast(stride_c, tl.int64), tl.cast(stride_p, tl.int64)
    i = block * BLOCK + tl.arange(0, BLOCK)
    here, inside, at = logits + image * stride_n + i * stride_p, i < pixels, image * pixels + i
    pieces, of = curves_of(curves, PIECES), classes_at(ids, within, at, inside, C)
    highest = tl.full((BLOCK,), float("-inf"), tl.float32)
    for c in range(C):
        highest = tl.maximum(highest, load(here + c * stride_c, inside))
    highest *= LOG2E
    whole = tl.zeros((BLOCK,), tl.float32)
    for c in range(C):
        whole += tl.exp2(load(here + c * stride_c, inside) * LOG2E - highest)
    tl.store(normalizer + at, highest + tl.log2(whole), mask=inside)
    scale = 1 / whole
    for k in tl.static_range(len(EVERYWHERE)):
        counts = (of[EVERYWHERE[k][0]] >= 0).to(tl.float32)
        to = sums + ((EVERYWHERE[k][-1] * images + image) * blocks + block) * C
        for c in range(C):
            y = value(tl.exp2(load(here + c * stride_c, inside) * LOG2E - highest) * scale, pieces[k])
            if EVERYWHERE[k][1] >= 0:
                y = tl.where(of[EVERYWHERE[k][1]] == c, 1.0, y)
            tl.store(to + c, tl.sum(y * counts))
    for k in tl.static_range(len(HITS)):
        own = of[HITS[k][0]]
        p = tl.exp2(load(here + own * stride_c, own >= 0) * LOG2E - highest) * scale
        y = value(p, pieces[len(EVERYWHERE) + k])
        to = sums + ((HITS[k][-1] * images + image) * blocks + block) * C
        for c in range(tl.min(tl.where(own >= 0, own, C)), tl.max(own) + 1):  # neighbours are of few classes
            tl.store(to + c, tl.sum(tl.where(own == c, y, 0.0)))
    bins = tl.arange(0, BINS)
    for k in tl.static_range(len(COUNTS)):
        own = of[COUNTS[k][0]]
        to = sums + ((COUNTS[k][-1] * images + image) * blocks + block) * C
        tl.store(to + bins, tl.histogram(own, BINS, mask=own >= 0).to(tl.float32), mask=bins < C)
    if LABELS >= 0:
        wrong = tl.max(strange(ids[LABELS], at, inside, ignore, C))
        tl.store(known + image * blocks + block, (wrong == 0).to(tl.uint8))


@triton.jit
def backward_kernel(
    logits, ids, within, curves, weights, factor, stride_t, apart, normalizer, grad, stride_n, stride_c, stride_p,
    grad_n, grad_c, grad_p, pixels, EVERYWHERE: tl.constexpr, HITS: tl.constexpr, PIECES: tl.constexpr, C: tl.constexpr,
    BLOCK: tl.constexpr, FAR: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of a block of pixels, p (d - sum_c p d), with softmax recomputed.

    Grid (blocks of an image, N).
    """
    image = tl.program_id(1).to(tl.int64)
    if FAR:
        stride_c, stride_p = tl.cast(stride_c, tl.int64), tl.cast(stride_p, tl.int64)
        grad_c, grad_p = tl.cast(grad_c, tl.int64), tl.cast(grad_p, tl.int64)
    TOTALS: tl.constexpr = EVERYWHERE + HITS
    weights, factor = weights_of(weights, stride_t, apart, image, TOTALS), factor_of(factor)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here, inside, at = logits + image * stride_n + i * stride_p, i < pixels, image * pixels + i
    pieces, of = curves_of(curves, PIECES), classes_at(ids, within, at, inside, C)
    whole = tl.load(normalizer + at, mask=inside, other=0.0)
    own, pulled = own_pulls(here, stride_c, of, whole, pieces, weights, factor, HITS, len(EVERYWHERE))
    for c in range(C):
        p = tl.exp2(load(here + c * stride_c, inside) * LOG2E - whole)
        pulled += _pull(p, c, of, pieces, weights, factor, EVERYWHERE)
    to = grad + image * grad_n + i * grad_p
    for c in range(C):
        p = tl.exp2(load(here + c * stride_c, inside) * LOG2E - whole)
        pull = _pull(p, c, of, pieces, weights, factor, EVERYWHERE) - p * pulled
        for k in tl.static_range(len(HITS)):
            pull += tl.where(of[HITS[k][0]] == c, own[k], 0.0)
        tl.store(to + c * grad_c, pull.to(grad.dtype.element_ty), mask=inside)


@triton.jit
def _pull(p, c, of, pieces, weights, factor, EVERYWHERE: tl.constexpr):
    """Return p d of class c, for the totals everywhere."""
    d = tl.zeros_like(p)
    for k in tl.static_range(len(EVERYWHERE)):
        counts = of[EVERYWHERE[k][0]] >= 0
        if EVERYWHERE[k][1] >= 0:
            counts = counts & (of[EVERYWHERE[k][1]] != c)
        d += slope(p, pieces[k]) * tl.where(counts, tl.load(weights[k] + c).to(tl.float32) * factor, 0.0)
    return p * d
