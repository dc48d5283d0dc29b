"""The fused pass on a GPU, as one Triton kernel forward and one backward; see `triton_kernels` for what they do.

From memory, forward reads the logits once, backward reads them once more and writes their gradient. Kept between the
two are the logits, their logsumexp and the class maps in a byte or two a pixel. Triton comes with torch on Linux;
where it is missing, or cannot compile, a warning says so once and the loss takes its reference path.

The kernels have run in Triton's interpreter and have been compiled for NVIDIA's sm_80 and sm_90. They have not been
run on a GPU yet, and no speed is claimed for them.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from autoseg.surrogates.fused import Pass

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LOGITS = 4096  # of a block, its pixels times C, at most: then the blocks of a multiprocessor share its cache
PIXELS = (32, 128)  # of a block, least and most: one to four a thread; none of these spills registers (see the tests)
OPTIONS = {"num_warps": 1, "enable_fp_fusion": True}  # one warp: sums over a block are shuffles, without barriers


@dataclass(frozen=True)
class Structure:
    """What the kernels are compiled for, besides C and types; totals everywhere come first, then own ones.

    Attributes:
        everywhere: how many totals everywhere there are.
        masks: how many masks, which come first among the maps.
        maps: how many masks and class maps, R.
        map_of: which map each total reads.
        at: each total's place among the results.
        pieces: of a curve, K.
    """

    everywhere: int
    masks: int
    maps: int
    map_of: tuple[int, ...]
    at: tuple[int, ...]
    pieces: int

    @property
    def constants(self) -> dict[str, Any]:
        """As the kernels name them."""
        counts = {"EVERYWHERE": self.everywhere, "MASKS": self.masks, "MAPS": self.maps, "PIECES": self.pieces}
        return {**counts, "MAP": self.map_of, "AT": self.at}


@dataclass(frozen=True, eq=False)
class Plan:
    """A pass as the kernels read it.

    Attributes:
        structure: its T totals, in the kernels' order, and R maps.
        maps: (R, N, P) int8 or int16: masks (1 counts, 0 does not), then class maps (negative: no class).
        curves: (T, K, 6) float32, see `curves.prepare`; shorter curves repeat their last piece.
    """

    structure: Structure
    maps: Tensor
    curves: Tensor


def takes(logits: Tensor) -> bool:
    """Whether the kernels are made for such logits, and triton is there."""
    if logits.device.type != "cuda" or logits.dtype not in DTYPES:
        return False
    if not _installed():
        _warn("triton is not installed")
    return _installed()


def usable(logits: Tensor, work: Pass) -> bool:
    """Whether the kernels compile and start on this device; tried once for each structure, dtype and C."""
    return _start(logits.device, logits.dtype, logits.shape[1], logits.stride(1) == 1, structure_of(work))


def totals(logits: Tensor, work: Pass) -> Tensor:
    """As `fused.totals`.

    Args:
        logits: (N, C, H, W) bf16, fp16 or fp32 on CUDA, contiguous or channels-last (others are copied).
        work: what to compute.

    Returns:
        (len(work), N, C) float64, the same bits for the same batch; differentiable once in the logits.
    """
    return _Totals.apply(logits, planned(logits, work))


class _Totals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, plan: Plan) -> Tensor:
        result, normalizer = forward(logits.flatten(2), plan)
        ctx.plan = plan
        ctx.save_for_backward(logits, normalizer)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, normalizer = ctx.saved_tensors
        return backward(logits.flatten(2), normalizer, ctx.plan, grad).view(logits.shape), None


# ---------------------------------------------------------------------------------------- what the kernels are told


def structure_of(work: Pass) -> Structure:
    """The order of a pass's totals and which maps they read."""
    places = {key: place for place, key in enumerate(_masks(work))}
    own = [(place, at) for place, group in enumerate(work.own, len(places)) for _, at in group.curves]
    return Structure(
        everywhere=len(work.everywhere),
        masks=len(places),
        maps=len(places) + len(work.own),
        map_of=(*(places[id(each.mask)] for each in work.everywhere), *(place for place, _ in own)),
        at=(*(each.at for each in work.everywhere), *(at for _, at in own)),
        pieces=max(map(len, _curves(work))),
    )


def planned(logits: Tensor, work: Pass) -> Plan:
    """What the kernels need to know of a pass."""
    n, c, pixels = logits.flatten(2).shape
    structure = structure_of(work)
    sources = [*_masks(work).values(), *(group.classes for group in work.own)]
    maps = logits.new_empty((len(sources), n, pixels), dtype=_map_dtype(c))
    for to, source in zip(maps, sources, strict=True):
        to.fill_(1) if source is None else to.copy_(source.flatten(1))
    whole = [torch.cat([each, each[-1:].expand(structure.pieces - len(each), 6)]) for each in _curves(work)]
    return Plan(structure, maps, torch.stack([each.to(logits.device) for each in whole]).float())


def _masks(work: Pass) -> dict[int, Tensor | None]:
    """Each once; None counts all pixels."""
    return {id(each.mask): each.mask for each in work.everywhere}


def _curves(work: Pass) -> list[Tensor]:
    return [each.curve for each in work.everywhere] + [curve for group in work.own for curve, _ in group.curves]


def _map_dtype(num_classes: int) -> torch.dtype:
    return torch.int8 if num_classes <= 128 else torch.int16


# ---------------------------------------------------------------------------------------- launches


def forward(x: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    """Totals (T, N, C) float64 and logsumexp in base 2 (N, P) float32 of logits (N, C, P)."""
    from autoseg.surrogates.triton_kernels import forward_kernel

    n, c, pixels = x.shape
    block = block_of(c)
    sums = x.new_zeros((len(plan.structure.at), n, -(-pixels // block), c), dtype=torch.float32)
    normalizer = x.new_empty((n, pixels), dtype=torch.float32)
    with torch.cuda.device_of(x):
        forward_kernel[sums.shape[2], n](
            x, plan.maps, plan.curves, sums, normalizer, *x.stride(), pixels,
            **plan.structure.constants, C=c, BLOCK=block, **OPTIONS,
        )  # fmt: skip
    return sums.sum(2, dtype=torch.float64), normalizer


def backward(x: Tensor, normalizer: Tensor, plan: Plan, grad: Tensor) -> Tensor:
    """Gradient (N, C, P) in the logits, in their dtype and layout, of totals whose gradient is (T, N, C)."""
    from autoseg.surrogates.triton_kernels import backward_kernel

    n, c, pixels = x.shape
    block = block_of(c)
    out, weights = torch.empty_like(x), grad.float().contiguous()
    with torch.cuda.device_of(x):
        backward_kernel[-(-pixels // block), n](
            x, plan.maps, plan.curves, weights, normalizer, out, *x.stride(), *out.stride(), pixels,
            **plan.structure.constants, C=c, BLOCK=block, **OPTIONS,
        )  # fmt: skip
    return out


def block_of(num_classes: int) -> int:
    """Pixels of a block, a power of two."""
    least, most = PIXELS
    return min(most, max(least, 1 << (LOGITS // num_classes).bit_length() - 1))


# ---------------------------------------------------------------------------------------- whether they run here


@cache
def _installed() -> bool:
    return find_spec("triton") is not None


@cache
def _start(device: torch.device, dtype: torch.dtype, num_classes: int, last: bool, structure: Structure) -> bool:
    """Launches both kernels on 16 x 16 pixels; that they compile is what takes time, once."""
    form = torch.channels_last if last else torch.contiguous_format
    x = torch.zeros((1, num_classes, 16, 16), dtype=dtype, device=device).to(memory_format=form).flatten(2)
    maps = torch.zeros((structure.maps, 1, 256), dtype=_map_dtype(num_classes), device=device)
    line = torch.tensor([0.0, 1.0, 0.5, 0.0, 0.5, 1.0], device=device)
    plan = Plan(structure, maps, line.repeat(len(structure.at), structure.pieces, 1))
    try:
        result, normalizer = forward(x, plan)
        backward(x, normalizer, plan, result)
    except Exception as error:  # a compiler, driver or GPU that will not do it: the reference path will
        _warn(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
        return False
    return True


@cache
def _warn(reason: str) -> None:
    """Once for each reason."""
    warnings.warn(
        f"the loss's Triton kernels cannot run here ({reason}): it takes its reference path, several times slower",
        stacklevel=2,
    )
