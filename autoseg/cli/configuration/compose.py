"""Turns the user's arguments into a checked, typed configuration; only this module and `overrides.py` use Hydra.

Every file of `configs/` is merged into a dataclass of `autoseg.config`, so an unknown key or a wrong type is found
before anything starts.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from dataclasses import fields
from pathlib import PurePath
from typing import Any, TypeVar, cast, get_origin

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from autoseg.cli.configuration.overrides import as_text, parse, quoted
from autoseg.cli.configuration.stored import explain, keys, literal, plain
from autoseg.errors import InputError, unknown_name
from autoseg.files import shipped_folder

T = TypeVar("T")


def compose(name: str, schema: type[T], overrides: list[str]) -> T:
    """Compose `configs/<name>.yaml` with overrides into an instance of `schema`.

    Args:
        name: the file's name without `.yaml`; its defaults list begins with `<name>_schema`.
        schema: the dataclass behind it.
        overrides: `key=value` or `group=option`, in Hydra's grammar.

    Raises:
        InputError: a key, option, type or the grammar is wrong.
    """
    ((_, only),) = compose_sweep(name, schema, overrides, sweep=False)
    return only


def compose_sweep(name: str, schema: type[T], overrides: list[str], *, sweep: bool) -> list[tuple[str, T]]:
    """Compose every combination of swept values (`metric=miou,biou`), all before the first is run.

    Each comes with the values that it does not share with all others, "metric=miou"; without a sweep with "".

    Args:
        name: as in `compose`.
        schema: as in `compose`.
        overrides: as in `compose`; with `sweep` a value may be a list `a,b`, `range(1,5)` or `choice(a,b)`.
        sweep: whether `-m` was given.

    Raises:
        InputError: as in `compose`; or several values without `-m`.
    """
    axes: list[list[str]] = []
    for text in overrides:
        override = parse(text, name)
        if not override.is_sweep_override():
            axes.append([_checked(override, schema, name)])
        elif not sweep:
            raise _several(override, keys(schema), name)
        else:
            key, values = override.key_or_group, _swept(override)
            axes.append([_checked(parse(f"{key}={value}", name), schema, name) for value in values])
    swept = [len(axis) > 1 for axis in axes]
    rows = list(itertools.product(*axes))
    return [(" ".join(itertools.compress(row, swept)), _build(name, schema, list(row))) for row in rows]


def changed(name: str, config: T, overrides: Sequence[str]) -> T:
    """Return a copy of a configuration with single keys changed, in Hydra's grammar, mappings merged.

    `${…}` in their values is plain text. A network or data set named by its config is that alone, as in `compose`.

    Args:
        name: name of the configuration's command.
        config: the original, which is not changed.
        overrides: `key=value`, no groups.

    Raises:
        InputError: a key, its type or the grammar is wrong.
    """
    schema = type(config)
    data = cast(DictConfig, OmegaConf.merge(OmegaConf.structured(schema), literal(plain(config))))
    given = [parse(_checked(parse(text, name), schema, name), name) for text in overrides]
    _own_files(data, given)
    for text, override in zip(overrides, given, strict=True):
        try:
            OmegaConf.update(data, override.key_or_group, literal(override.value()))
        except OmegaConfBaseException as error:
            raise explain(error, schema, {override.key_or_group: text.partition("=")[2]}) or error from error
    return cast(T, OmegaConf.to_object(data))


def options(group: str, schema: type | None = None) -> list[str]:
    """Return the sorted names of the files in `configs/<group>/`.

    Of experiments only those whose keys the schema has.
    """
    folder = shipped_folder("configs") / group
    files = {entry.name.removesuffix(".yaml"): entry for entry in folder.iterdir() if entry.name.endswith(".yaml")}
    if group != "experiment" or schema is None:
        return sorted(files)
    known = {"defaults", *(field.name for field in fields(schema))}
    return sorted(name for name, file in files.items() if _keys_in(file.read_text(encoding="utf-8")) <= known)


def _keys_in(text: str) -> set[str]:
    """Return the top keys of a configuration file; none of one that is empty, or that only its user will hear of."""
    try:
        return set(yaml.safe_load(text) or ())
    except (yaml.YAMLError, TypeError):
        return set()


def groups(schema: type) -> list[str]:
    """Return the sorted names of the folders of `configs/` that a command has."""
    names = {entry.name for entry in shipped_folder("configs").iterdir() if entry.is_dir()}
    own = names & {field.name for field in fields(schema)}
    return sorted(own | {"experiment"} if options("experiment", schema) else own)


def _build(name: str, schema: type[T], overrides: list[str]) -> T:
    ConfigStore.instance().store(name=f"{name}_schema", node=schema)
    try:
        with initialize_config_dir(str(shipped_folder("configs")), version_base="1.3", job_name="autoseg"):
            composed = hydra_compose(name, overrides=overrides)
        _own_files(composed, [parse(text, name) for text in overrides])
        return cast(T, OmegaConf.to_object(composed))
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        told = explain(error, schema, dict(text.split("=", 1) for text in overrides))
        raise told or InputError("configs", "files that fit together", " ".join(str(error).split())) from error


def _own_files(config: DictConfig, overrides: Sequence[Override]) -> None:
    """Drop the default preset's changes if the user names a network or data set by its config, without a preset.

    Otherwise `model.config=PATH` alone would apply the preset's changes to another network.
    """
    given = {override.key_or_group: override for override in overrides}
    if "model.config" in given and "model" not in given:
        config.model.overrides = {}
        for key, override in given.items():
            if key.startswith("model.overrides"):
                OmegaConf.update(config, key, override.value(), force_add=True)
    for section, key in (("model", "model.config"), ("data", "data.mmseg_config")):
        file = given[key].value() if key in given else None
        if given.keys().isdisjoint({section, f"{section}.name"}) and file is not None:
            told = OmegaConf.select(config, key) if "${" in str(file) else file
            config[section].name = PurePath(str(told)).stem


def _swept(override: Override) -> list[str]:
    """Return the values of a sweep."""
    try:
        values = list(override.sweep_string_iterator())
    except HydraException:  # glob(*), interval(0,1): for other sweepers
        values = []
    if not values:
        given = str(override.input_line).partition("=")[2]
        raise InputError(override.key_or_group, "the values of a sweep, a,b or range(1,4)", given)
    return values


def _several(override: Override, known: dict[str, Any], command: str) -> InputError:
    """Return an error with the remedy for `key=a,b`: the brackets of a list, or the -m of a search."""
    key, text = override.key_or_group, str(override.input_line)
    value = text.partition("=")[2]
    if get_origin(known.get(key)) is list or known.get(key) is Any:  # a list, or what may be one
        return InputError(key, "a list in brackets", value, f"Type {key}=[{','.join(_swept(override))}].")
    sweep = "Add -m to run one search for each, or quote" if command == "search" else "Quote"
    return InputError(key, "one value", f"several: {value}", f"{sweep} a value that holds a comma: {quoted(text)}")


def _checked(override: Override, schema: type, command: str) -> str:
    """Return the override in the form for Hydra, once its key or group option is known to exist.

    `space=NAME` is short for `space.name=NAME`: spaces are files of `search_spaces/`, not configs. Keys
    inside an open dictionary (`controller.options.lr`, `model.overrides={neck: {…}}`) need no `+` here.
    """
    key, value = override.key_or_group, override.value()
    text = (override.input_line or "").lstrip("+")
    if override.is_delete():
        raise InputError("argument", "key=value", repr(override.input_line), "Nothing can be deleted: set a value.")
    if key == "space":
        return f"space.name={text.partition('=')[2]}"
    if key == "imports" and isinstance(value, str):  # most have one file
        return f"imports=[{text.partition('=')[2]}]"
    if key in groups(schema) and not isinstance(value, dict):
        if value not in options(key, schema):
            raise unknown_name(key, str(value), options(key, schema))
        return text
    known = keys(schema)
    if any(f"{key}.".startswith(f"{parent}.") for parent, kind in known.items() if get_origin(kind) is dict):
        return f"++{text}"
    if key in known:
        if known[key] in (str, str | None) and isinstance(value, bool | int | float):
            return as_text(key, text.partition("=")[2])  # run_dir=12345_7 would be 123457
        return text
    if inner := [one for one in known if one.startswith(f"{key}.")]:
        raise InputError(key, "its keys one by one", text.partition("=")[2], f"As in {inner[0]}=VALUE.")
    raise InputError("key", _section_of(key, known), repr(key), _nearest(key, known, command))


def _section_of(key: str, known: dict[str, Any]) -> str:
    """Return what is allowed there: the keys of the same section, or the top level's keys and sections."""
    section = key.rpartition(".")[0]
    same = [k for k in known if section and k.rpartition(".")[0] == section]
    return "one of " + ", ".join(same or _tops(known))


def _tops(known: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(key.partition(".")[0] for key in known))


def _nearest(key: str, known: dict[str, Any], command: str) -> str:
    leaf = key.rpartition(".")[2]
    near = difflib.get_close_matches(key, {*known, *_tops(known)}, n=2, cutoff=0.7)
    near += [k for k in known if k not in near and difflib.get_close_matches(leaf, [k.rpartition(".")[2]], cutoff=0.8)]
    meant = f"Did you mean {' or '.join(near[:3])}? " if near else ""
    return f"{meant}autoseg {command} --cfg prints every key."
