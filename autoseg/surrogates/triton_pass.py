"""The fused pass on a GPU, as one Triton kernel forward and one backward.

`triton_rows` has those for few classes, `triton_loops` those for any number. From memory, forward reads the logits
once, backward reads them once more and writes their gradient. Both read the labels as they are; forward counts and
checks them on the way. Kept between the two are the logits and their logsumexp. `triton_trial` says whether it all
works on the GPU at hand.

The kernels have run in Triton's interpreter and have been compiled for NVIDIA's sm_80 and sm_90. They have not been
run on a GPU yet, and no speed is claimed for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from autoseg.surrogates.once import once
from autoseg.surrogates.passes import Pass, Pixels

IDS = {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}  # what labels may be to be read as they are
HELD = 96  # numbers a thread that `triton_rows` keeps of a pixel and its totals, at most: it then spills no registers
TILES = (32, 8)  # of a program of `triton_rows`: pixels of a tile, one a thread, and tiles
LOGITS = 4096  # of a program of `triton_loops`, pixels times C, at most: then those of a multiprocessor share its cache
PIXELS = (32, 128)  # of such a program, least and most: one to four a thread
OPTIONS = {"num_warps": 1, "enable_fp_fusion": True}  # one warp: sums over a tile are shuffles, without barriers


@dataclass(frozen=True)
class Structure:
    """What the kernels are compiled for, besides C and types; see `triton_loops`.

    Attributes:
        everywhere: (group, group that counts as 1 or -1, place) of each total everywhere.
        hits: (group, place) of each own total.
        counts: (group, place) of each count.
        labels: the group whose ids are looked at, -1 for none.
        pieces: K of each curve.
        groups: of each group of pixels whether it has ids, and whether it has a mask.
    """

    everywhere: tuple[tuple[int, int, int], ...]
    hits: tuple[tuple[int, int], ...]
    counts: tuple[tuple[int, int], ...]
    labels: int
    pieces: tuple[int, ...]
    groups: tuple[tuple[bool, bool], ...]

    def __len__(self) -> int:
        return len(self.everywhere) + len(self.hits) + len(self.counts)


@dataclass(frozen=True, eq=False)
class Plan:
    """A pass as the kernels read it.

    Attributes:
        structure: its totals and groups.
        ids: (N, P) integer labels of each group, or None.
        within: (N, P) uint8 mask of each group, or None.
        curves: (K, 6) float64 of each total everywhere, then of each own one.
        ignore: the id that is neither a class nor wrong.
    """

    structure: Structure
    ids: tuple[Tensor | None, ...]
    within: tuple[Tensor | None, ...]
    curves: tuple[Tensor, ...]
    ignore: int


def totals(logits: Tensor, plan: Plan, apart: bool = False) -> tuple[Tensor, ...]:
    """All totals of a pass.

    Args:
        logits: (N, C, H, W) bf16, fp16 or fp32 on CUDA, contiguous or channels-last (others are copied).
        plan: of `planned`.
        apart: images are kept apart.

    Returns:
        Each (C,) float64, or (N, C) apart: the same bits for the same batch; differentiable once in the logits, but for
        counts. A wrong label fails an assertion on the device, which is not waited for.
    """
    found: tuple[Tensor, ...] = _Totals.apply(logits, plan, apart)
    return found


class _Totals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, plan: Plan, apart: bool) -> tuple[Tensor, ...]:
        result, normalizer = forward(logits.flatten(2), plan, apart)
        found = result.unbind()
        ctx.plan = plan
        ctx.save_for_backward(logits, normalizer)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(found[at] for _, at in plan.structure.counts))
        return found

    @staticmethod
    @once
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None, None]:
        logits, normalizer = ctx.saved_tensors
        known = next((grad for grad in grads if grad is not None), None)
        if known is None:
            return None, None, None
        s = ctx.plan.structure
        pulled = [grads[total[-1]] for total in (*s.everywhere, *s.hits)]  # those of counts are never made
        pulled = [torch.zeros_like(known) if grad is None else grad for grad in pulled]
        return backward(logits.flatten(2), normalizer, ctx.plan, pulled).view(logits.shape), None, None


# ---------------------------------------------------------------------------------------- what the kernels are told


def planned(work: Pass, labels: Tensor | None = None, ignore: int = 255) -> Plan:
    """What the kernels need to know of a pass.

    Args:
        work: what to compute.
        labels: of the ids that its pixels have, those to look at on the way: one that is neither a class nor `ignore`
            is wrong. None: none is looked at.
        ignore: see there.
    """
    groups = _groups(work)
    place = {id(pixels): g for g, pixels in enumerate(groups)}
    own = [(each.pixels, *total) for each in work.own for total in each.curves]
    curves = [each.curve for each in work.everywhere] + [curve for _, curve, _ in own if curve is not None]
    structure = Structure(
        everywhere=tuple((place[id(e.pixels)], place[id(e.own)] if e.own else -1, e.at) for e in work.everywhere),
        hits=tuple((place[id(pixels)], at) for pixels, curve, at in own if curve is not None),
        counts=tuple((place[id(pixels)], at) for pixels, curve, at in own if curve is None),
        labels=next((g for g, each in enumerate(groups) if labels is not None and each.ids is labels), -1),
        pieces=tuple(map(len, curves)),
        groups=tuple((each.ids is not None, each.within is not None) for each in groups),
    )
    ids = tuple(None if each.ids is None else _flat(each.ids) for each in groups)
    within = tuple(None if each.within is None else _flat(each.within.view(torch.uint8)) for each in groups)
    return Plan(structure, ids, within, tuple(curves), ignore)


def _groups(work: Pass) -> Sequence[Pixels]:
    """Each once."""
    of = [pixels for e in work.everywhere for pixels in (e.pixels, e.own) if pixels] + [own.pixels for own in work.own]
    return list({id(pixels): pixels for pixels in of}.values())


def _flat(x: Tensor) -> Tensor:
    """(N, P) without gaps."""
    return (x if x.dtype in IDS else x.long()).contiguous().flatten(1)


# ---------------------------------------------------------------------------------------- launches


def forward(x: Tensor, plan: Plan, apart: bool = False) -> tuple[Tensor, Tensor]:
    """Totals (T, C), or (T, N, C) apart, float64 and logsumexp in base 2 (N, P) float32 of logits (N, C, P)."""
    kernels, sizes = _kernels(plan, x)
    n, c, pixels = x.shape
    programs, s = _programs(x, sizes), plan.structure
    fresh = x.new_empty if "TILES" in sizes else x.new_zeros  # `triton_loops` leaves out classes that it does not meet
    sums = fresh((len(s), n, programs, c), dtype=torch.float32)
    normalizer = x.new_empty((n, pixels), dtype=torch.float32)
    known = x.new_empty((n, programs), dtype=torch.uint8)
    with torch.cuda.device_of(x):
        kernels.forward_kernel[programs, n](
            x, plan.ids, plan.within, plan.curves, sums, normalizer, known, *x.stride(), pixels, plan.ignore,
            EVERYWHERE=s.everywhere, HITS=s.hits, COUNTS=s.counts, LABELS=s.labels, PIECES=s.pieces, C=c,
            BINS=max(32, 1 << (c - 1).bit_length()), **sizes, **OPTIONS,
        )  # fmt: skip
    if s.labels >= 0:
        torch._assert_async(known.all())
    return sums.sum(2 if apart else (1, 2), dtype=torch.float64), normalizer


def backward(x: Tensor, normalizer: Tensor, plan: Plan, grads: Sequence[Tensor]) -> Tensor:
    """Gradient (N, C, P) in the logits, in their dtype and layout.

    `grads` are those of the totals everywhere, then of the own ones, float64 (C,) or (N, C). They are read where they
    are: to put them together would start more operations.
    """
    kernels, sizes = _kernels(plan, x)
    n, c, pixels = x.shape
    out, s = torch.empty_like(x), plan.structure
    weights, apart = tuple(grad.contiguous() for grad in grads), c if grads[0].dim() > 1 else 0
    with torch.cuda.device_of(x):
        kernels.backward_kernel[_programs(x, sizes), n](
            x, plan.ids, plan.within, plan.curves, weights, apart, normalizer, out, *x.stride(), *out.stride(), pixels,
            EVERYWHERE=s.everywhere, HITS=s.hits, PIECES=s.pieces, C=c, **sizes, **OPTIONS,
        )  # fmt: skip
    return out


def _kernels(plan: Plan, x: Tensor) -> tuple[ModuleType, dict[str, int]]:
    """The module whose kernels take it, and how large their programs are."""
    c = x.shape[1]
    if c * (1 + len(plan.structure.pieces)) <= HELD:
        from autoseg.surrogates import triton_rows

        return triton_rows, dict(zip(("BLOCK", "TILES"), TILES, strict=True))
    from autoseg.surrogates import triton_loops

    return triton_loops, {"BLOCK": block_of(c), "FAR": _extent(x) >= 2**31}


def _extent(x: Tensor) -> int:
    """How far from an image's first number its last one can be, in the logits or in their gradient."""
    (_, c, pixels), (_, stride_c, stride_p) = x.shape, x.stride()
    return max(c * pixels, (c - 1) * stride_c + (pixels - 1) * stride_p)


def _programs(x: Tensor, sizes: dict[str, int]) -> int:
    """Of an image."""
    return -(-x.shape[2] // (sizes["BLOCK"] * sizes.get("TILES", 1)))


def block_of(num_classes: int) -> int:
    """Pixels of a program of `triton_loops`, a power of two."""
    least, most = PIXELS
    return min(most, max(least, 1 << (LOGITS // num_classes).bit_length() - 1))
