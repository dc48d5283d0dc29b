"""What every metric shares: counting over a data set, merging, and the mean over classes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor

from autoseg.errors import InputError
from autoseg.imports import NAME
from autoseg.kinds import CheckedArguments
from autoseg.metrics.labels import SAVED, SavedMasks, as_images, check_ids, check_tensors, in_plane
from autoseg.metrics.logic import Logic, Plane
from autoseg.metrics.maps import HardLogic
from autoseg.metrics.trace import looks_around

Sums = dict[str, Tensor]


class Ratio(Protocol):
    """Division of totals. `empty` is the value where the denominator is 0.

    With NaN, the exact metric leaves the class out of its mean; a surrogate has 0 there.
    """

    def __call__(self, numerator: Tensor, denominator: Tensor, empty: float = math.nan) -> Tensor:
        """Elementwise numerator / denominator."""


def widest(device: torch.device) -> torch.dtype:
    """Return float64, or float32 for an Apple GPU, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def exact_ratio(numerator: Tensor, denominator: Tensor, empty: float = math.nan) -> Tensor:
    """Ratio of counts in float64; `empty` where the denominator is 0."""
    numerator, denominator = numerator.double(), denominator.double()
    return torch.where(denominator == 0, empty, numerator / torch.where(denominator == 0, 1.0, denominator))


def exact(sums: Sums) -> Sums:
    """Totals in float64: counts times a factor of a formula, such as 0.3, would be float32 to torch."""
    return {name: total.double() for name, total in sums.items()}


@dataclass
class MetricOptions(CheckedArguments):
    """What a metric is told about the data.

    Attributes:
        num_classes: C.
        ignore_index: label of void pixels, be it the id of a class or not; any other id outside [0, C) is an error.
        tolerance: boundary metrics, in pixels at the size where the metric is evaluated.
        drop_background: biou and bf1; class 0 has no boundary of its own. No other metric reads it: a mean without
            class 0 is a metric of its own, f1 for Dice.
    """

    num_classes: int
    ignore_index: int = 255
    tolerance: int = 5
    drop_background: bool = False

    def __post_init__(self) -> None:
        if self.num_classes < 1:
            raise InputError("num_classes", "a positive whole number", self.num_classes)
        if self.tolerance < 0:
            raise InputError("tolerance", "a whole number of pixels, 0 or more", self.tolerance)

    @property
    def void(self) -> int:
        """`ignore_index`, or -1 where that is a class: formulas know void pixels by an id outside [0, C)."""
        return -1 if 0 <= self.ignore_index < self.num_classes else self.ignore_index

    def without_ignored(self, labels: Tensor) -> Tensor:
        """Labels as formulas read them: (N, H, W) integer, void pixels with the id `void`."""
        if self.void == self.ignore_index:
            return labels
        labels = labels.long()
        return labels.masked_fill(labels == self.ignore_index, self.void)


def batch_logic(pred: Tensor, labels: Tensor, options: MetricOptions) -> HardLogic:
    """The logic of a batch of predicted and true classes, both (N, H, W) or, of volumes, (N, D, H, W) integer.

    Raises:
        InputError: shapes differ, or an id is out of range.
    """
    check_tensors(pred=pred, labels=labels)
    if pred.shape != labels.shape or pred.dim() not in (3, 4):
        expected = "two (N, H, W) maps of one shape or, of volumes, (N, D, H, W)"
        raise InputError("pred, labels", expected, f"{(*pred.shape,)} and {(*labels.shape,)}")
    volumes = pred.dim() == 4
    pred, labels = as_images(pred, channels=False), as_images(labels, channels=False)
    check_ids(pred, "pred", options.num_classes)
    check_ids(labels, "labels", options.num_classes, options.ignore_index)
    return HardLogic(pred.long(), options.without_ignored(labels).long(), options.num_classes, volumes)


class Counted(Protocol):
    """What can share the counting of a batch: metrics and sums of them."""

    @property
    def options(self) -> MetricOptions:
        """What it was told about the data."""

    @property
    def counts_itself(self) -> bool:
        """Whether it has an `update` of its own, for what is no formula of totals."""

    def count(self, logic: HardLogic) -> None:
        """Adds the batch behind `logic`."""

    def update(self, pred: Tensor, labels: Tensor) -> None:
        """Adds a batch."""


def update_all(metrics: Iterable[Counted], pred: Tensor, labels: Tensor) -> None:
    """Adds a batch to several metrics; what they count alike is counted once.

    Args:
        metrics: those that need classes, not probabilities.
        pred: (N, H, W) integer predicted classes; (N, D, H, W) of volumes.
        labels: integer labels of that shape.

    Raises:
        InputError: as `Metric.update`.
    """
    shared: list[tuple[MetricOptions, HardLogic]] = []
    for metric in metrics:
        if metric.counts_itself:
            metric.update(pred, labels)
            continue
        logic = next((logic for options, logic in shared if options == metric.options), None)
        if logic is None:
            logic = batch_logic(pred, labels, metric.options)
            shared.append((metric.options, logic))
        metric.count(logic)


class Metric:
    """A metric over a whole data set, stated as totals and ratios of them.

    A subclass is one formula in two steps: `sums` (totals over images and pixels, written with AND, OR and
    boundaries) and `scores` (ratios of totals, per class). Read with hard logic this is the exact metric; read
    with curves it is its surrogate loss.

    Class attributes:
        name: what users type.
        summary: one line for `autoseg metrics`.
        source: where the definition comes from.
        absent_rule: whether a surrogate may average over classes the batch lacks (`absent="include"`).
        needs_probs: whether it is updated with probabilities (`update_probs`).
        higher_is_better: False for errors, which are reported and never maximised.
        searchable: whether it has a surrogate, so that a search may have it as its target.
        per_image: totals are kept per image, (N, C), and scores averaged over images.
        adds_over_images: the state is a sum over images, see `parts`.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str] = "this project"
    absent_rule: ClassVar[bool] = True
    needs_probs: ClassVar[bool] = False
    higher_is_better: ClassVar[bool] = True
    searchable: ClassVar[bool] = True
    per_image: ClassVar[bool] = False
    adds_over_images: ClassVar[bool] = True

    def __init__(self, options: MetricOptions) -> None:
        given: object = options
        if not isinstance(given, MetricOptions):
            hint = f"Registered, it is built by autoseg.build_metric({self.name!r}, num_classes=...)."
            raise InputError(f"options of {type(self).__name__}", "MetricOptions", repr(given), hint)
        self.options = options
        self._state: Sums = {}
        self._masks = SavedMasks()
        self._by_image: list[Sums] | None = None  # batch by batch, see `keep_images`

    # ---------------------------------------------------------------- the formula

    def sums(self, p: Plane, y: Plane, logic: Logic) -> Sums:
        """Totals, each (C,). Must hold "label": how much of each class the labels have where it counts."""
        raise NotImplementedError

    @property
    def looks_around(self) -> bool:
        """Whether the formula erodes, dilates or takes boundaries, which lie in the plane of an image."""
        return looks_around(self.sums, self.options.num_classes)

    def scores(self, s: Sums, ratio: Ratio) -> Tensor:
        """Per-class scores from totals: (C,), or (1,) where classes are pooled."""
        raise NotImplementedError

    def weights(self, s: Sums) -> Tensor:
        """Weight of each score in the mean, same shape as `scores`: equal unless said otherwise."""
        return torch.ones_like(s["label"], dtype=widest(s["label"].device))

    # ---------------------------------------------------------------- over a data set

    def update(self, pred: Tensor, labels: Tensor) -> None:
        """Adds a batch.

        Args:
            pred: (N, H, W) integer predicted classes; (N, D, H, W) of volumes, each of which is one image to a metric
                that looks at each pixel by itself.
            labels: integer labels of that shape, `ignore_index` for void.

        Raises:
            InputError: shapes differ, an id is out of range, or volumes for a metric that `looks_around`.
        """
        self.count(batch_logic(pred, labels, self.options))

    @property
    def counts_itself(self) -> bool:
        """Whether a subclass has its own `update`: a metric that is no formula, and is scored only."""
        return type(self).update is not Metric.update

    def count(self, logic: HardLogic) -> None:
        """Adds a batch that several metrics look at: see `update_all`."""
        if self._by_image is None:
            self._add(self._totals(logic, self.per_image))
            return
        parts = self._image_sums(self._totals(logic, per_image=True))
        self._by_image.append(parts)
        self._add({k: v.sum(0) for k, v in parts.items()})

    def keep_images(self) -> None:
        """Keep what each image adds from now on; of a metric that `adds_over_images`."""
        self._by_image = []

    @property
    def parts(self) -> Sums:
        """What each image added since `keep_images`: tensors (N, ...) by name, on the CPU, in the order of the images.

        Their sums over any images, given to `score_of`, are the score of these images.
        """
        if not (batches := self._by_image):
            return {}
        return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}

    def score_of(self, totals: Sums) -> Tensor:
        """0-d float64: the score that a state gives; this instance's own stays as it is."""
        other = type(self)(self.options)
        other._state = dict(totals)
        return other.compute()

    def _totals(self, logic: HardLogic, per_image: bool) -> Sums:
        """Return the totals of a batch, on the CPU: few numbers, and an Apple GPU has no float64 for their ratios."""
        if logic.volumes and self.looks_around:
            hint = "Give the slices as images: pred.flatten(0, 1), labels.flatten(0, 1)."
            raise in_plane(self.name, hint)
        if self.options.num_classes == 2 and self.options.ignore_index == SAVED:
            self._masks.note(logic.labels)
        logic = logic.sharing(per_image)
        return {k: v.cpu() for k, v in self.sums(logic.pred, logic.label, logic).items()}

    def _image_sums(self, sums: Sums) -> Sums:
        """From totals of each image to what it adds to the state."""
        return sums

    def _add(self, sums: Sums) -> None:
        self._state = {k: v + self._state[k] if k in self._state else v for k, v in sums.items()}

    def reset(self) -> None:
        """Forgets everything seen."""
        self._state = {}
        self._masks = SavedMasks()
        self._by_image = None if self._by_image is None else []

    def merge(self, other: Self) -> None:
        """Adds what another instance has seen (another worker, another part of the data)."""
        if type(other) is not type(self) or other.options != self.options:
            raise InputError("merge", f"a {self.name} of the same options", repr(other))
        if other._state:  # a worker without images has nothing to add
            self._add(other._state)
        if self._by_image is not None:
            self._by_image += other._by_image or []
        self._masks.add(other._masks)

    def per_class(self) -> Tensor:
        """(C,) float64, NaN where a class does not occur; (1,) where classes are pooled."""
        return self.scores(exact(self._state), exact_ratio) if self._state else self._of_nothing()

    def _of_nothing(self) -> Tensor:
        """`per_class` before anything was seen: NaN, in the shape it has after one void pixel."""
        other = type(self)(self.options)
        void = torch.full((1, 1, 1), -1, device="cpu")
        other.count(HardLogic(torch.zeros_like(void), void, self.options.num_classes))
        return torch.full_like(other.per_class(), math.nan)

    def compute(self) -> Tensor:
        """0-d float64: the mean over the classes that occur; NaN if none does.

        Warns, once a process, where labels look like masks saved as 0 and 255 and 255 is `ignore_index`.

        Raises:
            InputError: a metric whose `weights` do not fit its `scores`.
        """
        self._masks.warn()
        if not self._state:
            return torch.tensor(math.nan, dtype=torch.float64, device="cpu")
        scores = self.per_class()
        occurs = ~scores.isnan()
        weights = self.weights(exact(self._state)).double()
        try:
            weights = weights * occurs
        except RuntimeError:
            got = f"{tuple(weights.shape)} for scores of shape {tuple(scores.shape)}"
            hint = "Score every class; a weight of 0 leaves one out of the mean."
            raise InputError(f"weights of {self.name}", "as many as there are scores", got, hint) from None
        return (scores.nan_to_num() * weights).sum() / weights.sum()  # 0/0 is the NaN promised

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.options})"


_REGISTRY: dict[str, type[Metric]] = {}


def register_metric(cls: type[Metric]) -> type[Metric]:
    """Class decorator: makes a metric known by its `name`, to commands and configs alike.

    Raises:
        InputError: it is no `Metric`, has no name and summary, a name that cannot be typed, or that of one of ours.
    """
    if not (isinstance(cls, type) and issubclass(cls, Metric)):
        raise InputError("register_metric", "a subclass of autoseg.Metric", repr(cls))
    if cls.per_image and cls._image_sums is Metric._image_sums:  # its totals of different images would be added up
        hint = "Name it first: class LesionDice(autoseg.metrics.PerImage, autoseg.Metric), by_class = True or False."
        raise InputError(f"per_image of {cls.__name__}", "True of a subclass of autoseg.metrics.PerImage", "True", hint)
    check_own(cls, "metric", _REGISTRY)
    _REGISTRY[cls.name] = cls
    return cls


def check_own(cls: type, what: str, known: Mapping[str, type]) -> None:
    """Refuse a class that cannot be registered by its `name`; one of the same name may be replaced by another own one.

    Raises:
        InputError: as `register_metric`.
    """
    if any(not isinstance(getattr(cls, text, None), str) for text in ("name", "summary")):
        raise InputError(f"{what} {cls.__name__}", "name = ... and summary = ..., one line each", "a class without")
    name = cls.name  # type: ignore[attr-defined]
    if not re.fullmatch(NAME, name):
        raise InputError(f"name of {cls.__name__}", "a-z, 0-9 and _, no digit first, such as f2", repr(name))
    if known.get(name) in cls.__mro__[1:]:  # it would replace what it derives from
        raise InputError(f"name of {cls.__name__}", "one of its own", f"its base's, {name!r}")
    if name in known and is_ours(known[name]) and not is_ours(cls):
        raise InputError(f"name of {cls.__name__}", f"one that no {what} of autoseg has", repr(name), "Choose another.")


def is_ours(cls: type) -> bool:
    """Whether a class is part of autoseg."""
    return cls.__module__.startswith(__name__.partition(".")[0] + ".")


def registry() -> Mapping[str, type[Metric]]:
    """Known metrics by name."""
    return _REGISTRY


def searchable() -> list[str]:
    """Names of the metrics that have a surrogate and can be a search's target."""
    return [name for name, metric in _REGISTRY.items() if metric.searchable]
