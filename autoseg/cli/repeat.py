"""The command line that repeats a run: what must be typed for its configuration to be composed again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from autoseg.cli import compose
from autoseg.config import CompareConfig, SearchConfig
from autoseg.errors import InputError
from autoseg.evidence.contenders import CARDS

OMITTED = ("run_dir", "resume", "workers", "device")  # a repetition is a new run, wherever it takes place
SCHEMAS: dict[str, type] = {"search": SearchConfig, "compare": CompareConfig}
NAMED = ("data", "model", "controller")  # groups whose option is their section's name


def command_for(config: Mapping[str, Any], run: Path) -> str:
    """What to type to repeat a run.

    Args:
        config: of the run, as `run_folder.read_config` gives it.
        run: its folder, which has the cards of a comparison.
    """
    kind = "compare" if "losses" in config else "search"
    if "data" not in config:
        return "autoseg.search(...) in Python, with the arguments above: this run was started with its own training."
    try:
        wanted = _leaves(compose.plain(compose.load(SCHEMAS[kind], dict(config))))
        if "losses" in wanted:
            wanted["losses"] = [text.replace(f"{CARDS}/", f"{run / CARDS}/") for text in wanted["losses"]]
        return f"autoseg {kind} {' '.join(_overrides(kind, wanted))}".strip()
    except InputError as error:
        return f"not known: config.yaml is of another version ({error.field})"


def _overrides(kind: str, wanted: dict[str, Any]) -> list[str]:
    """The named groups and every key that still differs; with the `proxy` that leaves the fewest."""
    usual = _composed(kind)
    names = {group: wanted[f"{group}.name"] for group in NAMED if f"{group}.name" in wanted}
    groups = [
        f"{group}={name}"
        for group, name in names.items()
        if name != usual[f"{group}.name"] and name in compose.options(group)
    ]
    best = groups + _differing(kind, groups, wanted)
    if any(text.startswith("proxy.") for text in best):
        choices = [[*groups, f"proxy={name}"] for name in compose.options("proxy")]
        best = min([best, *(choice + _differing(kind, choice, wanted) for choice in choices)], key=len)
    return best


def _differing(kind: str, groups: list[str], wanted: dict[str, Any]) -> list[str]:
    have = _composed(kind, *groups)
    keys = [key for key in wanted if key not in OMITTED and not key.startswith("executor.")]
    return [_typed(key, wanted[key]) for key in keys if wanted[key] != have.get(key, ...)]


@cache
def _composed(kind: str, *overrides: str) -> dict[str, Any]:
    return _leaves(compose.plain(compose.compose(kind, SCHEMAS[kind], list(overrides))))


def _leaves(tree: Mapping[str, Any], head: str = "") -> dict[str, Any]:
    """Dotted keys to values; open dictionaries (`controller.options`) are descended into as well."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            found |= _leaves(value, f"{head}{key}.")
        else:
            found[head + str(key)] = value
    return found


def _typed(key: str, value: Any) -> str:
    """One override as it is typed into a shell."""
    if isinstance(value, str):
        return compose.typed("space" if key == "space.name" else key, value)
    if value is None or isinstance(value, bool | int | float):
        return f"{key}={yaml.safe_dump(value).splitlines()[0]}"
    return shlex.quote(f"{key}={_flow(value)}")


def _flow(value: Any) -> str:
    """A list or mapping in Hydra's grammar."""
    if isinstance(value, list):
        return "[" + ",".join(_flow(one) for one in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, str):
        return value if _plain(value) else '"' + value.replace('"', '\\"') + '"'
    return yaml.safe_dump(value).splitlines()[0]


def _plain(text: str) -> bool:
    """Whether Hydra reads the text as itself, without quotes."""
    word = re.fullmatch(r"[A-Za-z_][\w./*+-]*|\d+(\.\d+)?\*[\w./*+-]+", text) is not None
    return word and text.lower() not in ("null", "true", "false", "nan", "inf")
