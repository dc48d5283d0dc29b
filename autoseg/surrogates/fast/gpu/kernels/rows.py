"""The pass as two Triton kernels for few classes: the numbers of a pixel's classes stay in registers.

Each direction reads a logit once and computes softmax and slopes once. Loops over the classes are unrolled, so
that tuples of C replace arrays. A program processes TILES times BLOCK pixels of one image and adds up the results of
its pixels per class and thread, so that threads are summed once per program and not once per tile. See
`loops` for the arguments; a test checks that both compute the same.
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
    C: tl.constexpr, BLOCK: tl.constexpr, TILES: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    """Compute all totals of a program's pixels, and logsumexp; grid (programs of an image, N)."""
    program, image = tl.program_id(0), tl.program_id(1).to(tl.int64)
    programs, images = tl.num_programs(0), tl.num_programs(1)
    stride_c, stride_p = tl.cast(stride_c, tl.int64), tl.cast(stride_p, tl.int64)
    pieces = curves_of(curves, PIECES)
    found = _copies(tl.zeros((BLOCK,), tl.float32), (len(EVERYWHERE) + len(HITS)) * C)
    counted = _copies(tl.zeros((BINS,), tl.int32), len(COUNTS))
    wrong = tl.zeros((BLOCK,), tl.int32)
    for tile in range(TILES):
        i = (program * TILES + tile) * BLOCK + tl.arange(0, BLOCK)
        here, inside, at = logits + image * stride_n + i * stride_p, i < pixels, image * pixels + i
        highest, powers, whole = _powers(_row(here, stride_c, inside, C), C)
        tl.store(normalizer + at, highest + tl.log2(whole), mask=inside)
        scale, of = 1 / whole, classes_at(ids, within, at, inside, C)
        more = _everywhere(found, powers, scale, of, pieces, EVERYWHERE, C)
        for k in tl.static_range(len(HITS)):
            own = of[HITS[k][0]]
            p = tl.exp2(load(here + own * stride_c, own >= 0) * LOG2E - highest) * scale
            y = value(p, pieces[len(EVERYWHERE) + k])
            for c in tl.static_range(C):
                more = more + (found[(len(EVERYWHERE) + k) * C + c] + tl.where(own == c, y, 0.0),)
        found, still = more, ()
        for k in tl.static_range(len(COUNTS)):
            own = of[COUNTS[k][0]]
            still = still + (counted[k] + tl.histogram(own, BINS, mask=own >= 0),)
        counted = still
        if LABELS >= 0:
            wrong |= strange(ids[LABELS], at, inside, ignore, C)
    TOTALS: tl.constexpr = EVERYWHERE + HITS
    for k in tl.static_range(len(TOTALS)):
        for c in tl.static_range(C):
            tl.store(sums + ((TOTALS[k][-1] * images + image) * programs + program) * C + c, tl.sum(found[k * C + c]))
    bins = tl.arange(0, BINS)
    for k in tl.static_range(len(COUNTS)):
        to = sums + ((COUNTS[k][-1] * images + image) * programs + program) * C
        tl.store(to + bins, counted[k].to(tl.float32), mask=bins < C)
    if LABELS >= 0:
        tl.store(known + image * programs + program, (tl.max(wrong) == 0).to(tl.uint8))


@triton.jit
def _copies(x, COUNT: tl.constexpr):
    """Return a tuple of COUNT copies of x."""
    copies = ()
    for _ in tl.static_range(COUNT):
        copies = copies + (x,)
    return copies


@triton.jit
def _powers(row, C: tl.constexpr):
    """Return the largest logit over log(2), e^(logit - largest) of all classes, and their sum."""
    highest = row[0]
    for c in tl.static_range(1, C):
        highest = tl.maximum(highest, row[c])
    highest *= LOG2E
    powers, whole = (), tl.zeros_like(highest)
    for c in tl.static_range(C):
        powers = powers + (tl.exp2(row[c] * LOG2E - highest),)
        whole += powers[c]
    return highest, powers, whole


@triton.jit
def _everywhere(found, powers, scale, of, pieces, EVERYWHERE: tl.constexpr, C: tl.constexpr):
    """Return `found` of the totals everywhere, with a tile's values added."""
    more = ()
    for k in tl.static_range(len(EVERYWHERE)):
        counts = (of[EVERYWHERE[k][0]] >= 0).to(tl.float32)
        for c in tl.static_range(C):
            y = value(powers[c] * scale, pieces[k])
            if EVERYWHERE[k][1] >= 0:
                y = tl.where(of[EVERYWHERE[k][1]] == c, 1.0, y)
            more = more + (found[k * C + c] + y * counts,)
    return more


@triton.jit
def backward_kernel(
    logits, ids, within, curves, weights, factor, stride_t, apart, normalizer, grad, stride_n, stride_c, stride_p,
    grad_n, grad_c, grad_p, pixels, EVERYWHERE: tl.constexpr, HITS: tl.constexpr, PIECES: tl.constexpr, C: tl.constexpr,
    BLOCK: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of a program's pixels, p (d - sum_c p d), with softmax recomputed.

    Grid (programs of an image, N).
    """
    image = tl.program_id(1).to(tl.int64)
    stride_c, stride_p = tl.cast(stride_c, tl.int64), tl.cast(stride_p, tl.int64)
    grad_c, grad_p = tl.cast(grad_c, tl.int64), tl.cast(grad_p, tl.int64)
    TOTALS: tl.constexpr = EVERYWHERE + HITS
    weights, factor = weights_of(weights, stride_t, apart, image, TOTALS), factor_of(factor)
    pieces, weight = curves_of(curves, PIECES), ()
    for k in tl.static_range(len(EVERYWHERE)):
        for c in tl.static_range(C):
            weight = weight + (tl.load(weights[k] + c).to(tl.float32) * factor,)
    for tile in range(TILES):
        i = (tl.program_id(0) * TILES + tile) * BLOCK + tl.arange(0, BLOCK)
        here, inside, at = logits + image * stride_n + i * stride_p, i < pixels, image * pixels + i
        whole = tl.load(normalizer + at, mask=inside, other=0.0)
        row, of = _row(here, stride_c, inside, C), classes_at(ids, within, at, inside, C)
        own, pulled = own_pulls(here, stride_c, of, whole, pieces, weights, factor, HITS, len(EVERYWHERE))
        probs, pulls = (), ()
        for c in tl.static_range(C):
            p, d = tl.exp2(row[c] * LOG2E - whole), tl.zeros((BLOCK,), tl.float32)
            for k in tl.static_range(len(EVERYWHERE)):
                counts = of[EVERYWHERE[k][0]] >= 0
                if EVERYWHERE[k][1] >= 0:
                    counts = counts & (of[EVERYWHERE[k][1]] != c)
                d += slope(p, pieces[k]) * tl.where(counts, weight[k * C + c], 0.0)
            probs, pulls = probs + (p,), pulls + (p * d,)
            pulled += pulls[c]
        to = grad + image * grad_n + i * grad_p
        for c in tl.static_range(C):
            pull = pulls[c] - probs[c] * pulled
            for k in tl.static_range(len(HITS)):
                pull += tl.where(of[HITS[k][0]] == c, own[k], 0.0)
            tl.store(to + c * grad_c, pull.to(grad.dtype.element_ty), mask=inside)


@triton.jit
def _row(here, stride_c, inside, C: tl.constexpr):
    """Load the logits of all classes."""
    row = ()
    for c in tl.static_range(C):
        row = row + (load(here + c * stride_c, inside),)
    return row
