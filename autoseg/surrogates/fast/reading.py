"""Evaluates a formula like `CurveLogic`, but lists all its totals before it computes any: they come from one pass.

The totals of a formula (`formula_plan`) are of three kinds:

* totals of labels alone are counted (by the kernels too, on a GPU);
* totals of pointwise functions of the prediction are computed by `cpu.fused` or `gpu`;
* totals that erode or dilate the prediction are computed by `cpu.by_channel`.

The last two have native code too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from autoseg.metrics.base import Sums
from autoseg.metrics.bits import widened
from autoseg.metrics.logic import Plane, Region
from autoseg.metrics.maps import MapLogic
from autoseg.metrics.trace import TotalCall
from autoseg.surrogates.fast.cpu import native_channels, native_pass
from autoseg.surrogates.fast.cpu.by_channel import Work, channel_totals
from autoseg.surrogates.fast.cpu.fused import totals
from autoseg.surrogates.fast.formula_plan import PLAIN, FormulaPlan, Key, PixelSet
from autoseg.surrogates.fast.gpu import bands, checks, launches, plans
from autoseg.surrogates.fast.gpu.launches import Score
from autoseg.surrogates.fast.gpu.plans import Plan
from autoseg.surrogates.fast.passes import Pixels
from autoseg.surrogates.logic import CurveLogic

IDENTITY = torch.tensor([[0.0, 1.0, 0.5, 0.0, 0.5, 1.0]], dtype=torch.float64)  # g(x) = x
Curves = Mapping[Key, Tensor]


def fits(logits: Tensor, labels: Tensor) -> bool:
    """Return whether `FusedLogic` can evaluate this batch: hard labels, not traced, not transformed by functorch.

    On the CPU, or on CUDA by `gpu.launches`.
    """
    traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    if traced or labels.is_floating_point():
        return False
    return logits.device.type == "cpu" or checks.takes(logits)


def by_kernels(logits: Tensor) -> bool:
    """Return whether kernels run the pass over logits that fit."""
    return logits.device.type == "cuda"


@lru_cache(maxsize=8)
def _identity(device: torch.device) -> Tensor:
    """Return the identity curve on a device; cached, since a transfer in every batch would wait for the device."""
    return IDENTITY.to(device)


class FusedLogic(MapLogic):
    """Soft predictions against hard labels; computes the same totals as `CurveLogic`.

    Args:
        logits: (N, C, H, W) float; gradients flow to it.
        labels: (N, H, W) integer; ids outside [0, C) are void.
        curves: coefficients (K, 6) per (operation, operand), see `curves.prepare`.
        per_image: totals are (N, C) instead of (C,).
        compiled: use native code on the CPU (`native_pass`, `native_channels`); no effect elsewhere.
        ignore: on CUDA, ids that are neither classes nor this one fail an assertion there. None: no check.
    """

    def __init__(
        self,
        logits: Tensor,
        labels: Tensor,
        curves: Curves,
        per_image: bool = False,
        compiled: bool = False,
        ignore: int | None = None,
    ) -> None:
        super().__init__(labels, logits.shape[1], per_image)
        self._logits, self._curves, self._ignore = logits, curves, ignore
        self._native = compiled and native_pass.takes(logits, curves.values())
        self._pixels: dict[PixelSet, Pixels] = {}
        self._counts: dict[PixelSet, Tensor] = {}
        self._wide: dict[Plane, list[Tensor]] = {}

    def read(self, plan: FormulaPlan) -> Sums:
        """Return the results of a formula for prediction and label; gradients flow."""
        found = self._by_kernels(plan) if plan.kernels else self._by_blocks(plan)
        if found is None:
            return plan.answer(self._by_reference(plan.calls))
        others = [call for call, recipe in zip(plan.calls, plan.recipes, strict=True) if recipe is None]
        rest = iter(self._others(others))
        return plan.answer(
            [next(rest) if recipe is None else recipe.of(found, self._counted) for recipe in plan.recipes]
        )

    def _by_blocks(self, plan: FormulaPlan) -> Sequence[Tensor]:
        """Return a pass's totals on the CPU."""
        if not len(plan.work):
            return ()
        work = plan.work.of(self._curve_of, self._pixels_of)
        found = self._kept((native_pass.totals if self._native else totals)(self._logits, work))
        return found.unbind()  # the gradient is assembled once, not one total after the other

    def _by_kernels(self, plan: FormulaPlan) -> Sequence[Tensor] | None:
        """Return a pass's totals on CUDA; None if the kernels cannot run."""
        launch = self._planned(plan)
        if launch is None or not len(plan.work):
            return None if launch is None else ()
        return launches.totals(self._logits, launch, self._per_image).unbind()

    def loss(self, plan: FormulaPlan, score: Score) -> Tensor | None:
        """Return 1 - score of the totals, 0 if nothing counts, see `gpu.launches.loss`.

        None if the kernels cannot run.
        """
        launch = self._planned(plan, score)
        return None if launch is None else launches.loss(self._logits, launch, score)

    def _planned(self, plan: FormulaPlan, score: Score | None = None) -> Plan | None:
        """Return the plan of the pass, whose kernels also check the labels if they read them.

        None if they cannot run.
        """
        if plan.layout is None:
            plan.layout = plans.laid_out(
                plan.work, lambda key: len(self._curve_of(key)), lambda where: where.ids == self.label
            )
        structure = plan.layout.structure
        usable = not len(structure) or checks.usable(self._logits, structure, score)
        if self._ignore is not None and not (usable and structure.labels >= 0):
            torch._assert_async((self._valid | (self._labels == self._ignore)).all())
        if not usable:
            return None
        groups, curves = map(self._pixels_of, plan.layout.groups), map(self._curve_of, plan.layout.curves)
        return plans.planned(structure, list(groups), tuple(curves), self._ignore)

    def _others(self, calls: list[TotalCall]) -> list[Tensor]:
        """Return the totals that are not pointwise: channel by channel on the CPU, by the reference elsewhere."""
        if not calls:
            return []
        if self._logits.device.type == "cpu":
            work = Work(calls, self._labels, self._curves, self._map, self._widened, self._mask_of, self._classes)
            channels = native_channels.channel_totals if self._native else channel_totals
            return list(self._kept(channels(self._logits, work)))
        return self._by_reference(calls)

    def _by_reference(self, calls: list[TotalCall]) -> list[Tensor]:
        probs = (self._logits if self._logits.dtype == torch.float64 else self._logits.float()).softmax(1)
        logic = CurveLogic(probs, self._map(self.label), self._curves, self._per_image)
        return [logic.total(each.plane, each.within, each.void) for each in calls]

    def _kept(self, totals: Tensor) -> Tensor:
        """Sum (…, N, C) over the images, unless totals are per image."""
        return totals if self._per_image else totals.sum(-2)

    # ------------------------------------------------------------------------------------ what a pass is made of

    def _curve_of(self, key: Key) -> Tensor:
        return _identity(self._logits.device) if key == PLAIN else self._curves[key]

    def _pixels_of(self, where: PixelSet) -> Pixels:
        """Return the pixels of a set; computed once for each."""
        if where not in self._pixels:
            plane, within = where
            ids = None if plane is None else self._labels if plane == self.label else self._map(plane)
            self._pixels[where] = Pixels(ids, None if within is None else self._mask(within), self._classes)
        return self._pixels[where]

    def _mask(self, region: Region) -> Tensor:
        """Return the mask of a region, by a separate logic whose intermediate int64 planes are freed before the
        pass.
        """
        if by_kernels(self._logits) and bands.drawn(region) and checks.draws(self._labels.device, region):
            return bands.band(self._labels, self._classes, region)
        return MapLogic(self._labels, self._classes, self._per_image)._mask(region)

    def _mask_of(self, within: Region | None, void: bool) -> Tensor | None:
        """Return (N, H, W) bool of the pixels that count, None for all."""
        return self._pixels_of(PixelSet(None if void else self.label, within)).mask

    def _widened(self, plane: Plane) -> list[Tensor]:
        """Return a dilated plane of the labels."""
        if plane not in self._wide:
            self._wide[plane] = widened(self._map(plane.args[0]), plane.px, self._classes)
        return self._wide[plane]

    def _counted(self, where: PixelSet) -> Tensor:
        """Return the pixels of each class, counted once per plane; for a pass that does not count them itself."""
        if where not in self._counts:
            self._counts[where] = self._count(self._pixels_of(where).classes, None).double()
        return self._counts[where]
