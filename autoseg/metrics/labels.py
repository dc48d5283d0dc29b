"""What logits and labels must be, looked at once before a metric or a loss counts them: labels are wrong more often."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from autoseg.errors import InputError

Validate = Literal["auto"] | bool
UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # torch stores them, and can do little with them
ONE_LOGIT = (  # for who has a foreground's logit alone
    "The background is a class too: a single logit z per pixel becomes two classes by "
    "torch.cat([torch.zeros_like(z), z], 1), whose softmax is z's sigmoid."
)
SLICES = "Give the slices as images: logits.movedim(2, 1).flatten(0, 1), labels.flatten(0, 1)."
SEVERAL = (  # deep supervision
    "Call the loss for each output, upsampled to the labels, and add them up: "
    "sum(w * loss(z, labels) for w, z in zip(weights, outputs))."
)
UNLABELLED = -100  # what torch's cross-entropy ignores
SAVED = 255  # a foreground in image files, and by custom void in labels
LEAST_IMAGES = 8  # with void pixels, before a whole evaluation without a foreground is remarkable
ROW_SUM_TOLERANCE = 1e-2  # soft labels that went through bf16 are off by this much


def check_tensors(**given: object) -> None:
    """Raises `InputError` of what is no tensor, such as a model's whole dict of outputs."""
    for name, value in given.items():
        if not isinstance(value, Tensor):
            hint = f"Pass one of its values: {', '.join(map(repr, value))}." if isinstance(value, Mapping) else ""
            hint = SEVERAL if isinstance(value, list | tuple) and name == "logits" else hint
            raise InputError(name, "a tensor", type(value).__name__, hint)


def check_shapes(logits: Tensor, labels: Tensor, num_classes: int) -> None:
    """Raises `InputError` unless shapes and dtypes of logits and labels, hard or soft, belong together.

    Both are of images, (N, C, H, W), or of volumes, (N, C, D, H, W).
    """
    check_tensors(logits=logits, labels=labels)
    if logits.dim() not in (4, 5) or not logits.is_floating_point() or logits.shape[1] != num_classes:
        expected = f"float of shape (N, {num_classes}, H, W) or, of volumes, (N, {num_classes}, D, H, W)"
        one = logits.dim() in (4, 5) and logits.shape[1] == 1
        each = ONE_LOGIT if num_classes == 2 else "Each class has its own logit, the background too."
        hint = each if one else ""
        raise InputError("logits", expected, f"{logits.dtype} of shape {tuple(logits.shape)}", hint)
    n, c, *sides = logits.shape
    if tuple(labels.shape) != ((n, c, *sides) if labels.is_floating_point() else (n, *sides)):
        expected = f"integer of shape {(n, *sides)} or float of shape {(n, c, *sides)}, as the logits are"
        got = f"{labels.dtype} of shape {tuple(labels.shape)}"
        raise InputError("labels", expected, got, hint_at_shapes(logits, labels))


def hint_at_shapes(logits: Tensor, labels: Tensor) -> str:
    """What to do about labels whose shape or dtype does not fit logits (N, C, [D,] H, W); empty if that is unclear."""
    n, c, *sides = logits.shape
    shape = list(labels.shape)
    if shape == [n, *sides]:
        return "Pass labels.long()."
    if shape == [n, 1, *sides]:
        return "Pass labels.squeeze(1).long()."
    if shape in ([n, c, *sides], [n, *sides, c]) and not labels.is_floating_point():
        return f"If they are one-hot, pass labels.argmax({1 if shape == [n, c, *sides] else -1})."
    if len(sides) == 2 and shape[-2:] != sides and shape[:-2] == ([n, c] if labels.is_floating_point() else [n]):
        return "Upsample the logits: F.interpolate(logits, labels.shape[-2:], mode='bilinear')."
    return ""


def as_images(maps: Tensor, channels: bool) -> Tensor:
    """A volume is a tall image to whoever looks at each pixel by itself: its slices, one below the other.

    Args:
        maps: (N, C, [D,] H, W) with `channels`, else (N, [D,] H, W).
        channels: whether there is a dimension of classes.

    Returns:
        (N, C, H, W) or (N, H, W), where H may be D times H.
    """
    first = 2 if channels else 1
    return maps.flatten(first, -2) if maps.dim() == first + 3 else maps


def in_plane(name: str, hint: str = SLICES) -> InputError:
    """What a loss or a metric that looks at neighbours raises of volumes."""
    return InputError(f"input of {name}", "images, since it looks at neighbours in the plane", "volumes", hint)


def check_labels(
    labels: Tensor, num_classes: int, ignore_index: int, validate: Validate, multilabel: bool = False
) -> None:
    """Looks at the values of hard or soft labels.

    Args:
        labels: (N, H, W) integer, or (N, C, H, W) float.
        num_classes: C.
        ignore_index: the id of pixels that do not count.
        validate: "auto" checks on the eager CPU, asserts on CUDA without waiting for it, and trusts under
            `torch.compile`; True raises everywhere; False trusts.
        multilabel: float labels are C independent masks, whose rows need not sum to 1.

    Raises:
        InputError: an id that is neither a class nor `ignore_index`, or rows that are no probabilities.
    """
    if validate is False or (validate == "auto" and torch.compiler.is_compiling()):
        return
    soft = labels.is_floating_point()
    if validate == "auto" and labels.device.type == "cuda":
        wrong = _wrong_rows(labels, multilabel) if soft else _wrong_ids(labels, num_classes, ignore_index)
        torch._assert_async(~wrong.any(), "labels are neither classes, nor ignored, nor probabilities")
    elif validate is True or labels.device.type == "cpu":
        if soft:
            _check_soft(labels, multilabel)
        else:
            check_ids(labels, "labels", num_classes, ignore_index)


def check_ids(ids: Tensor, what: str, num_classes: int, ignore_index: int | None = None) -> None:
    """Raises `InputError` if any id is no integer, or neither a class nor `ignore_index`."""
    if ids.is_floating_point():
        raise InputError(what, "integer class ids", f"{ids.dtype}", "Pass argmax(1) of logits, or .long().")
    if ids.dtype in UNSIGNED:
        raise InputError(what, "integers that torch compares", f"{ids.dtype}", "Pass .long().")
    wrong = _wrong_ids(ids, num_classes, ignore_index)
    if wrong.any():
        found = sorted(set(ids[wrong].unique().tolist()))[:5]
        also = "" if ignore_index is None else f" or ignore_index {ignore_index}"
        hint = "Check num_classes and how the masks were made"
        hint += f", or pass ignore_index={UNLABELLED}." if UNLABELLED in found and ignore_index is not None else "."
        raise InputError(what, f"class ids 0 to {num_classes - 1}{also}", f"also {', '.join(map(str, found))}", hint)


def _wrong_ids(ids: Tensor, num_classes: int, ignore_index: int | None) -> Tensor:
    if ids.dtype != torch.bool and num_classes > torch.iinfo(ids.dtype).max:  # 8 bits would compare with another number
        ids = ids.long()
    wrong = (ids < 0) | (ids >= num_classes)
    if ignore_index is not None:
        wrong &= ids.long() != ignore_index  # 8 bits would make another number of one they do not hold
    return wrong


def _check_soft(labels: Tensor, multilabel: bool) -> None:
    if _wrong_rows(labels, multilabel).any():
        rows = "" if multilabel else " whose rows sum to 1, or to 0 where ignored"
        sums = labels.sum(1, dtype=torch.float32)
        got = f"values from {labels.min():.4g} to {labels.max():.4g}, sums from {sums.min():.4g} to {sums.max():.4g}"
        raise InputError("soft labels", f"probabilities{rows}", got)


def _wrong_rows(labels: Tensor, multilabel: bool) -> Tensor:
    """(N, H, W) bool."""
    wrong = ~((labels >= 0) & (labels <= 1)).all(1)
    if multilabel:
        return wrong
    sums = labels.sum(1, dtype=torch.float32)
    return wrong | ~((sums - 1).abs().le(ROW_SUM_TOLERANCE) | (sums == 0))


class SavedMasks:
    """Notes whether masks are files of 0 and 255, whose foreground an `ignore_index` of 255 takes out of the score.

    Then all background is a perfect prediction. Void pixels of ordinary data look otherwise: they pad an image from its
    border, or lie around objects that are labelled. So it is noted what a whole evaluation has seen.
    """

    def __init__(self) -> None:
        self._foreground, self._voided, self._inside = False, 0, False

    def note(self, labels: Tensor) -> None:
        """Looks at a batch, (N, H, W) ids of two classes; no more once a foreground was seen."""
        if self._foreground or not labels.numel():
            return
        self._foreground = bool((labels == 1).any())
        if not self._foreground:
            void = labels == SAVED
            border = torch.cat([void[:, 0], void[:, -1], void[:, :, 0], void[:, :, -1]], 1).any(1)
            somewhere = void.flatten(1).any(1)
            self._voided += int(somewhere.sum())
            self._inside |= bool((somewhere & ~border).any())

    def add(self, other: SavedMasks) -> None:
        """Adds what another instance has seen."""
        self._foreground |= other._foreground
        self._voided += other._voided
        self._inside |= other._inside

    def warn(self) -> None:
        """Warns once a process, if there is reason to."""
        if not self._foreground and self._inside and self._voided >= LEAST_IMAGES:
            _warn_of_saved_masks()


@cache
def _warn_of_saved_masks() -> None:
    seen = (
        f"no label is 1, and many are {SAVED}, the ignore_index: of masks saved as 0 and {SAVED} no foreground counts"
    )
    warnings.warn(f"{seen}. Pass (mask > 0).long() as labels, or another ignore_index.", stacklevel=4)
