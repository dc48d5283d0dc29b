"""Whether the Triton kernels run on the GPU at hand and compute what they should, tried on a first small batch.

Triton comes with torch on Linux; where it is missing, cannot compile, or computes anything but what the formula says,
a warning says so once and the loss takes its reference path.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.metrics.maps import NO_CLASS
from autoseg.surrogates import triton_pass
from autoseg.surrogates.curves import evaluate, prepare
from autoseg.surrogates.passes import Everywhere, Own, Pass, Pixels
from autoseg.surrogates.triton_pass import Plan, Structure

TRIAL = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}  # of the steepest: rounding of the gradient


def takes(logits: Tensor) -> bool:
    """Whether the kernels are made for such logits, and triton is there."""
    if logits.device.type != "cuda" or logits.dtype not in TRIAL:
        return False
    if not _installed():
        _warn("triton is not installed")
    return _installed()


def usable(logits: Tensor, structure: Structure) -> bool:
    """Whether the kernels run and compute right on this device; tried once for each structure, dtype and C."""
    return _start(logits.device, logits.dtype, logits.shape[1], logits.stride(1) == 1, structure)


@cache
def _installed() -> bool:
    return find_spec("triton") is not None


@cache
def _start(device: torch.device, dtype: torch.dtype, num_classes: int, last: bool, structure: Structure) -> bool:
    """Whether both kernels give what the definition gives on 16 x 16 pixels; compiling them is what takes time."""
    form = torch.channels_last if last else torch.contiguous_format
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((1, num_classes, 16, 16), generator=generator).to(dtype)
    work = _trial(structure, num_classes, generator)
    weights = torch.rand((len(work), 1, num_classes), generator=generator, dtype=torch.float64)
    try:
        given = logits.to(device, memory_format=form, copy=True).requires_grad_()
        with torch.enable_grad():
            result = torch.stack(triton_pass.totals(given, _planned(work, structure, device), apart=True))
            (grad,) = torch.autograd.grad((result * weights.to(device)).sum() + 0 * given.sum(), given)
    except Exception as error:  # a compiler, driver or GPU that will not do it: the reference path will
        _warn(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
        return False
    leaf = logits.double().requires_grad_()
    with torch.enable_grad():
        expected = defined(leaf, work)
        (steep,) = torch.autograd.grad((expected * weights).sum() + 0 * leaf.sum(), leaf)  # counts have no gradient
    bound = TRIAL[dtype] * (float(steep.abs().max()) + 1e-3)  # of one class: the gradient is 0
    right = torch.allclose(result.detach().cpu(), expected.detach(), 1e-4, 1e-4)
    if right and float((grad.cpu() - steep).abs().max()) <= bound:
        return True
    _warn("they compute wrong numbers on this GPU")
    return False


def defined(logits: Tensor, work: Pass) -> Tensor:
    """All totals of a pass by the definition in `passes`, images apart; on the CPU, of few pixels.

    Args:
        logits: (N, C, H, W) float32 or float64; gradients flow.
        work: what to compute; its pixels are (N, H, W), as many as the logits have.

    Returns:
        (T, N, C), T = len(work), in float64 if the logits are.
    """
    p, found = logits.softmax(1), {}
    for each in work.everywhere:
        value = evaluate(p, each.curve)
        value = value if each.own is None else torch.where(_one_hot(each.own) > 0, 1.0, value)
        found[each.at] = value if each.pixels.mask is None else value * each.pixels.mask.unsqueeze(1)
    for own in work.own:
        for curve, at in own.curves:
            found[at] = _one_hot(own.pixels) * (1.0 if curve is None else evaluate(p, curve))
    return torch.stack([found[at].sum((2, 3)) for at in range(len(work))])


def _one_hot(pixels: Pixels) -> Tensor:
    """(N, C, H, W) float64."""
    return F.one_hot(pixels.classes + 1, pixels.num_classes + 1)[..., 1:].movedim(-1, 1).double()


def _trial(structure: Structure, num_classes: int, generator: torch.Generator) -> Pass:
    """A pass of this structure on one image of 16 x 16 pixels: random masks and class maps, bent curves."""
    groups = [
        Pixels(
            torch.randint(-1, num_classes, (1, 16, 16), generator=generator) if has_ids else None,
            torch.rand((1, 16, 16), generator=generator) < 0.7 if has_mask else None,
            num_classes,
        )
        for has_ids, has_mask in structure.groups
    ]
    knots = [torch.linspace(0, 1, 2 * pieces + 1, dtype=torch.float64) for pieces in structure.pieces]
    curves = iter([prepare(torch.stack([x, x**2], 1)) for x in knots])
    everywhere = [
        Everywhere(next(curves), groups[g], at, groups[own] if own >= 0 else None)
        for g, own, at in structure.everywhere
    ]
    hits = [Own(groups[g], [(next(curves), at)]) for g, at in structure.hits]
    return Pass(everywhere, hits + [Own(groups[g], [(None, at)]) for g, at in structure.counts])


def _planned(work: Pass, structure: Structure, device: torch.device) -> Plan:
    """The plan of a trial's pass, on the device."""
    plan = triton_pass.planned(work)
    ids, within = (tuple(None if x is None else x.to(device) for x in each) for each in (plan.ids, plan.within))
    return Plan(structure, ids, within, tuple(curve.to(device) for curve in plan.curves), ignore=NO_CLASS)


@cache
def _warn(reason: str) -> None:
    """Once for each reason."""
    warnings.warn(
        f"the loss's Triton kernels cannot run here ({reason}): it takes its reference path, several times slower",
        stacklevel=2,
    )
