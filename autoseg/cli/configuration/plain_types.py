"""What a run says of a network or a training, kept from naming code: mmengine calls whatever a dotted `type` names.

`type: subprocess.call` in an open mapping is to mmengine what `_target_` is to Hydra. A user who types it means it;
from a run's folder, which may come from anybody, only names of registries are taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from autoseg.cli.configuration.named_code import at
from autoseg.errors import InputError

SCOPES = "mmseg|mmengine|mmcv|mmpretrain|mmdet"  # whose registries a name may be looked up in
REGISTERED = re.compile(rf"((?:{SCOPES})\.[A-Z])?\w+")
OPEN = ("overrides", "model.overrides")  # where anything at all may stand


def refuse_code(config: Any, where: Path) -> None:
    """Refuse a run's configuration in which an open mapping names what is in no registry.

    Args:
        config: as it was read from the run.
        where: the run.

    Raises:
        InputError: it does.
    """
    for field in OPEN:
        for key, value in _named(at(config, field), field):
            hint = "It would run code that the run chose. Register it in a file, and name that: imports=[FILE.py]."
            raise InputError(key, "the name of a registered part", f"{value!r} in {where}", hint)


def _named(node: Any, at: str) -> Iterator[tuple[str, Any]]:
    """The keys below a node by which mmengine would import something, with their values."""
    if isinstance(node, list | tuple):
        for item in node:
            yield from _named(item, at)
    if isinstance(node, Mapping):
        for key, value in node.items():
            leaf = str(key).rpartition(".")[2]  # mmengine takes dotted keys apart
            if (
                (leaf == "type" and isinstance(value, str) and _is_code(value))
                or (leaf in ("_scope_", "default_scope") and value not in SCOPES.split("|"))
                or "custom_imports" in str(key).split(".")
            ):
                yield f"{at}.{key}", value
            yield from _named(value, f"{at}.{key}")


def _is_code(name: str) -> bool:
    """Whether mmengine would find a name by importing it: a path into a package, or a module."""
    if REGISTERED.fullmatch(name) is None:
        return True
    return "." not in name and find_spec(name) is not None
