"""Under which budget each training of a comparison ran, where it is not one for all.

A comparison is of losses only if all else is equal. Adding trainings of another network or another schedule is refused
unless forced, and is said in the table; scores of other images or of metrics with other options never stand in one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoseg.config import FORCIBLE
from autoseg.errors import InputError
from autoseg.evidence.comparison.made_with import read_list, recorded
from autoseg.files import write_atomic
from autoseg.search.own import RESOLVED, changed_config
from autoseg.search.records import RUNNING, TrialRecord
from autoseg.search.run_folder import RunFolder, read_fingerprint

NAME = "budgets.json"

Budget = Mapping[str, Any]


def admit(path: Path, budget: Budget, force: bool) -> Budget:
    """The fingerprint to open a comparison's folder with.

    Args:
        path: of an existing comparison.
        budget: of the trainings to come.
        force: whether they may have another one than those there are.

    Raises:
        InputError: they would, and it is not forced or cannot be.
    """
    then = read_fingerprint(path)
    other = [key for key in budget if key in then and then[key] != budget[key]]
    fixed = [key for key in other if not key.startswith(FORCIBLE)]
    if other and (fixed or not force):
        key = (fixed or other)[0]
        hint = (
            "Scores of other images or of other options of a metric cannot stand in one table: make a new run folder."
            if fixed
            else "Give the old value, make a new run folder, or add force=true: the table then says so."
        )
        if key == f"model.{RESOLVED}":
            hint = hint.replace("Give the old value", "Take back the change")
            raise changed_config("model.config", budget["model.config"], hint)
        raise InputError(key, f"{then[key]!r}, as when the run began", repr(budget[key]), hint)
    return {**budget, **{key: then[key] for key in other}}


def note(folder: RunFolder, budget: Budget) -> None:
    """Keep from which training on a budget holds. Writes nothing as long as there is one budget.

    Raises:
        InputError: trainings of the budget before have no result yet.
    """
    known = _read(folder.path)
    if not _different(known[-1]["budget"], budget):
        return
    records = recorded(folder)
    if waiting := sum(record.state == RUNNING for record in records):
        hint = "Finish it as it was first: resume it without other changes."
        raise InputError("force", "a comparison whose trainings all have a result", f"{waiting} without one", hint)
    write_atomic(folder.path / NAME, json.dumps([*known, {"from": len(records), "budget": budget}], indent=1))


def described(path: Path, records: Sequence[TrialRecord]) -> str:
    """One sentence that says which losses had which budget; empty if all had the same."""
    known = _read(path)
    used: dict[int, dict[str, list[int]]] = {}
    for record in records:
        budget = [entry["budget"] for entry in known if entry["from"] <= max(record.number, 0)][-1]
        place = next(i for i, entry in enumerate(known) if entry["budget"] == budget)
        used.setdefault(place, {}).setdefault(record.name, []).append(record.seed)
    budgets = {place: known[place]["budget"] for place in used}
    keys = sorted({key for one in budgets.values() for other in budgets.values() for key in _different(one, other)})
    if not keys:
        return ""
    split = {name for place in used for name in used[place] if sum(name in names for names in used.values()) > 1}
    parts = [
        ", ".join(
            f"{name} (seeds {', '.join(map(str, seeds))})" if name in split else name
            for name, seeds in used[place].items()
        )
        + " with "
        + ", ".join(f"{key}={budgets[place][key]}" for key in keys)
        for place in sorted(used)
    ]
    return f"Not one budget: {'; '.join(parts)}. Differences between these are not of the losses alone."


def _different(one: Budget, other: Budget) -> list[str]:
    """The keys in which two budgets differ."""
    return [key for key in one if key in other and one[key] != other[key]]


def _read(path: Path) -> list[dict[str, Any]]:
    return read_list(path / NAME, "from", "budget") or [{"from": 0, "budget": read_fingerprint(path)}]
