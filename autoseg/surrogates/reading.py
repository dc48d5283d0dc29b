"""Reads a formula like `CurveLogic`, but asks first and computes then: the totals of a formula come from one pass.

What a formula asks for falls into three kinds:

* totals of labels alone are counted (by the kernels too, on a GPU);
* totals of pointwise functions of the prediction are left to `fused`;
* totals that erode or dilate the prediction are left to `by_channel`.

The last two have native code too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter

import torch
from torch import Tensor

from autoseg.metrics.base import Sums
from autoseg.metrics.bits import widened
from autoseg.metrics.logic import Plane, Region
from autoseg.metrics.maps import MapLogic
from autoseg.surrogates import native_channels, native_pass, triton_pass, triton_trial
from autoseg.surrogates.asked import Asked, Formula, answered, asked_by, is_map
from autoseg.surrogates.by_channel import Work, channel_totals
from autoseg.surrogates.fused import totals
from autoseg.surrogates.logic import CurveLogic
from autoseg.surrogates.passes import Pass, Pixels

IDENTITY = torch.tensor([[0.0, 1.0, 0.5, 0.0, 0.5, 1.0]], dtype=torch.float64)  # g(x) = x
Curves = Mapping[tuple[str, str], Tensor]
Make = Callable[[Sequence[Tensor]], Tensor]  # one total from all results of the pass


def fits(logits: Tensor, labels: Tensor) -> bool:
    """Whether `FusedLogic` may read this batch: hard labels, not traced, not transformed by functorch.

    On the CPU, or on CUDA by `triton_pass`.
    """
    traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    if traced or labels.is_floating_point():
        return False
    return logits.device.type == "cpu" or triton_trial.takes(logits)


@lru_cache(maxsize=8)
def _identity(device: torch.device) -> Tensor:
    """Moved there once: in every batch it would wait for the device."""
    return IDENTITY.to(device)


class FusedLogic(MapLogic):
    """Soft predictions against hard labels; gives the totals that `CurveLogic` gives.

    Args:
        logits: (N, C, H, W) float; gradients flow to it.
        labels: (N, H, W) integer; ids outside [0, C) are void.
        curves: coefficients (K, 6) per (operation, operand), see `curves.prepare`.
        per_image: totals are (N, C) instead of (C,).
        compiled: native code on the CPU (`native_pass`, `native_channels`); no difference elsewhere.
        ignore: on CUDA, ids that are neither classes nor this one fail an assertion there. None: nobody looks.
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
        self._by_triton = logits.device.type == "cuda"
        self._pixels: dict[tuple[Plane | None, Region | None], Pixels] = {}
        self._counts: dict[tuple[Plane, Region | None], Make] = {}
        self._native = compiled and native_pass.takes(logits, curves.values())
        self._wide: dict[Plane, list[Tensor]] = {}

    def read(self, formula: Formula) -> Sums:
        """The totals that `formula` (a metric's `sums`) makes of prediction and label; gradients flow."""
        asked = asked_by(formula, self)
        work = Pass()
        makers = [self._counting(each, work) or self._pointwise(each, work) for each in asked]
        if self._by_triton:
            found = self._by_kernels(work)
            if found is None:
                return answered(formula, self, self._by_reference(asked))
        else:
            found = self._by_blocks(work)
        others = [one for one, make in zip(asked, makers, strict=True) if make is None]
        rest = iter(self._others(others))
        return answered(formula, self, [next(rest) if make is None else make(found) for make in makers])

    def _by_blocks(self, work: Pass) -> Sequence[Tensor]:
        """A pass's totals on the CPU."""
        if not len(work):
            return ()
        found = self._kept((native_pass.totals if self._native else totals)(self._logits, work))
        return found.unbind()  # its gradient is put together once, not one total after the other

    def _by_kernels(self, work: Pass) -> Sequence[Tensor] | None:
        """The same on CUDA; None if the kernels cannot run. They look at the labels on the way, if they read them."""
        plan = triton_pass.planned(work, None if self._ignore is None else self._labels, self._ignore or 0)
        usable = not len(work) or triton_trial.usable(self._logits, plan.structure)
        if self._ignore is not None and not (usable and plan.structure.labels >= 0):
            torch._assert_async((self._valid | (self._labels == self._ignore)).all())
        if not usable:
            return None
        return triton_pass.totals(self._logits, plan, self._per_image) if len(work) else ()

    def _others(self, asked: list[Asked]) -> list[Tensor]:
        """Totals that are not pointwise: channel by channel on the CPU, by the reference elsewhere."""
        if not asked:
            return []
        if self._logits.device.type == "cpu":
            work = Work(asked, self._curves, self._map, self._widened, self._mask_of, self._classes)
            channels = native_channels.channel_totals if self._native else channel_totals
            return list(self._kept(channels(self._logits, work)))
        return self._by_reference(asked)

    def _by_reference(self, asked: list[Asked]) -> list[Tensor]:
        probs = (self._logits if self._logits.dtype == torch.float64 else self._logits.float()).softmax(1)
        logic = CurveLogic(probs, self._map(self.label), self._curves, self._per_image)
        return [logic.total(each.plane, each.within, each.void) for each in asked]

    def _kept(self, totals: Tensor) -> Tensor:
        """(…, N, C), images added up unless they are kept apart."""
        return totals if self._per_image else totals.sum(-2)

    # ------------------------------------------------------------------------------------ one total

    def _counting(self, asked: Asked, work: Pass) -> Make | None:
        """A total of labels alone; None: it is not."""
        if asked.soft or isinstance(asked.within, Plane) or asked.plane.op == "dilate":
            return None
        return self._counted(asked.plane, asked.within, work)

    def _pointwise(self, asked: Asked, work: Pass) -> Make | None:
        """Adds what a total needs to the pass; how it is made of the pass's totals. None: it is not pointwise."""
        a, within = asked.plane, asked.within
        identity = _identity(self._logits.device)
        if isinstance(within, Plane):
            if {a.op, within.op} <= {"pred"} or "pred" not in (a.op, within.op):
                return None
            hard = within if a.op == "pred" else a
            return itemgetter(work.add_own(identity, self._of(hard, None))) if is_map(hard) else None
        everyone = self._of(None if asked.void else self.label, within)
        if a.op == "pred":
            return itemgetter(work.add_everywhere(identity, everyone))
        if a.op not in ("and", "or") or a.args[0].soft == a.args[1].soft:
            return None
        soft, hard = a.args if a.args[0].soft else a.args[::-1]
        if soft.op != "pred" or not is_map(hard):
            return None
        curve, own = self._curves[a.op, soft.name], self._of(hard, within)
        if a.op == "and":
            return itemgetter(work.add_own(curve, own))
        if self._by_triton:
            return itemgetter(work.add_everywhere(curve, everyone, own))
        hits, everywhere = work.add_own(curve, own), work.add_everywhere(curve, everyone)
        count = self._counted(hard, within, work)
        return lambda computed: computed[everywhere] - computed[hits] + count(computed)

    # ------------------------------------------------------------------------------------ labels, each once

    def _of(self, plane: Plane | None, within: Region | None) -> Pixels:
        """The pixels that have a class in a plane of the labels (None: all), within a region.

        A plane of the labels has no class where they are void, so that whether void ones count makes no difference.
        """
        key = plane, within
        if key not in self._pixels:
            ids = None if plane is None else self._labels if plane == self.label else self._map(plane)
            self._pixels[key] = Pixels(ids, None if within is None else self._mask(within), self._classes)
        return self._pixels[key]

    def _mask(self, region: Region) -> Tensor:
        """In a logic of its own, which forgets the planes on the way: int64, and else kept through the pass."""
        return MapLogic(self._labels, self._classes, self._per_image)._mask(region)

    def _mask_of(self, within: Region | None, void: bool) -> Tensor | None:
        """(N, H, W) bool of the pixels that count, None for all."""
        return self._of(None if void else self.label, within).mask

    def _widened(self, plane: Plane) -> list[Tensor]:
        """A dilated plane of the labels."""
        if plane not in self._wide:
            self._wide[plane] = widened(self._map(plane.args[0]), plane.px, self._classes)
        return self._wide[plane]

    def _counted(self, plane: Plane, within: Region | None, work: Pass) -> Make:
        """Pixels of each class, each plane once; kernels count along."""
        key = plane, within
        if key not in self._counts:
            pixels = self._of(plane, within)
            if self._by_triton:
                place = work.add_own(None, pixels)
                self._counts[key] = itemgetter(place)
            else:
                count = self._count(pixels.classes, None).double()
                self._counts[key] = lambda _: count
        return self._counts[key]
