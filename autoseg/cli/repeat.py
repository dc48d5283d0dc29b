"""The command line that repeats a run: what must be typed for its configuration to be composed again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from autoseg.cli import compose
from autoseg.config import CompareConfig, SearchConfig
from autoseg.errors import InputError

OMITTED = ("run_dir", "resume", "workers", "device")  # a repetition is a new run, wherever it takes place
NAMED = ("data", "model", "controller", "executor")  # groups whose option is their section's name


def command_for(config: Mapping[str, Any]) -> str:
    """What to type to repeat a run.

    Args:
        config: of the run, as `run_folder.read_config` gives it.
    """
    kind = "compare" if "losses" in config else "search"
    schema: type[SearchConfig] | type[CompareConfig] = CompareConfig if kind == "compare" else SearchConfig
    if "data" not in config:
        return "autoseg.search(...) in Python, with the arguments above: this run was started with its own training."
    try:
        wanted = _leaves(compose.plain(compose.load(schema, dict(config))))
        return f"autoseg {kind} {' '.join(_overrides(kind, schema, wanted))}".strip()
    except InputError as error:
        return f"not known: config.yaml is of another version ({error.field})"


def _overrides(kind: str, schema: type, wanted: dict[str, Any]) -> list[str]:
    """The shortest of: the named groups, with each choice of `proxy`, and every key that still differs."""
    usual = _leaves(compose.plain(compose.compose(kind, schema, [])))
    names = {group: wanted[f"{group}.name"] for group in NAMED if f"{group}.name" in wanted}
    groups = [
        f"{group}={name}"
        for group, name in names.items()
        if name != usual[f"{group}.name"] and name in compose.options(group)
    ]
    choices = [[*groups, f"proxy={name}"] for name in compose.options("proxy")]
    found = [choice + _differing(kind, schema, choice, wanted) for choice in [groups, *choices]]
    return min(found, key=len)


def _differing(kind: str, schema: type, groups: list[str], wanted: dict[str, Any]) -> list[str]:
    have = _leaves(compose.plain(compose.compose(kind, schema, groups)))
    return [
        _typed(key, value)
        for key, value in wanted.items()
        if key not in OMITTED and value != have.get(key, ...) and not key.startswith("executor.")
    ]


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
    import shlex

    return shlex.quote(f"{key}={_flow(value)}")


def _flow(value: Any) -> str:
    """A list or mapping in Hydra's grammar."""
    if isinstance(value, list):
        return "[" + ",".join(_flow(one) for one in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, str):
        return '"' + value.replace('"', '\\"') + '"'
    return yaml.safe_dump(value).splitlines()[0]
