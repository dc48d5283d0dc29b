"""The fused pass on a GPU, as one Triton kernel forward and one backward; see `triton_kernels` for what they do.

From memory, forward reads the logits once, backward reads them once more and writes their gradient. Kept between the
two are the logits, their logsumexp and the class maps in a byte or two a pixel. Triton comes with torch on Linux;
where it is missing, cannot compile, or computes anything but what the plain pass computes on a first small batch, a
warning says so once and the loss takes its reference path.

The kernels have run in Triton's interpreter and have been compiled for NVIDIA's sm_80 and sm_90. They have not been
run on a GPU yet, and no speed is claimed for them.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from autoseg.surrogates import fused
from autoseg.surrogates.curves import prepare
from autoseg.surrogates.fused import Everywhere, Own, Pass

TRIAL = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}  # of the steepest: rounding of the gradient
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
        count: whether each total counts pixels, see `counting`.
        pieces: of a curve, K.
    """

    everywhere: int
    masks: int
    maps: int
    map_of: tuple[int, ...]
    at: tuple[int, ...]
    count: tuple[bool, ...]
    pieces: int

    @property
    def constants(self) -> dict[str, Any]:
        """As the kernels name them."""
        counts = {"EVERYWHERE": self.everywhere, "MASKS": self.masks, "MAPS": self.maps, "PIECES": self.pieces}
        return {**counts, "MAP": self.map_of, "AT": self.at, "COUNT": self.count}


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
    if logits.device.type != "cuda" or logits.dtype not in TRIAL:
        return False
    if not _installed():
        _warn("triton is not installed")
    return _installed()


def usable(logits: Tensor, work: Pass) -> bool:
    """Whether the kernels run and compute right on this device; tried once for each structure, dtype and C."""
    return _start(logits.device, logits.dtype, logits.shape[1], logits.stride(1) == 1, structure_of(work))


@lru_cache(maxsize=8)
def counting(device: torch.device) -> Tensor:
    """The curve g(x) = 1, whose own totals count the pixels of each class; the kernels know it by its identity.

    Apart from them, counting would move as much memory as they do.
    """
    return torch.tensor([[0.0, 1.0, 0.5, 1.0, 1.0, 1.0]], dtype=torch.float64).to(device)


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
        count=tuple(curve is counting(curve.device) for curve in _curves(work)),
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
    """Whether both kernels give what `fused` gives on 16 x 16 pixels; compiling them is what takes time."""
    form = torch.channels_last if last else torch.contiguous_format
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((1, num_classes, 16, 16), generator=generator).to(dtype)
    work = _trial(structure, num_classes, generator)
    weights = torch.rand((len(work), 1, num_classes), generator=generator, dtype=torch.float64)
    there = Pass(
        [replace(e, mask=None if e.mask is None else e.mask.to(device)) for e in work.everywhere],
        [replace(own, classes=own.classes.to(device), curves=_on(device, own.curves)) for own in work.own],
    )
    try:
        result, grad = _both(totals, logits.to(device, memory_format=form), there, weights.to(device))
    except Exception as error:  # a compiler, driver or GPU that will not do it: the reference path will
        _warn(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
        return False
    expected, slope = _both(fused.totals, logits.float(), work, weights)
    bound = TRIAL[dtype] * (float(slope.abs().max()) + 1e-3)  # of one class: the gradient is 0
    if torch.allclose(result, expected, 1e-4, 1e-4) and float((grad.float() - slope).abs().max()) <= bound:
        return True
    _warn("they compute wrong numbers on this GPU")
    return False


def _on(device: torch.device, curves: list[tuple[Tensor, int]]) -> list[tuple[Tensor, int]]:
    """With the device's own curve that counts."""
    here = counting(torch.device("cpu"))
    return [(counting(device) if curve is here else curve, at) for curve, at in curves]


def _both(function: Any, logits: Tensor, work: Pass, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Totals, and the gradient of their weighted sum in the logits, both on the CPU."""
    with torch.enable_grad():
        leaf = logits.requires_grad_()
        result: Tensor = function(leaf, work)
        (grad,) = torch.autograd.grad((result * weights).sum(), leaf)
    return result.detach().cpu(), grad.cpu()


def _trial(structure: Structure, num_classes: int, generator: torch.Generator) -> Pass:
    """A pass of this structure on one image of 16 x 16 pixels: random masks and class maps, bent curves."""
    knots = torch.linspace(0, 1, 2 * structure.pieces + 1, dtype=torch.float64)
    curve = prepare(torch.stack([knots, knots**2], 1))
    masks = [torch.rand((1, 16, 16), generator=generator) < 0.7 for _ in range(structure.masks)]
    classes = [
        torch.randint(-1, num_classes, (1, 16, 16), generator=generator)
        for _ in range(structure.maps - structure.masks)
    ]
    count = counting(torch.device("cpu"))
    reads = list(zip(structure.map_of, structure.at, structure.count, strict=True))
    everywhere = [Everywhere(curve, masks[m], at) for m, at, _ in reads[: structure.everywhere]]
    own = [
        Own(ids, [(count if counts else curve, at) for m, at, counts in reads[structure.everywhere :] if m == place])
        for place, ids in enumerate(classes, structure.masks)
    ]
    return Pass(everywhere, own)


@cache
def _warn(reason: str) -> None:
    """Once for each reason."""
    warnings.warn(
        f"the loss's Triton kernels cannot run here ({reason}): it takes its reference path, several times slower",
        stacklevel=2,
    )
