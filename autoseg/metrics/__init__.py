"""Metrics: each is one formula over AND, OR and boundaries, exact with hard logic, a surrogate with curves.

* `logic`: the operations that formulas use; `trace`: what a formula asks for, found without computing it; `base`: what
  all metrics share, with the registry;
* the formulas: `region`, `boundary`, `binary`, averaged over images in `per_image` and over the `worst` of them;
  `sums` are weighted sums of metrics, `calibration` is for probabilities and cannot be a target;
* `maps`: the exact logic, which counts; its morphology uses `windows`, for whole numbers in `bits`;
* `images`: the contribution of each image, stored for statistics.
"""

from __future__ import annotations

from autoseg.errors import InputError
from autoseg.metrics import binary, boundary, calibration, region  # noqa: F401  (importing registers them)
from autoseg.metrics.base import (
    Metric,
    MetricOptions,
    Ratio,
    Sums,
    is_ours,
    register_metric,
    registry,
    searchable,
    update_all,
)
from autoseg.metrics.logic import Logic, Plane
from autoseg.metrics.per_image import PerImage
from autoseg.metrics.sums import MetricSum, parse, parse_target, score_of
from autoseg.metrics.worst import find_metric

__all__ = [
    "Logic", "Metric", "MetricOptions", "MetricSum", "PerImage", "Plane", "Ratio", "Sums",
    "build_metric", "find_metric", "higher_is_better", "is_known", "names", "own_metrics", "parse", "parse_target",
    "register_metric", "score_of", "searchable", "update_all",
]  # fmt: skip


def names() -> list[str]:
    """Return the names of all metrics."""
    return list(registry())


def own_metrics() -> tuple[type[Metric], ...]:
    """Return the user's metrics, in the order in which they were registered."""
    return tuple(metric for metric in registry().values() if not is_ours(metric))


def is_known(spec: str) -> bool:
    """Return whether a text is a metric or a sum of metrics."""
    try:
        parse(spec)
    except InputError:
        return False
    return True


def higher_is_better(name: str) -> bool:
    """Return whether higher is better for a metric or a sum of metrics.

    Raises:
        InputError: unknown name, malformed sum.
    """
    return all(find_metric(term).higher_is_better for _, term in parse(name))


def build_metric(
    name: str,
    num_classes: int,
    ignore_index: int = 255,
    tolerance: int = 5,
    drop_background: bool = False,
) -> Metric | MetricSum:
    """Build a metric by name, or a weighted sum of metrics.

    Args:
        name: one of `names()`, a worst-q variant ("miou_i_q5"), or a sum such as "miou+0.5*bf1".
        num_classes: C.
        ignore_index: label of void pixels.
        tolerance: boundary metrics, pixels at the size where the metric is evaluated.
        drop_background: of biou and bf1, class 0 has no boundary of its own. Others ignore it, as one set of options is
            for all metrics of an evaluation: Dice without the background is f1, beside it are precision and recall.

    Raises:
        InputError: unknown name, malformed sum, or an option out of range.

    Returns:
        A `Metric`, or a `MetricSum` with the same methods: `update`, `compute`, `per_class`, `merge`, `reset`.
    """
    options = MetricOptions(num_classes, ignore_index, tolerance, drop_background)
    terms = [(weight, find_metric(term)(options)) for weight, term in parse(name)]
    return terms[0][1] if len(terms) == 1 and terms[0][0] == 1 else MetricSum(terms)
