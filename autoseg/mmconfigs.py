"""Configs of mmengine's, which are Python: those that mmsegmentation ships are trusted, others are their user's."""

from __future__ import annotations

import difflib
import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import Any

from autoseg.errors import InputError, in_a_line

USUAL = {"config": "[!_]*/*.py", "model.config": "_base_/models/*.py", "data.mmseg_config": "_base_/datasets/*.py"}
KEYS = tuple(USUAL)  # that take such files
OF_A_REPORT = ("data.mmseg_config",)  # those that `autoseg report` reads, for the images


def shipped(config: str) -> Path | None:
    """The file of a config that comes with mmsegmentation; None if there is none of that name, inside its folder.

    Args:
        config: a name such as "_base_/models/deeplabv3plus_r50-d8.py", or a path.
    """
    folder = _folder()
    if folder is None:
        return None
    file = Path(os.path.normpath(folder / config))  # with its `..` taken away: links out of it are its own
    try:
        return file if file.is_relative_to(folder) and file.is_file() else None
    except OSError:  # no name of a file, for its length
        return None


def located(config: str) -> str:
    """A config as it holds in every folder: one of mmsegmentation's by its name, a file of the user's by its path.

    Args:
        config: `./NAME.py` is a file, also where mmsegmentation has one of that name.
    """
    path = Path(config).expanduser().resolve()
    own = shipped(config) is None or config.startswith((".", "~"))
    return str(path) if own and path.is_file() else config


def config_path(config: str, field: str) -> Path:
    """The file of a config, by its name inside the installed mmsegmentation or by its path.

    Args:
        config: e.g. "_base_/models/deeplabv3plus_r50-d8.py".
        field: where the user named it.

    Raises:
        InputError: neither exists.
    """
    if (known := shipped(config)) is not None:
        return known
    if Path(config).expanduser().is_file():
        return Path(config).expanduser()
    folder = _folder()
    if folder is None:
        raise InputError(field, "mmsegmentation installed", "no module mmseg", "Run make setup.")
    names = sorted(str(path.relative_to(folder)) for path in folder.glob(USUAL[field]))
    near = difflib.get_close_matches(config, names, n=4) or [name for name in names if Path(config).stem in name][:4]
    meant = f"Did you mean {', '.join(near)}? " if near else ""
    expected = f"a file, or the name of a config of mmsegmentation's such as {names[0]}"
    raise InputError(field, expected, repr(config), f"{meant}There are {len(names)} of that kind in {folder}.")


def mmengine_config(path: Path, field: str) -> Any:
    """What such a file defines: it is executed.

    Args:
        path: an existing file.
        field: where the user named it.

    Raises:
        InputError: it is no .py file, or cannot be read: bad syntax, a missing base, an error of its code.
    """
    from mmengine.config import Config
    from mmengine.config.utils import MODULE2PACKAGE

    if Path(path).suffix != ".py":  # of others nobody expects code, but mmengine's YAML makes any object
        raise InputError(field, "a config in Python, NAME.py", str(path))

    MODULE2PACKAGE["mmseg"] = "mmseg"  # `_base_ = "mmseg::…"` looks for its first distribution, not for today's
    try:
        return Config.fromfile(path)
    except Exception as error:  # the file's code may raise anything
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise InputError(field, "a config that mmengine can read", f"{path}{line}: {in_a_line(error)}") from error


def type_name(node: Any) -> str:
    """The name of what a part of a config builds, without the modules that configs in pure Python put before it."""
    kind = node.get("type") if isinstance(node, dict) else None
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]


@cache
def _folder() -> Path | None:
    """Where the installed mmsegmentation has its configs; it is not imported."""
    spec = importlib.util.find_spec("mmseg")
    if spec is None or spec.submodule_search_locations is None:
        return None
    return Path(os.path.abspath(spec.submodule_search_locations[0])) / ".mim" / "configs"
