"""Warnings about oddities of a data set that are no errors, printed before a training."""

from __future__ import annotations

from pathlib import Path

import torch

from autoseg.config import DataConfig, ProxyConfig
from autoseg.data.decode import colour_bands, header
from autoseg.data.folder import IMAGE_SUFFIXES, files_in, lone_masks
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
    texts += _of_the_files(data, config)
    height, width = labels.shape[-2:]
    if crop > max(height, width):
        padding = 1 - height * width / crop**2
        texts.append(
            f"crops of {crop} pixels of images of {height}x{width} are {padding:.0%} padding: lower proxy.crop"
        )
    return texts


def _of_the_files(data: SegData, config: DataConfig) -> list[str]:
    """Return remarks on what is lost of the images of a folder, by the header of the first."""
    if config.kind != "folder" or config.root is None:
        return []
    first = files_in(Path(config.root).expanduser() / config.img_dir / config.train_split, IMAGE_SUFFIXES)[0]
    with header(first) as image:
        width, height = image.size
        bands = colour_bands(image)
    texts = []
    if bands not in (1, 3):
        read = "the first three are" if bands > 3 else "the first is"
        texts.append(f"images of {bands} bands, as {first.name}: only {read} trained on")
    inner_height, inner_width = data.sizes("train")[0].tolist()
    if list(data.images("train").shape[-2:]) == ProxyConfig().size and inner_height < KEPT * height:
        at = f"{inner_height}x{inner_width}, where tolerance counts"  # by a size that nobody chose for them
        keep = f"proxy.size=[{height},{width}] keeps their size"
        texts.append(f"images of {height}x{width}, as {first.name}, are trained on and scored at {at}: {keep}")
    return texts


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
