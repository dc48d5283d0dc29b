"""mmengine configs, which are Python code: those that mmsegmentation ships are trusted, others are the user's."""

from __future__ import annotations

import difflib
import importlib.util
import os
from functools import cache
from pathlib import Path
from typing import Any

from autoseg.errors import InputError, in_a_line

USUAL = {"config": "[!_]*/*.py", "model.config": "_base_/models/*.py", "data.mmseg_config": "_base_/datasets/*.py"}
KEYS = tuple(USUAL)  # the keys whose values are such files
OF_A_REPORT = ("data.mmseg_config",)  # the keys that `autoseg report` reads, for the images


def shipped(config: str) -> Path | None:
    """Return the file of a config that comes with mmsegmentation; None if its folder has none of that name.

    Args:
        config: a name such as "_base_/models/deeplabv3plus_r50-d8.py", or a path.
    """
    folder = _folder()
    if folder is None:
        return None
    file = Path(os.path.normpath(folder / config))  # `..` removed; links inside are allowed
    try:
        return file if file.is_relative_to(folder) and file.is_file() else None
    except OSError:  # too long for a file's name
        return None


def located(config: str) -> str:
    """Return a config so that it is valid in every folder: mmsegmentation's by name, a file of the user's by absolute
    path.

    Args:
        config: `./NAME.py` is a file, even if mmsegmentation has one of that name.
    """
    path = Path(config).expanduser().resolve()
    own = shipped(config) is None or config.startswith((".", "~"))
    return str(path) if own and path.is_file() else config


def config_path(config: str, field: str) -> Path:
    """Return the file of a config, given by its name inside the installed mmsegmentation or by its path.

    Args:
        config: e.g. "_base_/models/deeplabv3plus_r50-d8.py".
        field: the argument in which the user named it.

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
    """Execute a config and return what it defines.

    Args:
        path: an existing file.
        field: the argument in which the user named it.

    Raises:
        InputError: it is no .py file, or cannot be read: bad syntax, a missing base, an error in its code.
    """
    from mmengine.config import Config
    from mmengine.config.utils import MODULE2PACKAGE

    if Path(path).suffix != ".py":  # others look harmless, but mmengine's YAML can create any object
        raise InputError(field, "a config in Python, NAME.py", str(path))

    MODULE2PACKAGE["mmseg"] = "mmseg"  # the name that `_base_ = "mmseg::…"` looks for
    try:
        return Config.fromfile(path)
    except Exception as error:  # the file's code may raise anything
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        said, elsewhere, _ = in_a_line(error).partition(", the current sys.path is")  # a module of custom_imports
        hint = "Install it, or put its folder on PYTHONPATH." if elsewhere else ""
        raise InputError(field, "a config that mmengine can read", f"{path}{line}: {said}", hint) from error


def type_name(node: Any) -> str:
    """Return the name of the class that a part of a config builds, without the modules that configs in pure Python
    prefix.
    """
    kind = node.get("type") if isinstance(node, dict) else None
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]


@cache
def _folder() -> Path | None:
    """Return the folder of the installed mmsegmentation's configs, without importing it."""
    spec = importlib.util.find_spec("mmseg")
    if spec is None or spec.submodule_search_locations is None:
        return None
    return Path(os.path.abspath(spec.submodule_search_locations[0])) / ".mim" / "configs"
