"""Warnings about oddities of a data set that are no errors, printed before a training."""

from __future__ import annotations

import torch

from autoseg.config import DataConfig, ProxyConfig
from autoseg.data.decode import header
from autoseg.data.folder import IMAGE_SUFFIXES, lone_masks, open_folder
from autoseg.data.holdout import split_holdout
from autoseg.data.segdata import SegData
from autoseg.data.source import check_present
from autoseg.errors import InputError

KEPT = 0.9  # of an image's height; scaled to less, it is clearly smaller


def remarks_on(data: SegData, config: DataConfig, crop: int, scored: str = "train") -> list[str]:
    """Return a sentence for each oddity.

    Args:
        data: the data as it is trained on.
        config: its configuration.
        crop: side of the square training crops, pixels.
        scored: the split on which trainings are scored; "train": on the part of it that a search holds out.

    Raises:
        InputError: fewer than two classes have a pixel in the training labels, or in those of the scored images.
    """
    texts, labels = [], data.labels("train")
    counts = torch.bincount(labels.flatten(), minlength=256).tolist()
    check_present(counts, data.classes, config.ignore_index)
    if missing := [name for name, count in zip(data.classes, counts, strict=False) if not count]:
        text = f"no training image has a pixel of {', '.join(missing)}"
        if counts[data.ignore_index]:
            ignored = f"if {config.ignore_index} stands for a class in your masks, write its id there instead"
            text += f"; {ignored}: it is ignored"
        texts.append(text)
    texts += _unscored(data, config, scored, counts)
    if alone := lone_masks(config):
        kinds = ", ".join(IMAGE_SUFFIXES)
        texts.append(f"masks without an image are left out: {len(alone)}, as {alone[0]}; images end in {kinds}")
    texts += _shrunk(data, config)
    height, width = labels.shape[-2:]
    if crop > max(height, width):
        padding = 1 - height * width / crop**2
        texts.append(
            f"crops of {crop} pixels of images of {height}x{width} are {padding:.0%} padding: lower proxy.crop"
        )
    return texts


def _shrunk(data: SegData, config: DataConfig) -> list[str]:
    """Return a remark if the default size, which nobody chose for these images, makes them clearly smaller."""
    size = list(data.images("train").shape[-2:])
    if config.kind != "folder" or size != ProxyConfig().size:
        return []
    first = open_folder(config).items["train"][0].image
    with header(first) as image:
        width, height = image.size
    inner_height, inner_width = data.sizes("train")[0].tolist()
    if inner_height > KEPT * height:
        return []
    at = f"{inner_height}x{inner_width}, where tolerance counts"
    keep = f"proxy.size=[{height},{width}] keeps their size"
    return [f"images of {height}x{width}, as {first.name}, are trained on and scored at {at}: {keep}"]


def _unscored(data: SegData, config: DataConfig, scored: str, counts: list[int]) -> list[str]:
    """Return a warning about classes that are trained on, by their pixel `counts`, but occur in no scored image."""
    labels, which = data.labels(scored), f"{scored} image"
    if scored == "train":
        labels, which = labels[split_holdout(len(labels), config.holdout)[1]], "held-out image"
    there = torch.bincount(labels.flatten(), minlength=256).tolist()[: len(data.classes)]
    if sum(map(bool, there)) < 2:
        found = [name for name, count in zip(data.classes, there, strict=True) if count]
        hint = "More images, another data.holdout or other names, by whose order images are held out, may help."
        got = f"pixels of {found[0]} alone" if found else "none"
        raise InputError(f"masks of the {which}s", "pixels of at least two classes", got, hint)
    missing = [name for name, count, trained in zip(data.classes, there, counts, strict=False) if trained and not count]
    return [f"no {which} has a pixel of {', '.join(missing)}: it is trained on and not scored"] if missing else []
