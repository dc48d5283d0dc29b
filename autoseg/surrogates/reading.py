"""Reads a formula like `CurveLogic`, but asks first and computes then: the totals of a formula come from one pass.

What a formula asks for falls into three kinds:

* totals of labels alone are counted (by the kernels too, on a GPU);
* totals of pointwise functions of the prediction are left to `fused`;
* totals that erode or dilate the prediction are left to `by_channel`.

The last two have native code too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from operator import itemgetter

import torch
from torch import Tensor

from autoseg.metrics.base import Sums
from autoseg.metrics.bits import widened
from autoseg.metrics.logic import NO_CLASS, MapLogic, Plane, Region
from autoseg.surrogates import native_channels, native_pass, triton_pass
from autoseg.surrogates.asked import Asked, Formula, answered, asked_by, is_map
from autoseg.surrogates.by_channel import Work, channel_totals
from autoseg.surrogates.fused import Pass, totals
from autoseg.surrogates.logic import CurveLogic

IDENTITY = torch.tensor([[0.0, 1.0, 0.5, 0.0, 0.5, 1.0]], dtype=torch.float64)  # g(x) = x
Curves = Mapping[tuple[str, str], Tensor]
Make = Callable[[Tensor], Tensor]  # one total from all results of the pass


def fits(logits: Tensor, labels: Tensor) -> bool:
    """Whether `FusedLogic` may read this batch: hard labels, not traced, not transformed by functorch.

    On the CPU, or on CUDA by `triton_pass`.
    """
    traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    if traced or labels.is_floating_point():
        return False
    return logits.device.type == "cpu" or triton_pass.takes(logits)


@lru_cache(maxsize=8)
def _identity(device: torch.device) -> Tensor:
    """Moved there once: in every batch it would wait for the device."""
    return IDENTITY.to(device)


class FusedLogic(MapLogic):
    """Soft predictions against hard labels; gives the totals that `CurveLogic` gives.

    Args:
        logits: (N, C, H, W) float; gradients flow to it.
        labels: (N, H, W) int64; ids outside [0, C) are void.
        curves: coefficients (K, 6) per (operation, operand), see `curves.prepare`.
        per_image: totals are (N, C) instead of (C,).
        compiled: native code on the CPU (`native_pass`, `native_channels`); no difference elsewhere.
    """

    def __init__(
        self, logits: Tensor, labels: Tensor, curves: Curves, per_image: bool = False, compiled: bool = False
    ) -> None:
        num_classes = logits.shape[1]
        valid = (labels >= 0) & (labels < num_classes)
        super().__init__({"label": torch.where(valid, labels, NO_CLASS)}, valid, num_classes, per_image)
        self._logits, self._curves = logits, curves
        self._by_triton = logits.device.type == "cuda"
        self._masks: dict[tuple[Region | None, bool], Tensor | None] = {}
        self._chosen: dict[tuple[Plane, Region | None, bool], Tensor] = {}
        self._counts: dict[tuple[Plane, Region | None, bool], Make] = {}
        self._native = compiled and native_pass.takes(logits, curves.values())
        self._wide: dict[Plane, list[Tensor]] = {}
        self._all_valid = valid.device.type == "cpu" and bool(valid.all())  # elsewhere asking would wait

    def read(self, formula: Formula) -> Sums:
        """The totals that `formula` (a metric's `sums`) makes of prediction and label; gradients flow."""
        asked = asked_by(formula, self)
        work = Pass()
        makers = [self._counting(each, work) or self._pointwise(each, work) for each in asked]
        if self._by_triton and len(work) and not triton_pass.usable(self._logits, work):
            return answered(formula, self, self._by_reference(asked))
        found = self._kept(self._totals(work)) if len(work) else self._logits.new_empty(0)
        others = [each for each, make in zip(asked, makers, strict=True) if make is None]
        rest = iter(self._others(others))
        return answered(formula, self, [next(rest) if make is None else make(found) for make in makers])

    def _others(self, asked: list[Asked]) -> list[Tensor]:
        """Totals that are not pointwise: channel by channel on the CPU, by the reference elsewhere."""
        if not asked:
            return []
        if self._logits.device.type == "cpu":
            work = Work(asked, self._curves, self._map, self._widened, self._masked, self._classes)
            channels = native_channels.channel_totals if self._native else channel_totals
            return list(self._kept(channels(self._logits, work)))
        return self._by_reference(asked)

    def _by_reference(self, asked: list[Asked]) -> list[Tensor]:
        probs = (self._logits if self._logits.dtype == torch.float64 else self._logits.float()).softmax(1)
        logic = CurveLogic(probs, self._maps["label"], self._curves, self._per_image)
        return [logic.total(each.plane, each.within, each.void) for each in asked]

    def _totals(self, work: Pass) -> Tensor:
        if self._native:
            return native_pass.totals(self._logits, work)
        return (triton_pass.totals if self._by_triton else totals)(self._logits, work)

    def _kept(self, totals: Tensor) -> Tensor:
        """(…, N, C), images added up unless they are kept apart."""
        return totals if self._per_image else totals.sum(-2)

    # ------------------------------------------------------------------------------------ one total

    def _counting(self, asked: Asked, work: Pass) -> Make | None:
        """A total of labels alone; None: it is not."""
        if asked.soft or isinstance(asked.within, Plane) or asked.plane.op == "dilate":
            return None
        return self._counted(asked.plane, asked.within, asked.void, work)

    def _pointwise(self, asked: Asked, work: Pass) -> Make | None:
        """Adds what a total needs to the pass; how it is made of the pass's totals. None: it is not pointwise."""
        a, within, void = asked.plane, asked.within, asked.void
        identity = _identity(self._logits.device)
        if isinstance(within, Plane):
            if {a.op, within.op} <= {"pred"} or "pred" not in (a.op, within.op):
                return None
            hard = within if a.op == "pred" else a
            return self._own(hard, None, void, identity, work) if is_map(hard) else None
        if a.op == "pred":
            return self._everywhere(within, void, identity, work)
        if a.op not in ("and", "or") or a.args[0].soft == a.args[1].soft:
            return None
        soft, hard = a.args if a.args[0].soft else a.args[::-1]
        if soft.op != "pred" or not is_map(hard):
            return None
        curve = self._curves[a.op, soft.name]
        hits = self._own(hard, within, void, curve, work)
        if a.op == "and":
            return hits
        everywhere = self._everywhere(within, void, curve, work)
        count = self._counted(hard, within, void, work)
        return lambda computed: everywhere(computed) - hits(computed) + count(computed)

    def _everywhere(self, within: Region | None, void: bool, curve: Tensor, work: Pass) -> Make:
        return itemgetter(work.add_everywhere(curve, self._masked(within, void)))

    def _own(self, plane: Plane, within: Region | None, void: bool, curve: Tensor, work: Pass) -> Make:
        return itemgetter(work.add_own(curve, self._classes_of(plane, within, void)))

    # ------------------------------------------------------------------------------------ labels, each once

    def _masked(self, within: Region | None, void: bool) -> Tensor | None:
        """(N, H, W) bool of the pixels that count, None for all."""
        key = within, void or self._all_valid
        if key not in self._masks:
            self._masks[key] = self._selected(*key)
        return self._masks[key]

    def _classes_of(self, plane: Plane, within: Region | None, void: bool) -> Tensor:
        key = plane, within, void
        if key not in self._chosen:
            classes, selected = self._map(plane), self._masked(within, void)
            self._chosen[key] = classes if selected is None else torch.where(selected, classes, NO_CLASS)
        return self._chosen[key]

    def _widened(self, plane: Plane) -> list[Tensor]:
        """A dilated plane of the labels."""
        if plane not in self._wide:
            self._wide[plane] = widened(self._map(plane.args[0]), plane.px, self._classes)
        return self._wide[plane]

    def _counted(self, plane: Plane, within: Region | None, void: bool, work: Pass) -> Make:
        """Pixels of each class, each plane once; kernels count along."""
        key = plane, within, void
        if key not in self._counts:
            classes = self._classes_of(plane, within, void)
            if self._by_triton:
                place = work.add_own(triton_pass.counting(classes.device), classes)
                self._counts[key] = lambda computed: computed[place].detach()
            else:
                count = self._count(classes, None).double()
                self._counts[key] = lambda _: count
        return self._counts[key]
