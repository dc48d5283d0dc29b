"""Imports a user's own modules with metrics and losses, because the user named them: `imports=[my_metrics.py]`.

A run folder and a card name in text the modules they were made with, but these are never imported from there: the error
says what to name, and only modules named on a command line (or in a config that is itself Python) are executed.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import cloudpickle

from autoseg.errors import InputError, in_a_line

NAME = r"[a-z_][a-z0-9_]*"  # pattern of the name of a metric or loss
OWN = "One of your own is known once its file is imported: imports=[FILE.py] on the command line."


def resolve_paths(names: Sequence[str]) -> list[str]:
    """Return the names so that they are valid in every folder: files by their absolute paths, modules unchanged.

    Raises:
        InputError: a file that does not exist.
    """
    return [str(_file(name)) if _is_file(name) else name for name in names]


def make_importable(names: Sequence[str]) -> None:
    """Let files import modules beside them, here and in every worker that is started from now on.

    Args:
        names: from `resolve_paths`.
    """
    for name in names:
        folder = str(Path(name).parent)
        if _is_file(name) and folder not in sys.path:
            sys.path.append(folder)  # last, so that it hides no installed module


def import_modules(names: Sequence[str]) -> None:
    """Import the modules, each once in a process; the metrics and losses that they register are then known.

    Workers get a file's content with their task: changing the file while a search runs does not change the search.

    Args:
        names: paths of .py files, or names of modules that Python finds.

    Raises:
        InputError: a file that does not exist, a module that cannot be found or imported.
    """
    names = resolve_paths(names)
    make_importable(names)
    for name in names:
        try:
            _load_file(Path(name)) if _is_file(name) else importlib.import_module(name)
        except InputError as error:
            raise InputError(f"imports, {name}: {error.field}", error.expected, error.got, error.hint) from error
        except (Exception, SystemExit) as error:
            raise _failed(name, error) from error


def _is_file(name: str) -> bool:
    return name.endswith(".py") or "/" in name


def _file(name: str) -> Path:
    path = Path(name).expanduser().absolute()
    if path.suffix != ".py" or not path.is_file():
        raise InputError("imports", "existing .py files, or names of modules", f"'{name}'", "Check the path.")
    return path


def _load_file(path: Path) -> None:
    """Import a file under a unique name, so that it does not collide with an installed module."""
    name = f"_own_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    cloudpickle.register_pickle_by_value(module)


def _failed(name: str, error: BaseException) -> InputError:
    """Return the error for a module that cannot be imported: what is wrong, and in which of its lines."""
    if isinstance(error, ModuleNotFoundError) and error.name is not None and f"{name}.".startswith(f"{error.name}."):
        beside = Path(f"{name.replace('.', '/')}.py")
        hint = f"Did you mean imports=[{beside}]?" if beside.is_file() else "It must be installed or on PYTHONPATH."
        return InputError("imports", "existing .py files, or names of modules", f"no module {name}", hint)
    line = getattr(error, "lineno", None)
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == name:
            line = trace.tb_lineno
        trace = trace.tb_next
    where = f"{name}, line {line}" if line else name
    return InputError("imports", "modules that can be imported", f"{where}: {in_a_line(error)}")
