"""Code that a run names: its user's own modules, mmengine configs, and dotted names in its open mappings.

A run folder names in text the code it was made with, and may come from anybody. Reading one never executes code: to
go on with a run, its user names that code again on the command line. Configs that mmsegmentation ships are code too,
and are trusted.

`type: subprocess.call` in a network's changes is to mmengine what `_target_` is to Hydra: a user who types it means it,
but from a run only names in registries are accepted. `overrides` of a full training reach all of mmengine, whose parts
call functions and open files by name: from a run none are accepted, they must be typed again. The same is true for the
address of a cluster, which receives code and sends back objects.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from autoseg.cli.configuration.overrides import and_imports, typed
from autoseg.cli.configuration.stored import at, same
from autoseg.errors import InputError
from autoseg.mmconfigs import KEYS, shipped

SCOPES = "mmseg|mmengine|mmcv|mmpretrain|mmdet"  # packages in whose registries a name may be looked up
REGISTERED = re.compile(rf"((?:{SCOPES})\.[A-Z])?\w+")
TYPES = ("type", "padding_mode", "conv_type")  # mmcv looks up the latter two as it does the first
OVERRIDES, NETWORK = "overrides", "model.overrides"  # keys with arbitrary content


def own_configs(config: Any, keys: Sequence[str] = KEYS) -> dict[str, str]:
    """Return the configs that a configuration names and mmsegmentation does not ship, by key."""
    named = {key: at(config, key) for key in keys}
    return {key: file for key, file in named.items() if isinstance(file, str) and shipped(file) is None}


def resume_arguments(config: Any, keys: Sequence[str] = KEYS) -> str:
    """Return the arguments that a command on a run of this configuration must end with; empty without such code.

    Args:
        config: the configuration, typed or plain.
        keys: keys of the configs that the command reads.
    """
    code = own_configs(config, keys).items()
    reaching = _reaching(config) if keys is KEYS else ()  # nothing does, in a command that only reads a run
    words = "".join(f" {typed(key, value)}" for key, value in (*code, *reaching))
    return and_imports(at(config, "imports") or []) + words


def require(config: Any, named: Mapping[str, Any], where: object, keys: Sequence[str] = KEYS) -> None:
    """Raise if a run was made with its user's code and the command line does not name that code.

    Args:
        config: the run's configuration, typed or plain.
        named: code on the command line, by key. Files of `imports` may have moved; their definitions are compared.
        where: the run.
        keys: keys of the configs that will be read.

    Raises:
        InputError: the run names code, and the command line none, or another config.
    """
    require_imports(at(config, "imports"), named.get("imports"), where)
    for key, file in own_configs(config, keys).items():
        if not named.get(key):
            raise _missing(key, file, typed(key, file), where)
        if Path(named[key]).expanduser().resolve() != Path(file).expanduser().resolve():
            raise InputError(key, f"{file}, with which {where} was begun", named[key])


def require_imports(recorded: Any, named: Any, where: object) -> None:
    """Do the same as `require` for modules alone, in a command without configs.

    `recorded` is the value in the run's file.

    Raises:
        InputError: some are recorded and none is named.
    """
    if recorded and not named:
        recorded = list(map(str, recorded)) if isinstance(recorded, list) else [str(recorded)]
        raise _missing("imports", f"[{','.join(recorded)}]", and_imports(recorded).strip(), where)


def refuse_code(config: Any, where: Path) -> None:
    """Raise if the network's changes in a run's configuration name something that is in no registry.

    Args:
        config: the run's configuration.
        where: the run.

    Raises:
        InputError: it does.
    """
    for key, value in _code_in(at(config, NETWORK), NETWORK):
        hint = "It would run code that the run chose. Register it in a file, and name that: imports=[FILE.py]."
        raise InputError(key, "the name of a registered part", f"{value!r} in {where}", hint)


def require_reaching(config: Any, given: Any, where: Path) -> None:
    """Raise if a run has overrides, or the address of a cluster, that the command line does not repeat.

    Args:
        config: the run's configuration, with the command line's changes.
        given: the configuration of the command line.
        where: the run.

    Raises:
        InputError: they are missing or different.
    """
    for key, value in _reaching(config):
        if not same(at(given, key), value):
            raise _missing(key, typed(key, value), typed(key, value), where)


def _reaching(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a configuration that reach beyond this project, by key."""
    if overrides := at(config, OVERRIDES):
        yield OVERRIDES, overrides
    address = at(config, "executor.address")
    if at(config, "executor.name") == "ray" and address != "auto":
        yield "executor.address", address


def _missing(key: str, code: str, words: str, where: object) -> InputError:
    hint = f"It is code, and only what you name is executed: look at it, then add {words} to the command."
    return InputError(key, f"{code}, with which {where} was begun", "none", hint)


def _code_in(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the keys below a node that make mmengine import something, with their values."""
    if isinstance(node, list | tuple):
        for item in node:
            yield from _code_in(item, path)
    if isinstance(node, Mapping):
        for key, value in node.items():
            leaf = str(key).rpartition(".")[2]  # mmengine takes dotted keys apart
            if (
                (leaf in TYPES and isinstance(value, str) and _is_code(value))
                or (leaf in ("_scope_", "default_scope") and value not in SCOPES.split("|"))
                or "custom_imports" in str(key).split(".")
            ):
                yield f"{path}.{key}", value
            yield from _code_in(value, f"{path}.{key}")


def _is_code(name: str) -> bool:
    """Return whether mmengine would find a name by importing it: a path into a package, a part of one, or a module."""
    if REGISTERED.fullmatch(name) is None:
        return True
    scope, _, leaf = name.rpartition(".")
    if not scope:
        return name in sys.modules or find_spec(name) is not None
    return find_spec(scope) is not None and hasattr(import_module(scope), leaf)
