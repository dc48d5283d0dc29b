"""Checks whether the Triton kernels run on this GPU and compute correct results, on a first small batch.

Triton comes with torch on Linux; if it is missing, cannot compile, or does not compute what the formula says,
a warning says so once and the loss uses its reference path.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, wraps
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.errors import out_of_memory
from autoseg.metrics.logic import Region
from autoseg.metrics.maps import NO_CLASS, MapLogic
from autoseg.surrogates.curves import evaluate, prepare
from autoseg.surrogates.fast.gpu import bands, launches, plans
from autoseg.surrogates.fast.gpu.launches import Score
from autoseg.surrogates.fast.gpu.plans import Plan, Structure
from autoseg.surrogates.fast.passes import Bound, Everywhere, Own, Pass, Pixels
from autoseg.surrogates.fast.ratios import Ratio

TRIAL = {
    torch.float32: 1e-4,
    torch.bfloat16: 2e-2,
    torch.float16: 4e-3,
}  # rounding, relative to the largest gradient


MOST_IMAGES = 65_535  # in a batch: a grid's second side has no more


def takes(logits: Tensor) -> bool:
    """Return whether the kernels support such logits, and triton is installed."""
    if logits.device.type != "cuda" or logits.dtype not in TRIAL or logits.shape[0] > MOST_IMAGES:
        return False
    if not _installed():
        _warn("triton is not installed")
    return _installed()


def usable(logits: Tensor, structure: Structure, score: Score | None = None) -> bool:
    """Return whether the kernels run and are correct on this device; tried once per structure, score, dtype and C."""
    c = logits.shape[1]
    right = _start(logits.device, logits.dtype, c, logits.stride(1) == 1, structure, score is not None)
    if score is None or not right:
        return right
    pieces = 0 if score.curve is None else len(score.curve)
    return _scores(logits.device, c, score.ratio, score.present, score.eps, pieces)


@cache
def _installed() -> bool:
    return find_spec("triton") is not None


def _tried(trial: Callable[..., bool]) -> Callable[..., bool]:
    """Decorate a trial: return whether kernels run and are correct.

    Gradients are enabled even if the first batch disables them.
    """

    @wraps(trial)
    def told(*args: Any) -> bool:
        try:
            # The trials make their batches on the CPU, from generators there, whatever the default device is.
            with torch.device("cpu"), torch.inference_mode(False), torch.enable_grad():
                right = trial(*args)
        except Exception as error:
            if out_of_memory(error):  # not a fault of the kernels
                raise
            # a compiler, driver or GPU that cannot do it: the reference path can
            _warn(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
            return False
        if not right:
            _warn("they compute wrong numbers on this GPU")
        return right

    return told


@cache
@_tried
def _start(
    device: torch.device, dtype: torch.dtype, num_classes: int, last: bool, structure: Structure, scored: bool
) -> bool:
    """Return whether both kernels equal the definition on 16 x 16 pixels; most of the time is for compiling them.

    With `scored` as in `launches.loss`, whose gradient has a factor, else with totals per image.
    """
    form = torch.channels_last if last else torch.contiguous_format
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((1, num_classes, 16, 16), generator=generator).to(dtype)
    work = _trial(structure, num_classes, generator)
    weights = torch.rand((len(work), num_classes), generator=generator, dtype=torch.float64)
    weights = weights if scored else weights.unsqueeze(1)
    given, plan = logits.to(device, memory_format=form, copy=True).flatten(2), _planned(work, structure, device)
    result, normalizer = launches.forward(given, plan, apart=not scored)
    grad = torch.zeros_like(given)
    if structure.everywhere or structure.hits:  # counts have no gradient
        factor = torch.ones((), device=device) if scored else None
        grad = launches.backward(given, normalizer, plan, weights.to(device), factor)
    leaf = logits.double().requires_grad_()
    expected = defined(leaf, work)
    expected = expected.sum(1) if scored else expected
    (steep,) = torch.autograd.grad((expected * weights).sum() + 0 * leaf.sum(), leaf)
    bound = TRIAL[dtype] * (float(steep.abs().max()) + 1e-3)  # + 1e-3 for one class, where the gradient is 0
    right = torch.allclose(result.cpu(), expected.detach(), 1e-4, 1e-4)
    return right and float((grad.view(logits.shape).cpu() - steep).abs().max()) <= bound


@cache
@_tried
def _scores(device: torch.device, num_classes: int, ratio: Ratio, present: bool, eps: float, pieces: int) -> bool:
    """Return whether the kernel that computes the loss from totals equals the definition."""
    generator = torch.Generator().manual_seed(0)
    totals = torch.rand((len(ratio.rows[0]), num_classes), generator=generator, dtype=torch.float64)
    if present:  # a class that the labels lack; if it counted, hits of no pixel would be divided by nothing
        totals[ratio.label, num_classes // 2] = 0
    curve = _bent(pieces) if pieces else None
    score = Score(ratio, present, eps, None if curve is None else curve.to(device))
    value, slopes = (found.cpu() for found in launches.scored(totals.to(device), score))
    leaf = totals.requires_grad_()
    expected = defined_score(leaf, Score(ratio, present, eps, curve))
    (steep,) = torch.autograd.grad(expected, leaf)
    right = abs(float(value) - float(expected.detach())) <= 1e-5
    return right and torch.allclose(slopes, steep, 1e-3, 1e-5 * (1 + float(steep.abs().max())))


@cache
@_tried
def draws(device: torch.device, region: Region) -> bool:
    """Return whether the kernels for a region of the labels equal `MapLogic`, on a first small batch."""
    labels = torch.randint(-1, 3, (2, 9, 8), generator=torch.Generator().manual_seed(0))
    labels = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)
    found = bands.band(labels.to(device), 3, region).cpu()
    return torch.equal(found, MapLogic(labels, 3, False)._mask(region))


def defined_score(totals: Tensor, score: Score) -> Tensor:
    """Return the loss of `launches.scored` by the definition: 0-d float64; gradients flow to totals (T, C)."""
    parts = [totals.new_tensor(row) @ totals for row in score.ratio.rows]
    label = totals[score.ratio.label].detach()
    over, under, weights = (*parts[:2], parts[2].detach() if len(parts) > 2 else torch.ones_like(label))
    if score.ratio.pooled:
        over, under, weights = (part.sum(0, keepdim=True) for part in (over, under, weights))
    elif score.present:
        weights = weights * (label > 0)
    scores = over / (under + score.eps)
    if score.curve is not None:
        inside = scores.clamp(0, 1)
        scores = evaluate(inside, score.curve) + (scores - inside)
    known = bool(weights.sum() > 0) and bool(label.sum() > 0)
    return 1 - (scores * weights).sum() / weights.sum() if known else 0 * totals.sum()


def defined(logits: Tensor, work: Bound) -> Tensor:
    """Return all totals of a pass by the definition in `passes`, per image; on the CPU, for few pixels.

    Args:
        logits: (N, C, H, W) float32 or float64; gradients flow.
        work: the totals to compute; its pixels are (N, H, W), as many as the logits have.

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
    """Return the classes as (N, C, H, W) float64."""
    return F.one_hot(pixels.classes + 1, pixels.num_classes + 1)[..., 1:].movedim(-1, 1).double()


def _trial(structure: Structure, num_classes: int, generator: torch.Generator) -> Bound:
    """Return a pass of this structure on one image of 16 x 16 pixels: random masks and class maps, bent curves."""
    groups = [
        Pixels(
            torch.randint(-1, num_classes, (1, 16, 16), generator=generator) if has_ids else None,
            torch.rand((1, 16, 16), generator=generator) < 0.7 if has_mask else None,
            num_classes,
        )
        for has_ids, has_mask in structure.groups
    ]
    curves = iter(map(_bent, structure.pieces))
    everywhere = [
        Everywhere(next(curves), groups[g], at, groups[own] if own >= 0 else None)
        for g, own, at in structure.everywhere
    ]
    hits = [Own(groups[g], [(next(curves), at)]) for g, at in structure.hits]
    return Pass(everywhere, hits + [Own(groups[g], [(None, at)]) for g, at in structure.counts])


def _bent(pieces: int) -> Tensor:
    """Return a curve that is not the identity."""
    x = torch.linspace(0, 1, 2 * pieces + 1, dtype=torch.float64)
    return prepare(torch.stack([x, x**2], 1))


def _planned(work: Bound, structure: Structure, device: torch.device) -> Plan:
    """Return the plan of a trial's pass, on the device."""
    layout = plans.laid_out(work, len)
    groups = [Pixels(_moved(each.ids, device), _moved(each.within, device), each.num_classes) for each in layout.groups]
    return plans.planned(structure, groups, tuple(curve.to(device) for curve in layout.curves), ignore=NO_CLASS)


def _moved(x: Tensor | None, device: torch.device) -> Tensor | None:
    return None if x is None else x.to(device)


@cache
def _warn(reason: str) -> None:
    """Warn once for each reason."""
    warnings.warn(
        f"the loss's Triton kernels cannot run here ({reason}): it takes its reference path, several times slower",
        stacklevel=2,
    )
