"""The command line that repeats a run: the arguments that compose its configuration again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from autoseg.cli.configuration import compose, stored
from autoseg.cli.configuration.overrides import typed
from autoseg.config import CompareConfig, SearchConfig
from autoseg.errors import InputError
from autoseg.evidence.comparison.contenders import CARDS
from autoseg.evidence.comparison.rivals import texts_of
from autoseg.losses.build import terms_of
from autoseg.losses.expression import quoted, renamed
from autoseg.store.run_files import kind_of, read_fingerprint

OMITTED = ("run_dir", "resume", "workers", "device")  # a repetition is a new run, on any machine
SCHEMAS: dict[str, type] = {"search": SearchConfig, "compare": CompareConfig}
RIVALS = "search.confirm.rivals"
NAMED = ("data", "model", "controller")  # groups whose option is their section's name


def command_for(config: Mapping[str, Any], run: Path) -> str:
    """Return the command that repeats a run.

    Args:
        config: the run's configuration, from `run_files.read_config`.
        run: its folder, which has the cards of a comparison.

    Raises:
        InputError: it is another kind of run.
    """
    kind = kind_of(config, run, SCHEMAS)
    if "data" not in config:
        return "autoseg.search(...) in Python, with the arguments above: this run was started with its own training."
    try:
        wanted = stored.leaves(stored.plain(stored.load(SCHEMAS[kind], dict(config))))
        if "losses" in wanted:
            wanted["losses"] = [_with_cards(text, run) for text in wanted["losses"]]
        if kind == "search":
            copies = texts_of(run, wanted["metric"])
            wanted[RIVALS] = [copies.get(text, text) for text in wanted[RIVALS]]
        if wanted.get("split") == "auto" and (run / "fingerprint.json").is_file():  # auto has meant another split
            wanted["split"] = str(read_fingerprint(run).get("split", "auto"))
        return f"autoseg {kind} {' '.join(_overrides(kind, wanted))}".strip()
    except InputError as error:
        return f"not known: config.yaml is of another version ({error.field})"


def data_and_model(config: SearchConfig) -> list[str]:
    """Return the arguments of a search's data and network, which other commands take too."""
    alone = replace(compose.compose("search", SearchConfig, []), data=config.data, model=config.model)
    return _overrides("search", stored.leaves(stored.plain(alone)))


def _with_cards(text: str, run: Path) -> str:
    """Return a loss of a comparison with the paths of its cards, in quotes where a sum needs them."""
    for term in terms_of(text):
        if term.name.startswith(f"{CARDS}/"):
            path = str(run / term.name)
            text = path if text == term.name else renamed(text, term.name, quoted(path))
    return text


def _overrides(kind: str, wanted: dict[str, Any]) -> list[str]:
    """Return the named groups and every key that still differs, with the `proxy` group that leaves the fewest."""
    usual = _composed(kind)
    names = {group: wanted[f"{group}.name"] for group in NAMED if f"{group}.name" in wanted}
    groups = [
        f"{group}={name}"
        for group, name in names.items()
        if name != usual[f"{group}.name"] and name in compose.options(group)
    ]
    if "model.config" in wanted and wanted["model.name"] not in compose.options("model"):
        groups.append(typed("model.config", wanted["model.config"]))  # so that no preset's changes apply
    best = groups + _differing(kind, groups, wanted)
    if any(text.startswith("proxy.") for text in best):
        choices = [[*groups, f"proxy={name}"] for name in compose.options("proxy")]
        best = min([best, *(choice + _differing(kind, choice, wanted) for choice in choices)], key=len)
    return best


def _differing(kind: str, groups: list[str], wanted: dict[str, Any]) -> list[str]:
    have = _composed(kind, *groups)
    keys = [key for key in wanted if key not in OMITTED and not key.startswith("executor.")]
    differing = [key for key in keys if wanted[key] != have.get(key, ...)]
    return [typed("space" if key == "space.name" else key, wanted[key]) for key in differing]


@cache
def _composed(kind: str, *overrides: str) -> dict[str, Any]:
    return stored.leaves(stored.plain(compose.compose(kind, SCHEMAS[kind], list(overrides))))
