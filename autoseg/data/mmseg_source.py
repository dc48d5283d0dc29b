"""Any data set that mmsegmentation has a config for; no other module of `data` imports mmseg."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoseg.config import DataConfig
from autoseg.data.folder import FileSource, Item, check_classes, check_items
from autoseg.data.masks import OUT_OF_RANGE, MaskCode
from autoseg.data.source import IGNORE, generated_palette
from autoseg.errors import InputError
from autoseg.mmconfigs import config_path, mmengine_config, type_name

LOADING = ("LoadImageFromFile", "LoadAnnotations")
REMEDY = "Its data set has a label_map and reduce_zero_label."
CHILDREN = ("dataset", "datasets")  # keys of the data sets inside RepeatDataset and ConcatDataset


def open_mmseg(config: DataConfig) -> FileSource:
    """Open the source of `data.kind=mmseg`: train, val and test as the dataset config lists them, see `splits_of`.

    Args:
        config: `mmseg_config` is a path or the name of a config inside mmsegmentation; `root` replaces its
            `data_root`.

    Raises:
        InputError: no such config, or files it names are missing.
    """
    if config.ids or config.ignored_ids:
        key, given = ("data.ids", config.ids) if config.ids else ("data.ignored_ids", config.ignored_ids)
        raise InputError(key, "none with data.kind=mmseg", given, REMEDY)
    splits = splits_of(config)
    pipeline = leaves(splits["train"])[0].get("pipeline", [])
    check_loading(pipeline)
    datasets = {role: [_build(leaf, config) for leaf in leaves(node)] for role, node in splits.items()}
    first = datasets["train"][0]
    classes = list(first.metainfo["classes"])
    palette = [list(rgb) for rgb in first.metainfo.get("palette") or generated_palette(len(classes))]
    check_classes(config, classes, palette)
    items = {
        role: sorted((item for part in parts for item in _items(part)), key=lambda item: item.name)
        for role, parts in datasets.items()
    }
    for role, listed in items.items():
        check_items(listed, f"{role} split of {config.mmseg_config}")
    lookup = _lookup(first, len(classes))
    for role, parts in datasets.items():
        for part in parts:
            _check_alike(part, role, classes, lookup)
    code = MaskCode(classes, lookup, remedy=REMEDY)
    return FileSource(code, palette, items, upright=_turns(pipeline))


def splits_of(config: DataConfig) -> dict[str, dict[str, Any]]:
    """Return the data set of each role in `data.mmseg_config`.

    If the test split is the validation split again, as in most configs, or has images without labels, it is left out.

    Raises:
        InputError: no such config, or one that lacks train or val.
    """
    from mmseg.utils import register_all_modules

    field = "data.mmseg_config"
    if config.mmseg_config is None:
        hint = f"For example {field}=_base_/datasets/ade20k.py."
        raise InputError(field, "a dataset config of mmsegmentation", None, hint)
    register_all_modules(init_default_scope=True)
    settings = mmengine_config(config_path(config.mmseg_config, field), field).to_dict()
    loaders = {role: settings.get(f"{role}_dataloader") for role in ("train", "val", "test")}
    found: dict[str, dict[str, Any]] = {role: loader["dataset"] for role, loader in loaders.items() if loader}
    for role in ("train", "val"):
        if role not in found:
            raise InputError(field, f"a {role}_dataloader", "none", "Choose a complete dataset config.")
    unlabelled = "test" in found and _names_labels(found["train"]) and not _names_labels(found["test"])
    if config.test_split is None or unlabelled or found.get("test") == found["val"]:
        found.pop("test", None)
    return found


def _names_labels(dataset: dict[str, Any]) -> bool:
    """Return whether a data set names a folder of masks; it is that of the images if it names no folder."""
    prefixes = [leaf.get("data_prefix") for leaf in leaves(dataset)]
    return all(prefix is None or prefix.get("seg_map_path") is not None for prefix in prefixes)


def check_loading(pipeline: Sequence[Any]) -> None:
    """Raise if images or labels are not one file each, such as those of depth or of two images of a place.

    Raises:
        InputError: another transform loads them.
    """
    found = [name for step in pipeline if (name := type_name(step)).startswith("Load")]
    if tuple(found) != LOADING:
        expected = f"a pipeline that loads with {' and '.join(LOADING)}"
        raise InputError("data.mmseg_config", expected, ", ".join(found) or "none")


def _turns(pipeline: Sequence[Any]) -> bool:
    """Return whether a pipeline that loads images turns them by their EXIF tags, as mmcv does unless told otherwise.

    A full training would then see other pixels than a search, and beside the same mask.
    """
    options = next(step for step in pipeline if type_name(step) == LOADING[0])
    return options.get("color_type", "color") in ("color", "grayscale")


def leaves(dataset: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the plain data sets inside wrappers that repeat or join them."""
    inner = [dataset[key] for key in CHILDREN if key in dataset]
    if not inner:
        return [dataset]
    children = inner[0] if isinstance(inner[0], list) else [inner[0]]
    return [leaf for child in children for leaf in leaves(child)]


def settle(leaf: dict[str, Any], config: DataConfig) -> None:
    """Set the user's folder and classes in a plain data set, in place."""
    if config.root is not None:
        leaf["data_root"] = str(Path(config.root).expanduser().absolute())
    if config.classes:
        leaf["metainfo"] = {**leaf.get("metainfo", {}), "classes": list(config.classes)}


def _build(leaf: dict[str, Any], config: DataConfig) -> Any:
    from mmseg.registry import DATASETS

    settings = {**leaf, "pipeline": [], "test_mode": False}
    settle(settings, config)
    try:
        return DATASETS.build(settings)
    except (AssertionError, OSError, ValueError) as error:  # how mmseg says that files or classes are missing
        hint = "Set data.root to the folder that config calls data_root."
        expected = f"the layout that {config.mmseg_config} describes"
        if "need at least one array" in str(error):  # of an empty list
            raise InputError("data.root", _looked_for(settings, DATASETS.get(type_name(leaf))), "none") from error
        raise InputError("data.root", expected, f"'{error}'", hint) from error


def _looked_for(settings: dict[str, Any], kind: Any) -> str:
    """Return which images a data set of this class looks for."""
    if settings.get("ann_file"):
        return f"images that {settings['ann_file']} lists"
    usual = inspect.signature(kind).parameters.get("img_suffix")
    suffix = settings.get("img_suffix") or (usual.default if usual is not None else "")
    folder = Path(settings.get("data_root") or "", (settings.get("data_prefix") or {}).get("img_path") or "")
    return f"images that end in {suffix} in {folder}"


def _check_alike(dataset: Any, role: str, classes: Sequence[str], lookup: NDArray[np.int16]) -> None:
    """Raise for a data set whose ids mean other classes than those of the first one of the training split.

    Raises:
        InputError: names what differs.
    """
    theirs = list(dataset.metainfo.get("classes", ()))
    if theirs != classes:
        got = f"a {type(dataset).__name__} in its {role} split with {_few(theirs)}"
    elif (_lookup(dataset, len(classes)) != lookup).any():
        got = f"a {type(dataset).__name__} in its {role} split whose ids in the masks mean others of them"
    else:
        return
    hint = "Write their masks with the same ids, or name one alone."
    if role == "test":
        hint = "data.test_split=null leaves it out."
    expected = f"data sets that have the classes {_few(classes)} by the same ids"
    raise InputError("data.mmseg_config", expected, got, hint)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + ", …" * (len(names) > 5)


def _items(dataset: Any) -> list[Item]:
    items = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        image = Path(info["img_path"])
        name = os.path.relpath(image.with_suffix(""), dataset.data_prefix["img_path"])
        items.append(Item(name, image, (Path(info["seg_map_path"]),)))
    return items


def _lookup(dataset: Any, num_classes: int) -> NDArray[np.int16]:
    """Return the table from ids in the mask files to ids in the cache, as mmseg's LoadAnnotations: shift, then
    rename.
    """
    ids = np.arange(256)
    if dataset.reduce_zero_label:
        ids = np.where((ids == 0) | (ids == IGNORE), IGNORE, ids - 1)
    renamed = ids.copy()
    for old, new in (dataset.label_map or {}).items():
        renamed[ids == old] = new
    allowed = (renamed < num_classes) | (renamed == dataset.ignore_index)
    return np.where(renamed == dataset.ignore_index, IGNORE, np.where(allowed, renamed, OUT_OF_RANGE)).astype(np.int16)
