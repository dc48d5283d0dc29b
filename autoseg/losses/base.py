"""What all hand-made losses share: one signature, one look at the labels, one rule for empty batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from autoseg.errors import InputError
from autoseg.kinds import CheckedArguments
from autoseg.losses.batch import Batch, check_batch
from autoseg.metrics.base import MetricOptions
from autoseg.metrics.labels import ONE_LOGIT, Validate, as_images, check_shapes, check_tensors, in_plane
from autoseg.surrogates.ranks import is_distributed


class SegLoss(CheckedArguments, nn.Module, ABC):
    """A segmentation loss: logits (N, C, H, W), of volumes (N, C, D, H, W), and labels to one finite scalar.

    A subclass writes `compute`, and `prepare` if it needs more than the batch's labels. Nothing countable in
    the batch (every pixel ignored, or none there) gives exactly 0 with zero gradient.

    Args:
        num_classes: C, the background included; 1 where `multilabel` alone.
        ignore_index: id of the pixels that do not count.
        validate: when label values are checked; see `metrics.labels.check_labels`.

    Attributes:
        name: what users type.
        summary: one line for `autoseg losses`.
        source: where the definition comes from.
        soft_labels: it takes (N, C, H, W) float labels.
        pointwise: it looks at each pixel by itself, so that volumes are images to it, their slices one below the other;
            others refuse them.
        extra_keys: what `compute` reads of `batch.extra`, which `prepare` has made.
        multilabel: it takes a sigmoid per class, and float labels are C independent masks.
        sync_counts: sums and counts run over all ranks of a distributed training; see `ranks.sync_counts`.
        rank_local: it cannot do so, because it needs more of a batch than sums.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str] = "your own"
    soft_labels: ClassVar[bool] = False
    pointwise: ClassVar[bool] = False
    extra_keys: tuple[str, ...] = ()
    multilabel: bool = False
    sync_counts: bool = False
    rank_local: bool = False

    @property
    def replayable(self) -> bool:
        """Whether a CUDA graph can repeat a call: no value is looked at on the host, or kept there as progress is."""
        return self.validate is not True

    def __init__(self, num_classes: int, *, ignore_index: int = 255, validate: Validate = "auto") -> None:
        super().__init__()
        MetricOptions(num_classes, ignore_index)  # refuses them alike
        self.num_classes, self.ignore_index, self.validate = num_classes, ignore_index, validate

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Moves with the model, but keeps its weights: half precision would round them, or make them infinite."""
        given = {name: kept for name, kept in self._buffers.items() if kept is not None and not kept.is_meta}
        super()._apply(fn, recurse)
        for name, buffer in given.items():
            self._buffers[name] = buffer.to(self.get_buffer(name).device)
        return self

    def check_classes(self) -> None:
        """Raises `InputError` of one class under a softmax, which is 1 whatever the network says: no gradient."""
        if self.num_classes == 1 and not self.multilabel:
            raise InputError(f"num_classes of {self.name}", "two classes or more", 1, ONE_LOGIT)

    @abstractmethod
    def compute(self, batch: Batch) -> Tensor:
        """The loss of a checked batch, a scalar. Must stay finite where no pixel is valid."""

    def prepare(self, labels: Tensor) -> dict[str, Tensor]:
        """What the loss needs beside the labels, computed once with the data.

        Args:
            labels: (N, H, W) integer, on the CPU: a batch, or all labels of a data set.

        Returns:
            Maps of shape (N, K, H, W), to be cropped and flipped with the images, and constants of the data
            set of shape (K,). Empty for most losses. Without them (`extra=None`) a loss that needs them
            prepares them from the batch it is given: right, but slow.
        """
        del labels
        return {}

    def extra_shapes(self, batch: Batch) -> Mapping[str, tuple[int, ...]]:
        """The shapes that `extra` must have for this batch; keys without one are the loss's own affair."""
        del batch
        return {}

    def set_progress(self, progress: float) -> None:
        """Tells a loss that changes over training how far it is, 0 at the start and 1 at the end."""
        del progress

    def forward(self, logits: Tensor, labels: Tensor, extra: Mapping[str, Tensor] | None = None) -> Tensor:
        """Returns the loss.

        Args:
            logits: (N, C, H, W), any float dtype; computed in float32, or float64 if given that. (N, C, D, H, W) where
                `pointwise`.
            labels: (N, H, W) integer, or (N, C, H, W) float where `soft_labels`; of volumes with D before H.
            extra: what `prepare` returned, for these pixels.

        Returns:
            A scalar, float32 or float64; differentiable in the logits.

        Raises:
            InputError: labels or extra that do not fit; one class under a softmax; volumes for a loss that looks at
                neighbours.
        """
        self.check_classes()
        check_shapes(logits, labels, self.num_classes)
        if logits.dim() == 5 and not self.pointwise:
            raise in_plane(self.name)
        logits, labels = as_images(logits, channels=True), as_images(labels, channels=labels.is_floating_point())
        if labels.is_floating_point() and not (self.soft_labels or self.multilabel):
            hint = "Losses made for soft labels: jml, dml, ctl, ce, mse."
            raise InputError(f"labels of {self.name}", "integer ids (N, H, W)", "soft labels", hint)
        # Autocast would send convolutions and products back to half precision.
        with torch.autocast(logits.device.type, enabled=False):
            batch = check_batch(
                logits,
                labels,
                num_classes=self.num_classes,
                ignore_index=self.ignore_index,
                validate=self.validate,
                multilabel=self.multilabel,
            )
            # No pixel: nothing that a formula could stack or rank. Other ranks may have some.
            if not labels.numel() and not (self.sync_counts and is_distributed()):
                return batch.logits.sum()
            prepared = self._extra(batch, labels, extra) if self.extra_keys else {}
            batch = replace(batch, extra=prepared, sync=self.sync_counts)
            value = self.compute(batch)
            if not isinstance(value, Tensor) or value.dim():
                got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise InputError(f"compute() of {self.name}", "a scalar tensor as its result", got)
            return torch.where(batch.total(batch.valid) > 0, value, torch.zeros_like(value))

    def _extra(self, batch: Batch, labels: Tensor, extra: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """The prepared inputs on the logits' device and in their dtype."""
        shapes = self.extra_shapes(batch)
        if extra is None and not labels.numel():  # of no image: there is nothing to stack
            given: Mapping[str, Tensor] = {key: batch.logits.new_zeros(shape) for key, shape in shapes.items()}
        else:
            given = self.prepare(labels.detach().cpu()) if extra is None else extra
        hint = "Pass what loss.prepare(labels) returned, cropped and flipped like the image."
        if not isinstance(given, Mapping):
            raise InputError(f"extra of {self.name}", " and ".join(self.extra_keys), type(given).__name__, hint)
        if missing := [key for key in self.extra_keys if key not in given]:
            raise InputError(f"extra of {self.name}", " and ".join(missing), sorted(given), hint)
        check_tensors(**{f"extra {key!r} of {self.name}": given[key] for key in self.extra_keys})
        for key, shape in shapes.items():
            if given[key].shape != shape:
                got = tuple(given[key].shape)
                raise InputError(f"extra of {self.name}", f"{key} of shape {tuple(shape)}", got, hint)
        return {key: given[key].to(batch.logits) for key in self.extra_keys}


def check_id_maps(labels: object) -> None:
    """Raises `InputError` unless labels are an (N, H, W) integer tensor, as `SegLoss.prepare` takes them."""
    if not isinstance(labels, Tensor) or labels.dim() != 3 or labels.is_floating_point():
        got = f"{labels.dtype} of shape {(*labels.shape,)}" if isinstance(labels, Tensor) else type(labels).__name__
        hint = "Of one mask: prepare(mask[None]), of whose maps [0] belongs to it."
        if isinstance(labels, Tensor) and labels.dim() == 4:
            hint = "Of volumes, their slices: labels.flatten(0, 1)."
        raise InputError("labels of prepare()", "an integer tensor of shape (N, H, W)", got, hint)


def class_vector(values: Iterable[float], num_classes: int, field: str) -> Tensor:
    """One non-negative number per class as a (C,) float32 tensor.

    Raises:
        InputError: wrong count, negative or not finite.
    """
    vector = torch.as_tensor(list(values), dtype=torch.float32, device="cpu")  # whatever the default device is
    if vector.shape != (num_classes,) or not bool(((vector >= 0) & vector.isfinite()).all()):
        raise InputError(field, f"{num_classes} non-negative numbers, one per class", vector.tolist())
    return vector


def check_range(field: str, value: object, low: float, high: float, *, open_low: bool = False) -> float:
    """Returns `value` as a float if it lies in [low, high], or in (low, high] with `open_low`.

    Raises:
        InputError: outside, or no number.
    """
    if not isinstance(value, bool) and isinstance(value, Real):
        number = float(value)
        if low < number <= high or (number == low and not open_low):
            return number
    raise InputError(field, f"a number in {'(' if open_low else '['}{low:g}, {high:g}]", repr(value))
