"""From what the user typed to a checked, typed configuration: with `typed.py` all that knows Hydra.

`configs/` is installed as the package `autoseg.conf`; every file in it is merged into a dataclass of
`autoseg.config`, so an unknown key or a wrong type is found before anything starts.
"""

from __future__ import annotations

import difflib
import importlib.resources
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from autoseg.cli.typed import quoted
from autoseg.config import BEFORE
from autoseg.errors import InputError, unknown_name

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
    (only,) = compose_sweep(name, schema, overrides, sweep=False)
    return only


def compose_sweep(name: str, schema: type[T], overrides: list[str], *, sweep: bool) -> list[T]:
    """Compose every combination of swept values (`metric=miou,biou`), all before the first is run.

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
        override = _parse(name, text)
        if not override.is_sweep_override():
            axes.append([_checked(override, schema)])
        elif not sweep:
            raise _several(override, keys(schema), text)
        else:
            values = override.sweep_string_iterator()
            axes.append([_checked(_parse(name, f"{override.key_or_group}={v}"), schema) for v in values])
    return [_build(name, schema, list(row)) for row in itertools.product(*axes)]


def value_of(text: str) -> Any:
    """The value of one `key=value`.

    Raises:
        InputError: not in Hydra's grammar.
    """
    return _parse("search", text).value()


def changed(name: str, config: T, overrides: Sequence[str]) -> T:
    """A copy of a configuration with single keys changed, in Hydra's grammar.

    Args:
        name: of the command whose configuration it is.
        config: stays as it is.
        overrides: `key=value`, no groups.

    Raises:
        InputError: a key, its type or the grammar is wrong.
    """
    data, schema = OmegaConf.structured(config), type(config)
    for text in overrides:
        override = _parse(name, text)
        _checked(override, schema)
        try:
            OmegaConf.update(data, override.key_or_group, override.value())
        except OmegaConfBaseException as error:
            raise _explain(error, schema, {override.key_or_group: text.partition("=")[2]}) or error from error
    return load(schema, {str(k): v for k, v in OmegaConf.to_container(data).items()})  # type: ignore[union-attr]


def options(group: str, schema: type | None = None) -> list[str]:
    """Names of the files in `configs/<group>/`, sorted; of experiments those whose keys the command's schema has."""
    folder = importlib.resources.files("autoseg.conf") / group
    files = {entry.name.removesuffix(".yaml"): entry for entry in folder.iterdir() if entry.name.endswith(".yaml")}
    if group != "experiment" or schema is None:
        return sorted(files)
    known = {"defaults", *(field.name for field in fields(schema))}
    keys = {name: set(yaml.safe_load(file.read_text(encoding="utf-8"))) for name, file in files.items()}
    return sorted(name for name, given in keys.items() if given <= known)


def groups(schema: type | None = None) -> list[str]:
    """Names of the folders of `configs/`, sorted; with a command's schema, those that it has."""
    root = importlib.resources.files("autoseg.conf")
    names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("_"))
    if schema is None:
        return names
    own = {"experiment", *(field.name for field in fields(schema))}
    return [name for name in names if name in own]


def keys(schema: type) -> dict[str, Any]:
    """Every dotted key of a schema with its type, sections left out."""
    found: dict[str, Any] = {}
    hints = get_type_hints(schema)
    for field in fields(schema):
        kind = hints[field.name]
        if is_dataclass(kind):
            found.update({f"{field.name}.{inner}": t for inner, t in keys(kind).items()})  # type: ignore[arg-type]
        else:
            found[field.name] = kind
    return found


def _build(name: str, schema: type[T], overrides: list[str]) -> T:
    ConfigStore.instance().store(name=f"{name}_schema", node=schema)
    try:
        with initialize_config_module("autoseg.conf", version_base="1.3", job_name="autoseg"):
            config = OmegaConf.to_object(hydra_compose(name, overrides=overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(error, schema, dict(text.split("=", 1) for text in overrides)) or error from error
    if not isinstance(config, schema):
        raise TypeError(f"configs/{name}.yaml does not begin with {name}_schema")
    return config


def _several(override: Override, known: dict[str, Any], text: str) -> InputError:
    """What to do about `key=a,b`: a list lacks its brackets, or a sweep its -m."""
    key, value = override.key_or_group, text.partition("=")[2]
    if get_origin(known.get(key)) is list:
        return InputError(key, "a list in brackets", value, f"Type {key}=[{value}].")
    hint = f"Add -m to run one search for each, or quote a value that holds a comma: {quoted(text)}"
    return InputError(key, "one value", f"several: {value}", hint)


def _explain(error: Exception, schema: type, typed: dict[str, str]) -> InputError | None:
    """A report of a wrong type in our words, or None; `typed` is what the user gave for each key."""
    for cause in (error, error.__cause__):
        key = str(getattr(cause, "full_key", None) or "").partition("[")[0]
        if key:
            kind = keys(schema).get(key)
            expected = _words(kind) if kind is not None else "a section of keys"
            problem = str(getattr(cause, "msg", cause)).splitlines()[0].rstrip(".")
            return InputError(key, expected, repr(typed[key]) if key in typed else f"what fails with: {problem}")
    return None


def _parse(name: str, text: str) -> Override:
    try:
        return OverridesParser.create().parse_override(text)
    except HydraException as error:
        key, equals, value = text.partition("=")
        if not equals or not key.lstrip("+").replace(".", "").replace("_", "").isalnum():
            raise InputError("argument", "key=value", repr(text), f"Type autoseg {name} --help.") from error
        raise InputError(
            key,
            "a value in Hydra's grammar",
            repr(value),
            f"Quote it, for the shell and for Hydra: {quoted(text)}",
        ) from error


def _checked(override: Override, schema: type) -> str:
    """The override as Hydra shall see it, once its key or group option is known to exist.

    `space=NAME` is short for `space.name=NAME`: spaces are files of `search_spaces/`, not configs. Keys
    inside an open dictionary (`controller.options.lr`) need no `+` here.
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
    if key in known:
        return text
    if any(key.startswith(f"{parent}.") for parent, kind in known.items() if get_origin(kind) is dict):
        return f"++{text}"
    raise InputError("key", _section_of(key, known), repr(key), _nearest(key, known))


def _section_of(key: str, known: dict[str, Any]) -> str:
    """What could have stood there: the keys of the same section, or the top level's."""
    section = key.rpartition(".")[0]
    same = [k for k in known if k.rpartition(".")[0] == section]
    if not same:
        section, same = "", [k for k in known if "." not in k]
    return "one of " + ", ".join(same)


def _nearest(key: str, known: dict[str, Any]) -> str:
    leaf = key.rpartition(".")[2]
    near = difflib.get_close_matches(key, known, n=2, cutoff=0.7)
    near += [k for k in known if k not in near and difflib.get_close_matches(leaf, [k.rpartition(".")[2]], cutoff=0.8)]
    meant = f"Did you mean {' or '.join(near[:3])}? " if near else ""
    return meant + "autoseg search --cfg prints every key."


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _words(kind: Any) -> str:
    """A type in the user's words."""
    if kind in _WORDS:
        return _WORDS[kind]
    arguments = [a for a in get_args(kind) if a is not type(None)]
    if get_origin(kind) is list:
        return "a list like [a,b], each " + _words(arguments[0])
    if get_origin(kind) is dict:
        return "a mapping like {key: value}"
    return f"{_words(arguments[0])} or null"


def plain(config: Any) -> dict[str, Any]:
    """A configuration as plain data (dicts, lists, numbers, text), for files."""
    data = OmegaConf.to_container(OmegaConf.structured(config), resolve=True)
    if not isinstance(data, dict):
        raise TypeError(f"not a configuration: {type(config).__name__}")
    return {str(key): value for key, value in data.items()}


def as_yaml(config: Any) -> str:
    """A configuration as YAML text."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def load(schema: type[T], data: Mapping[str, Any]) -> T:
    """The reverse of `plain`: a typed configuration from a run's plain data. Keys it lacks change nothing (`lacking`).

    Raises:
        InputError: the data does not fit the schema.
    """
    if strange := _strange(data, keys(schema)):
        hint = "It was written by another version of autoseg: go on with that one."
        raise InputError(", ".join(strange), "keys that this version knows", "a configuration that has them", hint)
    base = OmegaConf.structured(schema)
    for key, value in BEFORE.items():
        if key in keys(schema):
            OmegaConf.update(base, key, value)
    try:
        config = OmegaConf.to_object(OmegaConf.merge(base, data))
    except OmegaConfBaseException as error:
        raise _explain(error, schema, {}) or error from error
    if not isinstance(config, schema):
        raise TypeError(f"not a {schema.__name__}")
    return config


def lacking(schema: type, data: Mapping[str, Any]) -> list[str]:
    """The keys of a schema that a run of an earlier version has no value for."""
    return [key for key in keys(schema) if not _has(data, key.split("."))]


def _has(data: Any, path: list[str]) -> bool:
    for part in path:
        if not isinstance(data, Mapping) or part not in data:
            return False
        data = data[part]
    return True


def _strange(data: Mapping[str, Any], known: Iterable[str], at: str = "") -> list[str]:
    """The dotted keys of plain data that are not known."""
    found = []
    for key, value in data.items():
        name = f"{at}{key}"
        if name in known:
            continue
        inside = isinstance(value, Mapping) and any(one.startswith(f"{name}.") for one in known)
        found += _strange(value, known, f"{name}.") if inside else [name]
    return found
