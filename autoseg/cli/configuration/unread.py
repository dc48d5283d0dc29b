"""Settings that nothing reads beside others: `data.root` with built-in data, a teacher with hard labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from autoseg.cli.configuration.stored import at
from autoseg.errors import InputError

Readers = dict[str, tuple[str, tuple[str, ...]]]
FOLDER, FILES = ("folder",), ("folder", "mmseg")
SMOOTH, DISTILL, PSEUDO = ("smooth", "boundary_smooth"), ("distill",), ("pseudo",)

# For keys that not all values of another key read: that key, and the values that do. `data.count` is not among them:
# experiments set it, beside which other data may be chosen. mmseg refuses ids itself, and says what has their place.
DATA: Readers = {
    f"data.{key}": ("data.kind", kinds)
    for keys, kinds in (
        ("root classes test_split ids ignored_ids", FILES),
        ("palette ignore_index train_split val_split img_dir ann_dir", FOLDER),
        ("img_suffix seg_map_suffix annotator_dirs", FOLDER),
        ("seed", ("builtin",)),
        ("mmseg_config", ("mmseg",)),
    )
    for key in keys.split()
}
OTHERS: Readers = {
    "search.pruner_options": ("search.pruner", ("median", "percentile")),
    "executor.address": ("executor.name", ("ray",)),
    **{
        f"{group}.soft.{key}": (f"{group}.labels", labels)
        for group in ("proxy", "train")
        for keys, labels in (
            ("eps", SMOOTH),
            ("width", ("boundary_smooth",)),
            ("teacher weight temperature", DISTILL),
            ("momentum confidence labelled", PSEUDO),
        )
        for key in keys.split()
    },
}


def check_read(config: Any) -> None:
    """Raise for the first key of `data` that this kind of data does not read.

    Otherwise a search that is meant for a folder would be one of built-in images.

    Raises:
        InputError: names it, and who reads it.
    """
    for key, value, other, readers in _unread(config, DATA):
        if key == "data.mmseg_config" and config.data.kind == "folder":  # of a preset, as data=ade20k data.kind=folder
            continue
        hint = "The config of data.mmseg_config says it." if config.data.kind == "mmseg" else f"Read with {readers}."
        raise InputError(key, f"none with {other}={at(config, other)}", value, hint)


def without_effect(config: Any) -> list[str]:
    """Return a sentence for each other key that is set and not read; a sweep may have some."""
    return [
        f"{key}={value} has no effect with {other}={at(config, other)}: it is read with {readers}"
        for key, value, other, readers in _unread(config, OTHERS)
    ]


def _unread(config: Any, table: Readers) -> Iterator[tuple[str, Any, str, str]]:
    """Yield key, value, the other key and who reads it, of each that is not at its default and not read."""
    usual = type(config)()
    for key, (other, values) in table.items():
        value = at(config, key)
        if value != at(usual, key) and at(config, other) not in values:
            yield key, value, other, " or ".join(f"{other}={one}" for one in values)
