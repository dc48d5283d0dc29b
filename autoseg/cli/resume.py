"""`resume=RUN`: the configuration of an interrupted run, with what may be changed about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from autoseg.cli import compose
from autoseg.config import CompareConfig, RetrainConfig, SearchConfig
from autoseg.errors import InputError
from autoseg.search.run_folder import read_config

FREE = ("workers", "device", "tracker", "executor", "search.rounds")  # nothing of the search depends on them

T = TypeVar("T", SearchConfig, CompareConfig, RetrainConfig)


def resumed(given: T, typed: list[str], free: Sequence[str] = FREE) -> T:
    """The run's own configuration, with those typed keys that a resumed run may change.

    Args:
        given: what the command line composes to; `resume` is set.
        typed: the keys the user typed.
        free: those that may change.

    Raises:
        InputError: not a run folder, or a typed key would make it another search.
    """
    run = Path(str(given.resume)).expanduser()
    kept = compose.load(type(given), read_config(run))
    for key in typed:
        if key in ("resume", "run_dir"):
            continue
        if key == "experiment":
            raise InputError("experiment", "none beside resume", "one", "The run keeps its own configuration.")
        old, new = _get(kept, key), _get(given, key)
        if any(key == name or key.startswith(f"{name}.") for name in free):
            _set(kept, key, new)
        elif old != new:
            hint = f"A resumed run takes new values of {', '.join(free)}."
            raise InputError(key, f"{old!r}, as when the run began", repr(new), hint)
    return dataclasses.replace(kept, resume=str(run), run_dir=str(run))


def _get(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[part] if isinstance(config, dict) else getattr(config, part)
    return config


def _set(config: Any, key: str, value: Any) -> None:
    parent, _, leaf = key.rpartition(".")
    setattr(_get(config, parent) if parent else config, leaf, value)
