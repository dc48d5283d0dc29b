"""Worst cases: a fine-grained metric over only the worst q percent of the images, named `miou_i_q10`.

"I" uses the images whose own score is lowest; "C" uses for each class the images where that class does worst
(Wang et al., NeurIPS 2023 Datasets and Benchmarks, arXiv 2310.19252). Reported only: which images are worst
changes with every step of a training. The authors' average over q is a sum, 0.1*miou_i_q10+...+0.1*miou_i.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import torch
from torch import Tensor

from autoseg.errors import unknown_name
from autoseg.imports import OWN
from autoseg.metrics.base import Metric, Sums, register_metric, registry
from autoseg.metrics.per_image import PerImage

LISTED = 10  # the q whose variants are listed and scored; any other from 1 to 99 can be named

_NAME = re.compile(r"(?P<base>\w+)_q(?P<q>[1-9][0-9]?)")


class Worst(PerImage):
    """Mixin for a fine-grained metric; its state is every image's score, which merging concatenates."""

    searchable = False
    adds_over_images = False  # which images are the worst depends on all of them
    share: ClassVar[int]  # q, in percent

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.name, vars(self))  # pickle finds no class that is made on demand

    def _add(self, sums: Sums) -> None:
        scores = sums["score"] if "score" in sums else self._image_scores(sums)
        seen = [self._state["score"]] if self._state else []
        self._state = {"score": torch.cat([*seen, scores])}

    def per_class(self) -> Tensor:
        """Return the (C,) mean over each class's worst images, NaN if none has the class.

        "I": (1,), over the worst images.

        The worst q percent are rounded down, but at least one image.
        """
        if not self._state:
            return self._of_nothing()
        scores = self._state["score"].sort(dim=0).values  # NaN (nothing to score) comes last
        counts = (~scores.isnan()).sum(0)
        kept = (counts * self.share // 100).clamp_min(1)
        place = torch.arange(len(scores), device=scores.device).unsqueeze(1)
        return torch.where(counts > 0, scores.masked_fill(place >= kept, 0).sum(0) / kept, torch.nan)

    def compute(self) -> Tensor:
        """Return the mean of `per_class`, 0-d float64; NaN if no image has a label."""
        self._masks.warn()
        return self.per_class().nanmean()


_MADE: dict[tuple[type[PerImage], int], type[Metric]] = {}


def _worst(base: type[PerImage], q: int) -> type[Metric]:
    """Return the worst-q variant of a fine-grained metric; one class per (metric, q), so that states can merge."""
    if (base, q) in _MADE:
        return _MADE[base, q]
    members = {
        "__module__": __name__,
        "__doc__": f"{base.name} over the worst {q} % of the images.",
        "name": f"{base.name}_q{q}",
        "summary": f"{base.name} over the worst {q} % of the images",
        "share": q,
    }
    return _MADE.setdefault((base, q), type(f"{base.__name__}Q{q}", (Worst, base), members))


def _restored(name: str, state: dict[str, Any]) -> Metric:
    metric = object.__new__(find_metric(name))
    vars(metric).update(state)
    return metric


def find_metric(name: str) -> type[Metric]:
    """Return the class of a metric by name, worst-q variants with any q included.

    Raises:
        InputError: there is none.
    """
    if name in registry():
        return registry()[name]
    asked = _NAME.fullmatch(name)
    base = registry().get(asked["base"]) if asked else None
    if asked is None or base is None or not issubclass(base, PerImage) or issubclass(base, Worst):
        raise unknown_name("metric", name, registry(), "" if name.lower() in registry() else OWN)  # mIoU: just that
    return _worst(base, int(asked["q"]))


for _base in [metric for metric in registry().values() if issubclass(metric, PerImage)]:
    register_metric(_worst(_base, LISTED))
