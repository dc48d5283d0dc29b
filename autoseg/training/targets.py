"""The targets of a training: the labels themselves, or soft labels computed from them (`proxy.labels`, `train.labels`).

There is one class per kind. It turns the images and labels of an augmented batch into the targets of the loss:
(N, C, H, W) float32 whose rows sum to 1, an all-zero row being ignored; or, where every target is certain, plain
ids (N, H, W), which every loss takes. Scores are not affected: predictions are scored against the hard labels.

Distillation: Hinton et al. 2015, arXiv 1503.02531. EMA teacher: Tarvainen and Valpola, NeurIPS 2017. Boundary label
smoothing and soft labels for region losses: Wang et al., NeurIPS 2023, arXiv 2302.05666.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from autoseg.config import LabelConfig, SoftLabelConfig
from autoseg.data import vote_shares
from autoseg.data.source import IGNORE
from autoseg.errors import InputError
from autoseg.losses.base import SegLoss
from autoseg.losses.smoothing import label_boundary
from autoseg.metrics.maps import one_hot
from autoseg.training.models import Features
from autoseg.training.precision import Precision
from autoseg.training.weights import load_network

SOFT = ("smooth", "boundary_smooth", "distill", "annotators")  # kinds whose targets are (N, C, H, W)
CONSTANTS = {"class_weight", "shape_encoder"}  # extra inputs that are no maps: computed from the labels there are
UNLABELLED = 254  # marks withheld labels, which the teacher's prediction replaces


class Targets:
    """Hard labels: the masks, unchanged.

    Attributes:
        replayable: whether its work for two batches differs in tensors alone; see `training.cuda_graph`.
    """

    replayable: ClassVar[bool] = True

    def __call__(self, images: Tensor | Features, labels: Tensor) -> Tensor:
        """Return the targets of a batch.

        Args:
            images: (N, 3, H, W) float32, normalised; or their features, if no teacher needs images.
            labels: (N, H, W) int64, 255 for void; (N, R, H, W) for several annotators.

        Returns:
            (N, C, H, W) float32 or (N, H, W) int64, without gradient.
        """
        del images
        return labels

    def follow(self, model: nn.Module) -> None:
        """Update the state after an optimiser step, from the network that took it."""
        del model

    def state(self) -> dict[str, Tensor]:
        """Return the state that these steps have built, from which a new object can go on (see `training.state`)."""
        return {}

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Load what `state` returned."""
        del kept


class Smooth(Targets):
    """Label smoothing: (1 - eps) y + eps / C everywhere."""

    def __init__(self, num_classes: int, eps: float) -> None:
        self.num_classes, self.eps = num_classes, eps

    def __call__(self, images: Tensor | Features, labels: Tensor) -> Tensor:
        """See `Targets`."""
        del images
        return self._smoothed(labels, (labels != IGNORE).float())

    def _smoothed(self, labels: Tensor, where: Tensor) -> Tensor:
        share = (self.eps * where).unsqueeze(1)
        return one_hot(labels, self.num_classes) * (1 - share) + share / self.num_classes


class BoundarySmooth(Smooth):
    """Label smoothing only where classes meet: at pixels whose window has another class and no ignored pixel."""

    def __init__(self, num_classes: int, eps: float, width: int) -> None:
        super().__init__(num_classes, eps)
        self.width = width

    def __call__(self, images: Tensor | Features, labels: Tensor) -> Tensor:
        """See `Targets`."""
        del images
        return self._smoothed(labels, label_boundary(labels, labels != IGNORE, self.width))


class Annotators(Targets):
    """The share of the annotators that chose each class, among those who chose one."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes

    def __call__(self, images: Tensor | Features, labels: Tensor) -> Tensor:
        """See `Targets`."""
        del images
        return vote_shares(labels, self.num_classes)


class TeacherTargets(Targets):
    """Base of targets that use a second network's predictions: (N, C, H, W) probabilities, in evaluation mode."""

    def __init__(self, teacher: nn.Module, precision: Precision) -> None:
        self.teacher = teacher.to(memory_format=precision.layout).eval().requires_grad_(False)
        self.precision = precision

    def _probs(self, images: Tensor | Features, temperature: float = 1.0) -> Tensor:
        with torch.no_grad(), self.precision.autocast():
            logits = self.teacher(images.to(memory_format=self.precision.layout))[0]
        return (logits.float() / temperature).softmax(1)


class Distilled(TeacherTargets):
    """Distillation: (1 - weight) y + weight softmax(teacher's logits / temperature); void stays void."""

    def __init__(self, teacher: nn.Module, precision: Precision, weight: float, temperature: float) -> None:
        super().__init__(teacher, precision)
        self.weight, self.temperature = weight, temperature

    def __call__(self, images: Tensor | Features, labels: Tensor) -> Tensor:
        """See `Targets`."""
        probs = self._probs(images, self.temperature)
        taught = self.weight * probs * (labels != IGNORE).unsqueeze(1)
        return (1 - self.weight) * one_hot(labels, probs.shape[1]) + taught


class PseudoLabels(TeacherTargets):
    """Pseudo-labels: where labels were withheld, the confident predictions of the student's moving average.

    Else the label.

    The teacher's weights and batch statistics are an average over the student's steps, a plain mean at first and
    then with `momentum`. Where its confidence is below the threshold, the pixel is ignored.
    """

    replayable = False  # the average's weight is a number that changes on the host

    def __init__(self, teacher: nn.Module, precision: Precision, momentum: float, confidence: float) -> None:
        super().__init__(teacher, precision)
        self.momentum, self.confidence, self.steps = momentum, confidence, 0

    def __call__(self, images: Tensor | Features, labels: Tensor) -> Tensor:
        """See `Targets`; returns ids, since every pseudo-label is one class."""
        confidence, guess = self._probs(images).max(1)
        guess = torch.where(confidence >= self.confidence, guess, IGNORE)
        return torch.where(labels == UNLABELLED, guess, labels)

    def follow(self, model: nn.Module) -> None:
        """See `Targets`."""
        self.steps += 1
        momentum = min(self.momentum, 1 - 1 / self.steps)
        with torch.no_grad():
            for mine, theirs in zip(self.teacher.state_dict().values(), model.state_dict().values(), strict=True):
                if mine.is_floating_point():
                    mine.lerp_(theirs, 1 - momentum)
                else:
                    mine.copy_(theirs)  # counters

    def state(self) -> dict[str, Tensor]:
        """See `Targets`."""
        return {**self.teacher.state_dict(), "steps": torch.tensor(self.steps)}

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """See `Targets`."""
        self.steps = int(kept["steps"])
        self.teacher.load_state_dict({name: value for name, value in kept.items() if name != "steps"})


def build_targets(
    labels: str, soft: LabelConfig, num_classes: int, model: nn.Module, precision: Precision, group: str = "proxy"
) -> Targets:
    """Build the targets of one kind.

    Args:
        labels: the kind: `proxy.labels` or `train.labels`.
        soft: its options.
        num_classes: C.
        model: the untrained network; teachers are copies of it.
        precision: number format of a teacher.
        group: the group of settings in which the user named them.

    Raises:
        InputError: too many classes, or a teacher's file that does not exist or does not fit the network.
    """
    match labels:
        case "smooth":
            return Smooth(num_classes, 0.1 if soft.eps is None else soft.eps)
        case "boundary_smooth":
            return BoundarySmooth(num_classes, 0.5 if soft.eps is None else soft.eps, soft.width)
        case "annotators":
            return Annotators(num_classes)
        case "distill":
            return _distilled(soft, copy.deepcopy(model), precision, f"{group}.soft.teacher")
        case "pseudo":
            if num_classes > UNLABELLED:
                expected = f"another use than pseudo with more than {UNLABELLED} classes"
                raise InputError(f"{group}.labels", expected, num_classes)
            assert isinstance(soft, SoftLabelConfig)
            return PseudoLabels(copy.deepcopy(model), precision, soft.momentum, soft.confidence)
        case "hard":
            return Targets()
    raise NotImplementedError(labels)


def check_loss(loss: nn.Module, labels: str, field: str = "loss", group: str = "proxy") -> None:
    """Raise if a hand-made loss cannot take the targets; other losses must check them when they are called.

    Args:
        loss: the loss to train with.
        labels: `proxy.labels` or `train.labels`.
        field: the argument in which the user named the loss.
        group: the group of settings in which the labels are named.

    Raises:
        InputError: the targets are soft and the loss, or one of a sum, takes ids only; or labels are withheld and
            it needs maps computed from all of them.
    """
    for part in loss.modules():
        if not isinstance(part, SegLoss):
            continue
        if labels in SOFT and (part.multilabel or not part.soft_labels):  # multilabel ones have no void pixels
            hint = "Made for soft labels: jml, dml, ctl, ce, mse and every surrogate: try [identity,ce,jml]."
            raise InputError(field, f"one that takes soft labels, for {group}.labels={labels}", part.name, hint)
        if labels == "pseudo" and set(part.extra_keys) - CONSTANTS:
            hint = "Its maps are made of labels, and proxy.labels=pseudo withholds some."
            raise InputError(field, "one that needs no maps of the labels", part.name, hint)


def withhold(labels: Tensor, rows: Tensor, kept: float) -> Tensor:
    """Return a copy of the labels in which all but a share of the images lose theirs.

    Args:
        labels: (N, H, W) uint8.
        rows: (M,) int64 CPU indices of the images trained on.
        kept: share of these that keep their labels, at least one image; always the same ones.

    Returns:
        (N, H, W) uint8, `UNLABELLED` where a label was; void stays void.
    """
    count = max(1, round(kept * len(rows)))
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    hidden = rows[order[count:]].to(labels.device)
    result = labels.clone()
    result[hidden] = torch.where(labels[hidden] == IGNORE, IGNORE, UNLABELLED).to(labels.dtype)
    return result


def _distilled(soft: LabelConfig, teacher: nn.Module, precision: Precision, key: str) -> Distilled:
    if soft.teacher is None:
        hint = f"Train one first: autoseg retrain run_dir=DIR ..., then {key}=DIR."
        raise InputError(key, "weights of the same network", "none", hint)
    load_network(teacher, soft.teacher, key)
    return Distilled(teacher, precision, soft.weight, soft.temperature)
