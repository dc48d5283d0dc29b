"""`SurrogateLoss`: a metric's formula read with curves, as a loss. Auto Seg-Loss (Li et al., ICLR 2021)."""

from __future__ import annotations

import math
import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from autoseg import metrics
from autoseg.errors import InputError
from autoseg.kinds import CheckedArguments
from autoseg.metrics.base import Metric, Sums, widest
from autoseg.metrics.labels import ONE_LOGIT, Validate, as_images, check_labels, check_shapes, in_plane
from autoseg.surrogates import curves
from autoseg.surrogates.fast.formula_plan import FormulaPlan, plan_formula
from autoseg.surrogates.fast.gpu.launches import Score
from autoseg.surrogates.fast.reading import FusedLogic, by_kernels, fits
from autoseg.surrogates.library import build_space
from autoseg.surrogates.logic import CurveLogic
from autoseg.surrogates.parameterization import Family
from autoseg.surrogates.ranks import is_distributed, rows_of_ranks, total_over_ranks
from autoseg.surrogates.soft_labels import SoftLabelLogic
from autoseg.surrogates.space import SCORE_MAX_SLOPE, Absent, SearchSpace


class SurrogateLoss(CheckedArguments, nn.Module):
    """1 - surrogate of a metric; a weighted sum of such terms for a sum of metrics.

    The metric's formula with softmax in place of one-hot predictions and, for curves g, AND(a, b) = g(a) g(b) and
    OR(a, b) = g(a) + g(b) - g(a) g(b) (Li et al., "Auto Seg-Loss", ICLR 2021, arXiv 2010.07930).

    On one-hot input the surrogate equals the exact metric of the batch, for any curves that keep the truth table
    (without a score curve, and with the same rule for absent classes). The batch counts as one set: totals are
    taken over images before ratios.

    Where it differs from the paper's release, on purpose: the curve inversion is accurate everywhere, a control
    point at x = 0 gives no NaN, the slope at p = 1 is bounded (`curves.END_SLOPE`), a soft edge of BF1 is at
    least 0, and a batch with nothing to count gives loss 0 with zero gradient.

    Args:
        metric: a metric's name, or a sum such as "miou+0.5*bf1".
        num_classes: C, the background included; of 1, over which a softmax is always 1, is warned.
        parameterization: "bezier" or "linear", for `control_points` without a `space`.
        control_points: decoded coordinates, flat or {curve: (m, 2)}; None for the identity curves g(x) = x.
        ignore_index: label of void pixels.
        absent: "include" averages over all classes as the paper's release does, "skip" over those the batch's
            labels have; None takes the space's.
        eps: added to denominators; above 0.
        loss_weight: factor of the result.
        tolerance: boundary metrics, in pixels.
        drop_background: boundary metrics, class 0 has no boundary of its own.
        validate: label ids are checked: "auto" (on CPU an error, on other devices asserted there without a
            sync, off under torch.compile), True (always an error) or False.
        space: search space of the control points; None for the paper's space of the metric.
        compile: on a CPU all but float64 logits take native code, two to four times as fast; its first use on a machine
            builds it for some seconds and needs a C++ compiler (`fast.cpu`). On CUDA the kernels are compiled anyhow
            (`fast.gpu`). Values agree with those uncompiled to rounding, not bitwise; curves are arguments, so
            that one build serves all of them.

    Attributes:
        sync_counts: totals are added up over all ranks of a distributed training before ratios; off until
            `losses.ranks.sync_counts` turns it on. See `ranks` for its gradient.
        fused: hard labels take the fused pass (`fast`) on the CPU and on CUDA; False computes everything by the
            reference (`logic`), which it is tested against, several times slower.
        compiled: whether that pass is compiled, see `compile`.

    Raises:
        InputError: unknown metric, control points that do not fit the space, or a space with other losses in it.
    """

    def __init__(
        self,
        metric: str,
        num_classes: int,
        parameterization: Family | None = None,
        control_points: Any = None,
        ignore_index: int = 255,
        absent: Absent | None = None,
        eps: float = 1e-8,
        loss_weight: float = 1.0,
        tolerance: int = 5,
        drop_background: bool = False,
        validate: Validate = "auto",
        space: SearchSpace | str | None = None,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if num_classes == 1:
            text = "a softmax over one class is always 1, without a gradient: count the background as a class."
            warnings.warn(f"{text} {ONE_LOGIT}", stacklevel=2)
        self.fused, self.compiled = True, compile
        self.space = _space(metric, space, parameterization)
        if not 0 < eps < math.inf:  # a class that is absent is 0 by 0 without it
            raise InputError("eps", "a number above 0", eps)
        if not 0 <= loss_weight < math.inf:
            raise InputError("loss_weight", "a number of 0 or more", loss_weight)
        self.absent = absent or self.space.absent
        self.eps, self.loss_weight, self.validate = eps, loss_weight, validate
        self.sync_counts = False
        self.terms: list[tuple[float, Metric]] = []
        for weight, name in metrics.parse(metric):
            term = metrics.build_metric(name, num_classes, ignore_index, tolerance, drop_background)
            assert isinstance(term, Metric)
            self.terms.append((weight, term))
        decoded = self.space.decode(self.space.identity) if control_points is None else control_points
        self.control_points: np.ndarray = self.space.check_decoded(decoded)
        self.theta: np.ndarray = self.space.encode(self.control_points)
        self._plans: dict[tuple[str, bool], FormulaPlan] = {}  # of each metric, and whether kernels compute it
        self._keys = {term.name: self.space.keys(term.name) for _, term in self.terms}
        self._make_curves(torch.device("cpu"))

    @classmethod
    def from_theta(
        cls,
        metric: str,
        theta: Any,
        num_classes: int,
        space: SearchSpace | str | None = None,
        parameterization: Family | None = None,
        **options: Any,
    ) -> Self:
        """From raw θ, what a controller proposes.

        Args:
            metric: as of the class.
            theta: (d,) numbers in [0, 1], `space.dim` of them.
            num_classes: C.
            space: what the numbers mean; None for the paper's space of the metric.
            parameterization: as of the class.
            options: others of the class.

        Raises:
            InputError: as the class, or θ that is none of the space.
        """
        space = _space(metric, space, parameterization)
        raw = space.check_theta(theta)
        if raw.ndim > 1:
            raise InputError("theta", f"{space.dim} numbers", f"shape {raw.shape}", "A loss is of one θ.")
        loss = cls(metric, num_classes, control_points=space.decode(raw), space=space, **options)
        loss.theta = raw  # exactly what was asked, not a round trip
        return loss

    @property
    def metric(self) -> str:
        """The metric as users type it."""
        return self.space.metric

    @property
    def replayable(self) -> bool:
        """Whether a CUDA graph can repeat a call: no value is looked at on the host."""
        return self.validate is not True

    @property
    def surrogate(self) -> SurrogateLoss:
        """Itself; a loss that mixes a surrogate with others has it here too."""
        return self

    @property
    def options(self) -> metrics.MetricOptions:
        """What the metric knows of the data."""
        return self.terms[0][1].options

    def extra_repr(self) -> str:
        """For print(model)."""
        return f"{self.metric}, space={self.space.name}, num_classes={self.options.num_classes}"

    # ---------------------------------------------------------------- curves as buffers

    def _make_curves(self, device: torch.device) -> None:
        parts = self.space.split(self.control_points)
        for name, spec in self.space.curves.items():
            slope = SCORE_MAX_SLOPE if name.split(".")[-1] == "score" else math.inf
            with torch.inference_mode(False):  # else a loss made while validating could never train
                curve = spec.coefficients(parts[name], max_slope=slope).to(device, widest(device))
            self.register_buffer(_buffer(name), curve, persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Moves with the model, but is made anew there: a half-precision curve would be another curve."""
        for name in self.space.curves:
            self._buffers[_buffer(name)] = self.curve(name).float()  # a device without float64 refuses to take one
        super()._apply(fn, recurse)
        for device in {self.curve(name).device for name in self.space.curves}:
            self._make_curves(device)
        return self

    def curve(self, name: str) -> Tensor:
        """(K, 6) coefficients of one of the space's curves, see `curves.evaluate`; float64, on an Apple GPU float32."""
        curve = self._buffers[_buffer(name)]
        assert curve is not None
        return curve

    # ---------------------------------------------------------------- forward

    def prepare(self, labels: Tensor) -> dict[str, Tensor]:
        """Nothing: it needs the labels alone. Every loss has it, as a training need not know which loss it has."""
        del labels
        return {}

    def set_progress(self, progress: float) -> None:
        """It does not change over a training."""
        del progress

    def forward(self, logits: Tensor, labels: Tensor, extra: dict[str, Tensor] | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            logits: (N, C, H, W) float; half precision is computed in float32. Gradients flow. (N, C, D, H, W) of
                volumes, each of which is one image to a metric that looks at each pixel by itself.
            labels: (N, H, W) integer, `ignore_index` for void; or soft labels (N, C, H, W) in [0, 1] with rows
                summing to 1, all 0 for void (see `soft_labels`); of volumes with D before H.
            extra: unused; every loss here takes it.

        Returns:
            0-d, float32 (float64 for float64 logits); 0 with zero gradient if the batch has nothing to count.

        Raises:
            InputError: shapes do not fit, volumes for a metric that looks at neighbours, or (see `validate`) an id out
                of range.
        """
        o = self.options
        check_shapes(logits, labels, o.num_classes)
        if logits.dim() == 5:
            for _, metric in self.terms:
                if metric.looks_around:
                    raise in_plane(metric.name)
        logits, labels = as_images(logits, channels=True), as_images(labels, channels=labels.is_floating_point())
        fused = self.fused and fits(logits, labels)
        # Kernels look at what they read; where a class is ignored, that is another id by then.
        if not (fused and by_kernels(logits) and self.validate == "auto" and o.void == o.ignore_index):
            check_labels(labels, o.num_classes, o.ignore_index, self.validate)
        if not labels.numel() and not (self.sync_counts and is_distributed()):  # no pixel to look around
            return logits.sum(dtype=logits.dtype if logits.dtype == torch.float64 else torch.float32)
        if not torch.compiler.is_compiling() and labels.is_inference() and not torch.is_inference_mode_enabled():
            labels = labels.clone()  # pseudo labels: the backward pass could not keep them
        if not labels.is_floating_point():
            labels = o.without_ignored(labels)
        with _without_autocast(logits.device.type):
            dtype = logits.dtype if logits.dtype == torch.float64 else torch.float32
            given = logits if fused else logits.to(dtype).softmax(1)
            parts = [_times(weight, self._term(metric, given, labels, fused)) for weight, metric in self.terms]
            return _times(self.loss_weight, sum(parts[1:], parts[0])).to(dtype)

    def _term(self, metric: Metric, given: Tensor, labels: Tensor, fused: bool) -> Tensor:
        """1 - surrogate of one metric, or 0 if nothing counts; `given` is logits for the fused pass, else softmax."""
        chosen = {key: self.curve(name) for key, name in self._keys[metric.name].items()}
        if not fused:
            soft = labels.is_floating_point()
            kind = SoftLabelLogic if soft else CurveLogic
            logic = kind(given, labels if soft else labels.long(), chosen, per_image=metric.per_image)
            return self._mean(metric, metric.sums(logic.pred, logic.label, logic))
        key = metric.name, by_kernels(given)
        plan = self._plans[key] = self._plans.get(key) or plan_formula(metric, kernels=key[1])
        ids = labels if plan.kernels else labels.long()  # kernels read any integers
        ignore = None if self.validate is False else self.options.void
        fast = FusedLogic(given, ids, chosen, metric.per_image, self.compiled, ignore)
        if plan.ratio is not None and not self.sync_counts:
            score = Score(plan.ratio, not self._all_count(metric), self.eps, self._score_curve(metric))
            value = fast.loss(plan, score)
            if value is not None:
                return value
        return self._mean(metric, fast.read(plan))

    def _mean(self, metric: Metric, sums: Sums) -> Tensor:
        """1 - mean score of totals, 0 if nothing counts; a kernel has it for scores that are one ratio."""
        if self.sync_counts:
            over_ranks = rows_of_ranks if metric.per_image else total_over_ranks
            sums = {key: over_ranks(value) for key, value in sums.items()}
        scores, curve = metric.scores(sums, self._ratio), self._score_curve(metric)
        if curve is not None:
            inside = scores.clamp(0, 1)  # beyond, where an own metric may be, the slope is 1: with 0 nothing is learnt
            scores = curves.evaluate(inside, curve) + (scores - inside)
        label = sums["label"]
        if self._all_count(metric) and type(metric).weights is Metric.weights:  # a plain mean, in 8 operations less
            return (1 - scores.mean()).masked_fill(label.sum() <= 0, 0.0)
        weights = metric.weights(sums).to(scores.dtype)
        if label.shape == weights.shape and not self._all_count(metric):
            weights = weights * (label > 0)
        whole = weights.sum()
        mean = (scores * weights).sum() / whole.clamp_min(torch.finfo(whole.dtype).tiny)  # of nothing: 0
        return (1 - mean).masked_fill(torch.minimum(whole, label.sum()) <= 0, 0.0)

    def _all_count(self, metric: Metric) -> bool:
        """Whether classes that the labels lack count too."""
        return metric.absent_rule and self.absent == "include"

    def _score_curve(self, metric: Metric) -> Tensor | None:
        return None if self.space.score is None else self.curve(self.space.qualified(metric.name, "score"))

    def _ratio(self, numerator: Tensor, denominator: Tensor, empty: float = math.nan) -> Tensor:
        value = numerator / (denominator + self.eps)
        return value if empty == 0 or math.isnan(empty) else value.where(denominator != 0, empty)


def _space(metric: str, space: SearchSpace | str | None, parameterization: Family | None) -> SearchSpace:
    """The space of a metric's curves that is meant; errors as of `SurrogateLoss`."""
    metrics.parse(metric)  # before the space, whose message would not be of the metric
    if isinstance(space, SearchSpace):
        if parameterization not in (None, space.curve.family):
            raise InputError("parameterization", f"{space.curve.family}, as of the space", parameterization)
    else:
        space = build_space(space or metric, parameterization, metric=metric)
    space = space if space.metric == metric else space.bound_to(metric)
    if space.loss != "surrogate":
        raise InputError("space", "curves alone", f"the loss {space.loss!r}", "autoseg.losses.searched_loss builds it.")
    return space


def _times(weight: float, value: Tensor) -> Tensor:
    """Their product; on a GPU each operation on a single number costs as much to start as one on a million."""
    return value if weight == 1 else weight * value


def _without_autocast(kind: str) -> AbstractContextManager[Any]:
    """Entering a context costs as much as two operations: not where autocast is off, as in a training of ours."""
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _buffer(curve: str) -> str:
    return "curve_" + curve.replace(".", "_")
