"""Converts configurations to plain data, for files, and back, with every key checked against its schema.

Without Hydra.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from autoseg.errors import InputError, first_line

T = TypeVar("T")


def plain(config: Any) -> dict[str, Any]:
    """Return a configuration as plain data (dicts, lists, numbers, text), for files.

    `${…}` in its text is plain text.
    """
    return asdict(config)


def as_yaml(config: Any) -> str:
    """Return a configuration as YAML text."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)


def load(schema: type[T], data: Mapping[str, Any]) -> T:
    """Build a typed configuration from a run's plain data, the reverse of `plain`.

    A missing key did not exist when an earlier version wrote the file: it gets its default, which is what that version
    did.

    Raises:
        InputError: the data does not fit the schema, or has other keys: another version wrote it.
    """
    known = keys(schema)
    unknown = [key for key in leaves(data, known) if key not in known]
    if unknown:
        hint = "The run is of another version of autoseg: use that one, or start a new run."
        raise InputError(", ".join(sorted(unknown)), "no such key", "it", hint)
    try:
        return cast(T, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), literal(data))))
    except OmegaConfBaseException as error:
        wrong = InputError("configuration", "values of the kinds it has", first_line(error))
        raise explain(error, schema, {}) or wrong from error


def literal(node: Any) -> Any:
    """Escape plain data so that OmegaConf changes no text: `${oc.env:HOME}` in a run's file is not looked up."""
    if isinstance(node, Mapping):
        return {key: literal(value) for key, value in node.items()}
    if isinstance(node, list):
        return [literal(value) for value in node]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", node) if isinstance(node, str) else node


def leaves(tree: Mapping[str, Any], whole: Collection[str] = (), head: str = "") -> dict[str, Any]:
    """Return dotted keys with their values; a mapping is a value if it is empty, or under a key of `whole`."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{head}{name}"
        if isinstance(value, Mapping) and value and key not in whole:
            found |= leaves(value, whole, f"{key}.")
        else:
            found[key] = value
    return found


def at(config: Any, key: str) -> Any:
    """Return the value of a dotted key in a typed or plain configuration; None if there is no such key."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else getattr(config, part, None)
    return config


def same(one: Any, other: Any) -> bool:
    """Return whether two values are equal, with keys of mappings as text: `a.0.b` gives text keys, `a={0:{b:1}}` does
    not.
    """

    def texts(node: Any) -> Any:
        if isinstance(node, Mapping):
            return {str(key): texts(value) for key, value in node.items()}
        return [texts(value) for value in node] if isinstance(node, list | tuple) else node

    return bool(texts(one) == texts(other))


def put(config: Any, key: str, value: Any) -> None:
    """Set the value of a dotted key in a typed configuration."""
    section, _, leaf = key.rpartition(".")
    setattr(at(config, section) if section else config, leaf, value)


def keys(schema: type) -> dict[str, Any]:
    """Return every dotted key of a schema with its type, sections left out."""
    found: dict[str, Any] = {}
    hints = get_type_hints(schema)
    for field in fields(schema):
        kind = hints[field.name]
        if is_dataclass(kind):
            found.update({f"{field.name}.{inner}": t for inner, t in keys(kind).items()})  # type: ignore[arg-type]
        else:
            found[field.name] = kind
    return found


def explain(error: Exception, schema: type, typed: dict[str, str]) -> InputError | None:
    """Return an InputError for a wrong type, or None; `typed` is the user's text for each key."""
    for cause in (error, error.__cause__, error.__context__):  # Hydra sets the last alone
        key = str(getattr(cause, "full_key", None) or "").partition("[")[0]
        if key:
            kind = keys(schema).get(key)
            expected = _words(kind) if kind is not None else "a section of keys"
            problem = str(getattr(cause, "msg", cause)).splitlines()[0].rstrip(".")
            plainly = key in typed and "${" not in typed[key]
            return InputError(key, expected, repr(typed[key]) if plainly else f"what fails with: {problem}")
    return None


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Any: "a value or [a,b]"}


def _words(kind: Any) -> str:
    """Describe a type in words for users."""
    if kind in _WORDS:
        return _WORDS[kind]
    arguments = [a for a in get_args(kind) if a is not type(None)]
    if get_origin(kind) is list:
        return "a list like [a,b], each " + _words(arguments[0])
    if get_origin(kind) is dict:
        return "a mapping like {key: value}"
    return f"{_words(arguments[0])} or null"
