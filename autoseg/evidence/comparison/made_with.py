"""What a comparison was trained with, where it may not be the same for all: package versions, code of the user's own.

A comparison may be gone on with by others than it was begun with. Lists beside its ledger say what held from which
training on: here of the versions, in `budgets` of the budgets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoseg.errors import InputError
from autoseg.evidence.comparison.compare import STUDY
from autoseg.files import write_atomic
from autoseg.search.ledger import Ledger
from autoseg.search.records import RUNNING, TrialRecord
from autoseg.search.run_folder import RunFolder, read_json
from autoseg.search.versions import told, versions

VERSIONS, FORMULAS = "versions.json", "formulas.json"


def note(folder: RunFolder) -> None:
    """Keep the installed versions, and after how many results they came, if that is new."""
    known = read_list(folder.path / VERSIONS, "after", "versions")
    done = sum(record.state != RUNNING for record in recorded(folder))
    if done and not known:  # of a comparison that was begun without keeping them
        known = [{"after": 0, "versions": {}}]
    known = [entry for entry in known if entry["after"] < done]  # of versions that brought no result, nothing is said
    if not known or known[-1]["versions"] != versions():
        write_atomic(folder.path / VERSIONS, json.dumps([*known, {"after": done, "versions": versions()}], indent=1))


def described(path: Path, done: int) -> str:
    """The versions in words.

    Args:
        path: of the comparison.
        done: how many of its trainings have a result.
    """
    known = [entry for entry in read_list(path / VERSIONS, "after", "versions") if entry["after"] < done]
    parts = [f"after {entry['after']} of {done} trainings {told(entry['versions'])}" for entry in known[1:]]
    return "; ".join([told(known[0]["versions"] if known else {}), *parts])


def same_code(folder: RunFolder, now: Mapping[str, str]) -> None:
    """Refuse own metrics and losses that were edited since the comparison first used them; others are kept as new.

    Args:
        folder: of the comparison.
        now: of `search.own.formulas`.

    Raises:
        InputError: one was.
    """
    file = folder.path / FORMULAS
    known = read_json(file) if file.exists() else {}
    for name, digest in now.items():
        if known.get(name, digest) != digest:
            hint = "Scores of both cannot stand in one table: undo the edit, or make a new run folder."
            raise InputError(name, f"{known[name]!r}, as when the comparison first used it", repr(digest), hint)
    if not now.keys() <= known.keys():
        write_atomic(file, json.dumps({**known, **now}, indent=1))


def read_list(file: Path, number: str, content: str) -> list[dict[str, Any]]:
    """The entries of such a list, each a whole `number` and a mapping `content`; none if there is no file.

    Raises:
        InputError: it is damaged.
    """
    if not file.is_file():
        return []
    try:
        known: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        if not all(isinstance(entry[number], int) and isinstance(entry[content], dict) for entry in known):
            raise ValueError(f"not entries of {number} and {content}")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(str(file), f"the list of {file.stem} of this comparison", str(error)) from error
    return known


def recorded(folder: RunFolder) -> list[TrialRecord]:
    """All trainings of a comparison so far, in the order in which they were planned."""
    if not folder.trials.exists():
        return []
    with Ledger(folder.trials, (), read_only=True, studies=(STUDY,)) as ledger:
        return ledger.records(STUDY)
