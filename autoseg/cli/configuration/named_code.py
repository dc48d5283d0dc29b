"""Code that a run names: modules of its user's own, configs of mmengine's, and dotted names in its open mappings.

A run folder says as text what it was made with, and may come from anybody. Reading one never executes code: whoever
goes on with it names that code again, on the command line. Configs that mmsegmentation ships are code too, and trusted.
`type: subprocess.call` in a network's changes is to mmengine what `_target_` is to Hydra: a user who types it means it,
but from a run only names of registries are taken. And `overrides` of a full training reach all of mmengine, whose parts
call what they are named and open what they are pointed at: from a run none are taken, they are typed again. So is the
address of a cluster, which is sent code and sends back objects.
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

SCOPES = "mmseg|mmengine|mmcv|mmpretrain|mmdet"  # whose registries a name may be looked up in
REGISTERED = re.compile(rf"((?:{SCOPES})\.[A-Z])?\w+")
TYPES = ("type", "padding_mode", "conv_type")  # mmcv looks up the latter two as it does the first
OVERRIDES, NETWORK = "overrides", "model.overrides"  # where anything at all may stand


def own_configs(config: Any, keys: Sequence[str] = KEYS) -> dict[str, str]:
    """The configs that a configuration names and mmsegmentation does not ship, by their keys."""
    named = {key: at(config, key) for key in keys}
    return {key: file for key, file in named.items() if isinstance(file, str) and shipped(file) is None}


def resume_arguments(config: Any, keys: Sequence[str] = KEYS) -> str:
    """What goes to the end of a command on a run of this configuration, typed or plain; empty for no such code.

    Args:
        config: as it was read from the run, or as it runs.
        keys: of the configs that the command reads.
    """
    code = own_configs(config, keys).items()
    reaching = _reaching(config) if keys is KEYS else ()  # nothing does, in a command that only reads a run
    words = "".join(f" {typed(key, value)}" for key, value in (*code, *reaching))
    return and_imports(at(config, "imports") or []) + words


def require(config: Any, named: Mapping[str, Any], where: object, keys: Sequence[str] = KEYS) -> None:
    """Refuse a run that was made with code of its user that is not named now.

    Args:
        config: as it was read from the run, typed or plain.
        named: what the command line says, by keys. Files of `imports` may have moved; what they define is compared.
        where: the run.
        keys: of the configs that will be read.

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
    """The same for modules alone, of a command that has nothing to do with configs; `recorded` as in the run's file.

    Raises:
        InputError: some are recorded and none is named.
    """
    if recorded and not named:
        recorded = list(map(str, recorded)) if isinstance(recorded, list) else [str(recorded)]
        raise _missing("imports", f"[{','.join(recorded)}]", and_imports(recorded).strip(), where)


def refuse_code(config: Any, where: Path) -> None:
    """Refuse a run's configuration in which the changes of its network name what is in no registry.

    Args:
        config: as it was read from the run.
        where: the run.

    Raises:
        InputError: it does.
    """
    for key, value in _code_in(at(config, NETWORK), NETWORK):
        hint = "It would run code that the run chose. Register it in a file, and name that: imports=[FILE.py]."
        raise InputError(key, "the name of a registered part", f"{value!r} in {where}", hint)


def require_reaching(config: Any, given: Any, where: Path) -> None:
    """Refuse a run with overrides, or the address of a cluster, that are not typed now.

    Args:
        config: as it was read from the run, with what the command line changes of it.
        given: what the command line says.
        where: the run.

    Raises:
        InputError: they are not, or others are.
    """
    for key, value in _reaching(config):
        if not same(at(given, key), value):
            raise _missing(key, typed(key, value), typed(key, value), where)


def _reaching(config: Any) -> Iterator[tuple[str, Any]]:
    """What of a configuration, typed or plain, reaches beyond this project, by its keys."""
    if overrides := at(config, OVERRIDES):
        yield OVERRIDES, overrides
    address = at(config, "executor.address")
    if at(config, "executor.name") == "ray" and address != "auto":
        yield "executor.address", address


def _missing(key: str, code: str, words: str, where: object) -> InputError:
    hint = f"It is code, and only what you name is executed: look at it, then add {words} to the command."
    return InputError(key, f"{code}, with which {where} was begun", "none", hint)


def _code_in(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The keys below a node by which mmengine would import something, with their values."""
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
    """Whether mmengine would find a name by importing it: a path into a package, a part of one, or a module."""
    if REGISTERED.fullmatch(name) is None:
        return True
    scope, _, leaf = name.rpartition(".")
    if not scope:
        return name in sys.modules or find_spec(name) is not None
    return find_spec(scope) is not None and hasattr(import_module(scope), leaf)
