"""Data of any kind as mmengine data loaders: loading, augmentation, and the distribution over the ranks."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

import autoseg
from autoseg.config import DataConfig, RetrainConfig, TrainConfig
from autoseg.data.builtin import CLASSES, SIDE, BuiltinSource
from autoseg.data.cache import images_folder
from autoseg.data.folder import open_folder
from autoseg.data.mmseg_source import LOADING, check_loading, leaves, open_mmseg, settle, splits_of
from autoseg.data.source import IGNORE, ClassCounts
from autoseg.errors import InputError
from autoseg.files import write_atomic
from autoseg.machine import cpu_cores
from autoseg.mmconfigs import type_name

Node = dict[str, Any]


@dataclass(frozen=True)
class Datasets:
    """A data set as configuration."""

    classes: list[str]  # names in the order of the ids
    ignore_index: int  # id of void pixels, as the data set gives it
    splits: dict[str, Node]  # data set of each role, without a pipeline (see `data_loaders`); "test" may be missing
    loading: list[Node]  # the transforms that load image and labels
    scale: tuple[int, int] | None  # (width, height) into which images are fitted; None: each keeps its own size
    scored: tuple[int, int] | None  # the same where they are scored


def datasets(config: DataConfig) -> Datasets:
    """Return the data set of the group `data`, as configuration.

    Raises:
        InputError: for data in a folder, anything that can be wrong with it; else what can be seen without its files.
    """
    if config.kind == "builtin":
        return _builtin(config)
    return _folder(config) if config.kind == "folder" else _mmseg(config)


def class_counts(config: DataConfig) -> ClassCounts:
    """Return how often the classes occur in the training masks.

    All files and every mask are checked while they are counted: mmsegmentation would not notice a wrong id, or a GPU
    would stop at it. The counts are remembered beside the prepared images: as long as no file has another size or
    time, no training reads them again.

    Raises:
        InputError: a folder, image or mask is missing or does not fit; names it and says what to do.
    """
    if config.kind == "builtin":
        drawn = BuiltinSource.from_config(config)
        masks = (drawn.read("train", index).masks[0] for index in range(len(drawn.names["train"])))
        of_each = (np.bincount(mask.ravel(), minlength=len(CLASSES)) for mask in masks)
        return reduce(ClassCounts.plus, of_each, ClassCounts.none(len(CLASSES)))
    source = (open_mmseg if config.kind == "mmseg" else open_folder)(config)
    checked = json.dumps([autoseg.__version__, source.upright, source.identity()], sort_keys=True)
    note = f"checked-{hashlib.sha256(checked.encode()).hexdigest()}.json"
    with contextlib.suppress(InputError, OSError, ValueError, TypeError):  # none, or no home folder to have it in
        return ClassCounts(**json.loads((images_folder(config.cache_dir) / note).read_text(encoding="utf-8")))
    counts = source.check()
    with contextlib.suppress(InputError, OSError):  # only a note, so a disk that is full may be
        images_folder(config.cache_dir).mkdir(parents=True, exist_ok=True)
        write_atomic(images_folder(config.cache_dir) / note, json.dumps(dataclasses.asdict(counts)))
    return counts


def data_loaders(config: RetrainConfig, data: Datasets, ranks: int) -> Node:
    """Return `train_dataloader`, `val_dataloader` and, if there is a test split to score, `test_dataloader`.

    `InfiniteSampler` deals one shuffled stream to the ranks in turn, so the batches of all ranks at an iteration are
    together the batch that one rank would have.

    Raises:
        InputError: a batch that the ranks cannot share evenly, or a split that does not exist.
    """
    train = config.train
    if train.batch_size % ranks:
        hint = "It is the total over all GPUs."
        raise InputError("train.batch_size", f"a multiple of the {ranks} processes", train.batch_size, hint)
    wanted = ["val", "test"] if config.split == "auto" else [config.split]
    if config.split == "test" and "test" not in data.splits:
        raise InputError("split", "val or auto", "test, which this data does not have")
    workers = {"num_workers": loading_processes(config, ranks)}
    workers["persistent_workers"] = workers["num_workers"] > 0
    loaders: Node = {
        "train_dataloader": {
            "batch_size": train.batch_size // ranks,
            "sampler": {"type": "InfiniteSampler", "shuffle": True},
            "dataset": _with_pipeline(data.splits["train"], train_pipeline(train, data)),
            **workers,
        }
    }
    for role in ("val", "test"):
        if role in data.splits and (role == "val" or role in wanted):
            loaders[f"{role}_dataloader"] = {
                "batch_size": 1,
                "sampler": {"type": "DefaultSampler", "shuffle": False},
                "dataset": _with_pipeline(data.splits[role], test_pipeline(train, data)),
                **workers,
            }
    return loaders


def loading_processes(config: RetrainConfig, ranks: int) -> int:
    """Return the number of processes of each rank that load images.

    Raises:
        InputError: `workers` is no number.
    """
    if config.workers == "auto":
        return 0 if config.data.kind == "builtin" else min(4, cpu_cores() // ranks)
    if not config.workers.isdecimal():
        raise InputError("workers", "auto, or a number from 0", config.workers)
    return int(config.workers)


def train_pipeline(train: TrainConfig, data: Datasets) -> list[Node]:
    """Return the steps of training: load, scale by a random factor, crop, flip, change colours."""
    height, width = train.crop
    steps = [
        *data.loading,
        _random_resize(train, data),
        {"type": "RandomCrop", "crop_size": (height, width), "cat_max_ratio": 0.75, "ignore_index": data.ignore_index},
    ]
    if train.flip:
        steps.append({"type": "RandomFlip", "prob": 0.5})
    if train.photometric:
        steps.append({"type": "PhotoMetricDistortion"})
    return [*steps, {"type": "PackSegInputs"}]


def _random_resize(train: TrainConfig, data: Datasets) -> Node:
    scale, ratio = _own_size(train) or data.scale, tuple(train.ratio)
    if scale is None:
        return {"type": "AutoSegRescale", "ratio_range": ratio}
    return {"type": "RandomResize", "scale": scale, "ratio_range": ratio, "keep_ratio": True}


def test_pipeline(train: TrainConfig, data: Datasets) -> list[Node]:
    """Return the steps of scoring: load and scale the image.

    Labels keep their size, to which predictions are resized.
    """
    if not data.loading:  # built-in images come with their labels and are scored at their own size
        return [{"type": "PackSegInputs"}]
    image, labels = data.loading
    return [image, *_resize(train, data), labels, {"type": "PackSegInputs"}]


def inference_pipeline(train: TrainConfig, data: Datasets) -> list[Node]:
    """Return `test_pipeline` for image files without labels, which `mmseg.apis` reads from a config.

    Photographs that are stored turned are turned there, while trainings refuse them, for their masks.
    """
    own = not data.loading or type_name(data.loading[0]) != LOADING[0]
    image = {"type": LOADING[0]} if own else data.loading[0]
    return [image, *_resize(train, data), {"type": "PackSegInputs"}]


def _resize(train: TrainConfig, data: Datasets) -> list[Node]:
    scale = _own_size(train) or data.scored
    return [] if scale is None else [{"type": "Resize", "scale": scale, "keep_ratio": True}]


def _own_size(train: TrainConfig) -> tuple[int, int] | None:
    return None if train.size is None else (train.size[1], train.size[0])


def _with_pipeline(dataset: Node, pipeline: list[Node]) -> Node:
    """Return a copy of a data set with this pipeline; inside a wrapper, every data set gets it."""
    result = copy.deepcopy(dataset)
    for leaf in leaves(result):
        leaf["pipeline"] = copy.deepcopy(pipeline)
    return result


def _builtin(config: DataConfig) -> Datasets:
    data = {"kind": "builtin", "seed": config.seed, "count": list(config.count), "cache_dir": config.cache_dir}
    size = [SIDE, SIDE]
    roles = ["train", "val", *(["test"] if config.count[2] and config.test_split is not None else [])]
    splits = {role: {"type": "AutoSegArrays", "data": data, "size": size, "split": role} for role in roles}
    return Datasets(list(CLASSES), IGNORE, splits, [], None, None)


def _folder(config: DataConfig) -> Datasets:
    source = open_folder(config)  # says what is wrong with the files before anything starts
    data = {**dataclasses.asdict(config), "root": str(Path(str(config.root)).expanduser().absolute())}
    splits: dict[str, Node] = {role: {"type": "AutoSegFolder", "data": data, "split": role} for role in source.items}
    loading: list[Node] = [{"type": "AutoSegImage"}, {"type": "AutoSegMask"}]
    return Datasets(list(source.classes), IGNORE, splits, loading, None, None)


def _mmseg(config: DataConfig) -> Datasets:
    splits = splits_of(config)
    first = leaves(splits["train"])[0]
    pipeline = first["pipeline"]
    check_loading(pipeline)
    scale = _scale_of(pipeline)
    scored = _scale_of(leaves(splits["val"])[0].get("pipeline", [])) or scale
    for split in splits.values():
        for leaf in leaves(split):
            settle(leaf, config)
    loading = [step for step in pipeline if type_name(step) in LOADING]
    return Datasets(_classes(first), first.get("ignore_index", IGNORE), splits, loading, scale, scored)


def _scale_of(pipeline: Sequence[Node]) -> tuple[int, int] | None:
    """Return the (width, height) into which a pipeline fits images, before a random factor."""
    found = next((step for step in pipeline if type_name(step) in ("RandomResize", "Resize")), {})
    scale = found.get("scale")
    if not isinstance(scale, list | tuple) or not all(isinstance(side, int) for side in scale):
        return None  # of its own kind, as several to choose from
    return int(scale[0]), int(scale[1])


def _classes(leaf: Node) -> list[str]:
    from mmseg.registry import DATASETS

    given = leaf.get("metainfo", {}).get("classes")
    kind = DATASETS.get(leaf["type"])
    found = given or (kind.METAINFO.get("classes") if kind is not None else None)
    if not found:
        hint = "Set data.classes=[a,b,...]."
        raise InputError("data.mmseg_config", "a data set that names its classes", leaf["type"], hint)
    return list(found)
