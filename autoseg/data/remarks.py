"""Warnings about oddities of a data set that are no errors, printed before a training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from autoseg.config import DataConfig, ProxyConfig, TrainConfig
from autoseg.data.builtin import SIDE
from autoseg.data.decode import colour_bands, header, opened
from autoseg.data.folder import IMAGE_SUFFIXES, JPEG, folder_of, images_of, lone_masks
from autoseg.data.holdout import group_of, split_holdout
from autoseg.data.masks import in_colours
from autoseg.data.segdata import SegData
from autoseg.data.source import check_present, if_a_class
from autoseg.errors import InputError

KEPT = 0.9  # of an image's height; scaled to less, it is clearly smaller
NAMED = 5  # groups at most
LOOKED_AT, OPENED = 1000, 20  # masks at most, of which the headers are read; of which the pixels are
PADDED_CROPS, PADDED_FRAMES = 0.25, 0.1  # shares that nobody would choose


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
    labels = data.labels("train")
    counts = torch.bincount(labels.flatten(), minlength=256).tolist()
    check_present(counts, data.classes, None if config.ids or config.kind != "folder" else config.ignore_index)
    texts = remarks_on_files(config, data.classes, counts, ignored=bool(counts[data.ignore_index]))
    texts += _unscored(data, config, scored, counts)
    texts += of_the_groups(data.names("train"), config) if scored == "train" else []
    return [*texts, *_of_the_crops(data, crop), *_of_the_frames(data, config)]


def remarks_on_files(
    config: DataConfig, classes: Sequence[str], counts: Sequence[int], ignored: bool = False
) -> list[str]:
    """Return a sentence for each oddity that does not depend on how images are trained on.

    Args:
        config: the configuration of the data.
        classes: names of the C classes.
        counts: training pixels of each class, at least C numbers.
        ignored: whether some pixels are ignored.
    """
    texts = []
    void = [] if config.ids else [config.ignore_index, *config.ignored_ids]
    absent = [index for index in range(len(classes)) if not counts[index] and index not in void]
    if missing := [classes[index] for index in absent]:
        text = f"no training image has a pixel of {', '.join(missing)}"
        if ignored and config.kind == "folder" and not config.ids:
            text += f"; {if_a_class(config.ignore_index)}"
        texts.append(text)
    if alone := lone_masks(config):
        kinds = config.img_suffix or ", ".join(IMAGE_SUFFIXES)
        texts.append(f"masks without an image are left out: {len(alone)}, as {alone[0]}; images end in {kinds}")
    if config.kind == "folder" and config.seg_map_suffix.lower().endswith(JPEG):
        texts.append("masks are JPEG, read by the nearest of data.ids: a small class that is not named goes unnoticed")
    texts += _of_the_palettes(config) + _trained_on(config)
    if (first := _first_file(config)) is not None:
        with header(first) as image:
            bands = colour_bands(image)
        if bands not in (1, 3):
            read = "the first three are" if bands > 3 else "the first is"
            texts.append(f"images of {bands} bands, as {first.name}: only {read} trained on")
    return texts


def _of_the_palettes(config: DataConfig) -> list[str]:
    """Return a remark on masks in which one id has several colours, or white several ids: tools store colours so."""
    if config.kind != "folder" or config.root is None or in_colours(config):
        return []
    folder = folder_of(config, config.ann_dir, config.train_split)
    masks = [folder / f"{name}{config.seg_map_suffix}" for name, _ in images_of(config, config.train_split)]
    ids: list[int] = config.ids or list(range(len(config.classes)))
    colours: dict[int, tuple[list[int], Path]] = {}
    stored = defaultdict[str, list[Path]](list)  # masks by Pillow's modes
    for path in masks[:: 1 + len(masks) // LOOKED_AT]:
        with header(path) as mask:  # with its palette, which lies before the pixels
            stored[mask.mode].append(path)
            known_order = mask.mode == "P" and mask.format in ("PNG", "GIF")
            table = mask.palette.palette if known_order and mask.palette is not None else b""
        for index in ids:
            colour = list(table[3 * index : 3 * index + 3])
            if len(colour) < 3 or (index and colour in ([0, 0, 0], [index] * 3)):  # none of its own
                continue
            known, other = colours.setdefault(index, (colour, path))
            if colour != known:
                text = f"id {index} has the colour {known} in {other.name} and {colour} in {path.name}"
                return [f"{text}, but masks are read by id: if colours tell the classes, name them in data.ids"]
    whites = (path for path in stored["L"][:OPENED] if opened(path).getextrema()[1] == 255)
    if stored["1"] and (white := next(whites, None)) is not None:
        text = f"white is the id 1 in {stored['1'][0].name}, a mask of 1 bit, and 255 in {white.name}, which is ignored"
        return [f"{text}: if it is a class there too, data.ids=[[0,0,0],[255,255,255]] reads both alike"]
    return []


def _trained_on(config: DataConfig) -> list[str]:
    """Return a remark on images of other splits that are trained on, by whatever name or link."""
    if config.kind != "folder" or config.root is None:
        return []
    trained = {_file(path) for _, path in images_of(config, config.train_split)}
    texts = []
    for role, split, way in (("val", config.val_split, "holds out some"), ("test", config.test_split, "leaves it out")):
        others = [] if split is None else [path for _, path in images_of(config, split) if _file(path) in trained]
        if others:
            text = f"{len(others)} {role} images are trained on, as {others[0]}: their scores say nothing about others"
            texts.append(f"{text}; data.{role}_split=null {way}")
    return texts


def _file(path: Path) -> tuple[int, int]:
    """Return what a file is; of many, quicker than to resolve their names."""
    status = path.stat()
    return status.st_dev, status.st_ino


def remarks_on_scaled_crops(config: DataConfig, train: TrainConfig) -> list[str]:
    """Return a remark on crops of a full training that are larger than most scaled images, judged by the first one.

    Args:
        config: the configuration of the data; images that mmsegmentation's configs scale are not judged.
        train: the crops, and the sizes and factors by which images are scaled before.
    """
    first = _first_file(config)
    if config.kind == "builtin":
        sides, name = [SIDE, SIDE], ""
    elif first is not None:
        with header(first) as image:
            sides, name = [image.height, image.width], f", as {first.name},"
    else:
        return []
    size = np.asarray(sides, float)
    if train.size is not None:  # fitted into it, upright or lying
        size *= min(max(train.size) / max(sides), min(train.size) / min(sides))
    smallest, largest = train.ratio
    factors = np.linspace(smallest, largest, 101)[:, None]
    empty = 1 - np.minimum(factors * size / train.crop, 1).prod(axis=1).mean()
    if empty <= PADDED_CROPS:
        return []
    height, width = size.round().astype(int).tolist()
    crops = f"crops of {train.crop[0]}x{train.crop[1]} pixels"
    scaled = f"images of {height}x{width}{name} scaled by {smallest:g} to {largest:g}"
    return [f"{crops} of {scaled} are {empty:.0%} padding: lower train.crop"]


def _of_the_crops(data: SegData, crop: int) -> list[str]:
    """Return a remark on crops that are larger than images."""
    sizes = data.sizes("train")
    empty = 1 - sizes.clamp(max=crop).double().prod(dim=1).mean().item() / crop**2
    if empty <= PADDED_CROPS:
        return []
    height, width = sizes.amax(dim=0).tolist()
    return [f"crops of {crop} pixels of images of {height}x{width} are {empty:.0%} padding: lower proxy.crop"]


def _of_the_frames(data: SegData, config: DataConfig) -> list[str]:
    """Return a remark on images that the default size changes, or on frames that no image fills."""
    frame, sizes = list(data.images("train").shape[-2:]), data.sizes("train")
    first, (inner_height, inner_width) = _first_file(config), sizes[0].tolist()
    if frame == ProxyConfig().size:  # which nobody chose for these images
        if config.kind == "builtin":
            keep = "proxy=builtin keeps their size, and is faster"
            return [f"images of {SIDE}x{SIDE} are enlarged to {inner_height}x{inner_width}: {keep}"]
        if first is not None:
            with header(first) as image:
                width, height = image.size
            if inner_height < KEPT * height:
                at = f"{inner_height}x{inner_width}, where tolerance counts"
                keep = f"proxy.size=[{height},{width}] keeps their size"
                return [f"images of {height}x{width}, as {first.name}, are trained on and scored at {at}: {keep}"]
    height, width = sizes.amax(dim=0).tolist()
    empty = 1 - height * width / (frame[0] * frame[1])
    if empty <= PADDED_FRAMES:
        return []
    fits = f"proxy.size=[{height},{width}] has none and is faster"
    return [f"images of {height}x{width} leave {empty:.0%} of their frames of {frame[0]}x{frame[1]} as padding: {fits}"]


def _first_file(config: DataConfig) -> Path | None:
    """Return the first training image of a folder; None of other data."""
    if config.kind != "folder" or config.root is None:
        return None
    return images_of(config, config.train_split)[0][1]


def of_the_groups(names: Sequence[str], config: DataConfig) -> list[str]:
    """Return what `data.groups` comes to: an expression may find other groups than its author thinks.

    Args:
        names: the sorted names of the training images.
        config: the configuration of the data.

    Raises:
        InputError: as `split_holdout`.
    """
    if config.groups is None:
        return []
    rows = split_holdout(names, config.holdout, config.groups)[1].tolist()
    found = list(dict.fromkeys(group_of(names[row], config.groups) for row in rows))
    groups = f"{', '.join(found[:NAMED])}{', …' * (len(found) > NAMED)}"
    return [f"data.groups holds out {len(rows)} of {len(names)} training images, all of {groups}"]


def _unscored(data: SegData, config: DataConfig, scored: str, counts: list[int]) -> list[str]:
    """Return a warning about classes that are trained on, by their pixel `counts`, but occur in no scored image."""
    labels, which = data.labels(scored), f"{scored} image"
    if scored == "train":
        labels, which = labels[split_holdout(data.names("train"), config.holdout, config.groups)[1]], "held-out image"
    there = torch.bincount(labels.flatten(), minlength=256).tolist()[: len(data.classes)]
    if sum(map(bool, there)) < 2:
        found = [name for name, count in zip(data.classes, there, strict=True) if count]
        hint = "More images, another data.holdout or other names, by whose order images are held out, may help."
        got = f"pixels of {found[0]} alone" if found else "none"
        raise InputError(f"masks of the {which}s", "pixels of at least two classes", got, hint)
    missing = [name for name, count, trained in zip(data.classes, there, counts, strict=False) if trained and not count]
    if not missing:
        return []
    text = (
        f"no {which} has a pixel of {', '.join(missing)}: finding it earns nothing, and in a mean over classes such as "
        "miou or dice one pixel wrongly taken for it is a class with score 0"
    )
    return [text + ("; data.holdout and data.groups hold out others" if scored == "train" else "")]
