"""From totals to the loss and its slopes in one small kernel; importing this needs triton.

In torch this takes some twenty operations on a number for each class, forward and backward, each of which costs the
host as much as one on a million. The arguments:

    totals        (T, C) fp64
    rows          (3 or 2, T) fp64: factors of the totals in numerator, denominator and, unless EQUAL, weights
    curve         (PIECES, 6) fp64 of g; None, and PIECES 0: the ratio is the score
    loss          one fp32: written
    slopes        (T, C) fp64: written, dloss/dtotals with the weights taken as constant
    eps           added to denominators
    LABEL         index of the total with the pixels of each class in the labels
    PRESENT       only classes that the labels have count
    POOLED        totals are added up over the classes first
    BINS          a power of two, at least C
"""

from __future__ import annotations

import triton
import triton.language as tl

from autoseg.surrogates.fast.gpu.kernels.parts import curve_of, slope, value


@triton.jit
def score_kernel(
    totals, rows, curve, loss, slopes, eps, C: tl.constexpr, TOTALS: tl.constexpr, LABEL: tl.constexpr,
    EQUAL: tl.constexpr, PRESENT: tl.constexpr, POOLED: tl.constexpr, PIECES: tl.constexpr, BINS: tl.constexpr,
):  # fmt: skip
    """Compute 1 - weighted mean of g(ratio) over the classes, 0 if nothing counts; one program."""
    c = tl.arange(0, BINS)
    inside = c < C
    nothing = tl.zeros((BINS,), tl.float64)
    over, under, weight = nothing, nothing, inside.to(tl.float64)
    if not EQUAL:
        weight = nothing
    for k in tl.static_range(TOTALS):
        total = tl.load(totals + k * C + c, mask=inside, other=0.0)
        over += tl.load(rows + k) * total
        under += tl.load(rows + TOTALS + k) * total
        if not EQUAL:
            weight += tl.load(rows + 2 * TOTALS + k) * total
    label = tl.load(totals + LABEL * C + c, mask=inside, other=0.0)
    if POOLED:
        over, under = nothing + tl.sum(over), nothing + tl.sum(under)
        weight = tl.where(c == 0, tl.sum(weight), 0.0)
    elif PRESENT:
        weight = tl.where(label > 0, weight, 0.0)
    under = tl.where(inside, under + eps, 1.0)
    score = over / under
    worth, steep = score, tl.where(inside, 1.0, 0.0).to(tl.float64)
    if PIECES > 0:
        within = tl.minimum(tl.maximum(score, 0.0), 1.0)
        pieces, x = curve_of(curve, PIECES), within.to(tl.float32)
        worth = tl.where(score == score, value(x, pieces).to(tl.float64) + (score - within), score)
        steep = tl.where((score >= 0) & (score <= 1), slope(x, pieces).to(tl.float64), 1.0)
    whole = tl.sum(weight)
    known = tl.minimum(whole, tl.sum(label)) > 0
    share = weight / tl.where(known, whole, 1.0)
    tl.store(loss, tl.where(known, 1 - tl.sum(worth * share), 0.0).to(tl.float32))
    pull = tl.where(known, -share * steep / under, 0.0)
    if POOLED:
        pull = nothing + tl.sum(pull)
    for k in tl.static_range(TOTALS):
        tl.store(slopes + k * C + c, pull * (tl.load(rows + k) - score * tl.load(rows + TOTALS + k)), mask=inside)
