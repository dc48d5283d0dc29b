"""Records with what a comparison was made, where it may change: budget, package versions, the user's own code.

A comparison is of losses only if all else is equal, but it may be continued with other settings than it began with.
Adding trainings of another network or another schedule is refused unless forced, and the table then says so; scores of
other images, or of metrics with other options or another formula, are never in one table. A file beside its ledger
records from which number of results on the settings held.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from autoseg.config import FORCIBLE
from autoseg.errors import InputError
from autoseg.evidence.comparison.compare import STUDY
from autoseg.files import write_atomic
from autoseg.store.ledger import Ledger
from autoseg.store.records import RETRYABLE, RUNNING, TrialRecord
from autoseg.store.run_files import changed_data, read_fingerprint
from autoseg.store.run_folder import RunFolder
from autoseg.store.user_code import FORMULA_OF_LOSS, RESOLVED, changed_config
from autoseg.store.versions import describe_versions, versions

HELD = "made_with.json"

Budget = Mapping[str, Any]


def admit(path: Path, budget: Budget, force: bool) -> Budget:
    """Return the fingerprint to open a comparison's folder with.

    Args:
        path: the folder of an existing comparison.
        budget: budget of the trainings to come, plain data.
        force: whether it may differ from that of the existing trainings.

    Raises:
        InputError: it differs, and this is not forced or not allowed.
    """
    then = read_fingerprint(path)
    other = [key for key in budget if key in then and then[key] != budget[key]]
    fixed = [key for key in other if not key.startswith(FORCIBLE)]
    if other and (fixed or not force):
        key = "proxy.size" if "proxy.size" in other else (fixed or other)[0]  # the data's digest is of that size
        hint = (
            "Scores of other images or of other options of a metric cannot stand in one table: make a new run folder."
            if fixed
            else "Give the old value, make a new run folder, or add force=true: the table then says so."
        )
        if key == f"model.{RESOLVED}":
            hint = hint.replace("Give the old value", "Take back the change")
            raise changed_config("model.config", budget["model.config"], hint)
        if key == "data":
            raise changed_data(path, hint.replace("make", "put them back, or make"))
        raise InputError(key, f"{then[key]!r}, as when the run began", repr(budget[key]), hint)
    return {**budget, **{key: then[key] for key in other}}


def note(
    folder: RunFolder, budget: Budget, formulas: Mapping[str, str], words: Mapping[str, Collection[str]] | None = None
) -> None:
    """Record the settings of the trainings to come, if they are new: budget, formulas, and the versions installed.

    Args:
        folder: folder of the comparison.
        budget: as in `admit`.
        formulas: from `user_code.formulas`: the user's own metrics and losses in it.
        words: the names of hand-made losses that may be in each contender, from `words_of`; those of others are read
            from their own names.

    Raises:
        InputError: trainings of the previous budget have no result yet; a formula was edited since it had a result.
    """
    known, (done, waiting) = _held(folder.path), _counts(folder.trials)
    if waiting and known and known[-1]["budget"] != budget:
        hint = "Finish it as it was first: resume it without other changes."
        raise InputError("force", "a comparison whose trainings all have a result", f"{waiting} without one", hint)
    known = [entry for entry in known if entry["after"] < done]  # settings without a result are dropped
    before = known[-1]["formulas"] if known else {}
    edited = [name for name, digest in formulas.items() if before.get(name, digest) != digest]
    scored = _scored(folder.trials, words or {}) if edited else set()
    for name in edited:
        loss = name.removeprefix(FORMULA_OF_LOSS)
        if loss == name or loss in scored:  # a loss that failed until now was mended; a metric is in every result
            hint = "Scores of both cannot stand in one table: undo the edit, or make a new run folder."
            expected = f"{before[name]!r}, as when the comparison first used it"
            raise InputError(name, expected, repr(formulas[name]), hint)
    now = {"budget": budget, "versions": versions(), "formulas": {**before, **formulas}}
    if not known or {**known[-1], **now} != known[-1]:
        write_atomic(folder.path / HELD, json.dumps([*known, {"after": done, **now}], indent=1))


def versions_of(path: Path) -> str:
    """Describe the versions of the comparison at `path`."""
    done, _ = _counts(path / "trials.db")
    known = [entry for entry in _held(path) if entry["after"] < done]
    later = [entry for before, entry in pairwise(known) if entry["versions"] != before["versions"]]
    parts = [f"after {entry['after']} of {done} trainings {describe_versions(entry['versions'])}" for entry in later]
    return "; ".join([describe_versions(known[0]["versions"] if known else {}), *parts])


def budgets_of(path: Path, records: Sequence[TrialRecord]) -> str:
    """Return one sentence that says which losses had which budget; empty if all had the same."""
    known = _held(path)
    if not known:  # the file is gone
        return ""
    budgets: list[Budget] = []
    used: list[dict[str, list[int]]] = []  # for each budget the losses with their seeds
    for record in records:
        held = [entry["budget"] for entry in known if entry["after"] <= max(record.number, 0)]
        budget = held[-1] if held else known[0]["budget"]  # the file was gone, and begun again later
        if budget not in budgets:
            budgets.append(budget)
            used.append({})
        used[budgets.index(budget)].setdefault(record.name, []).append(record.seed)
    keys = sorted({key for one in budgets for other in budgets for key in one if one[key] != other.get(key)})
    if not keys:
        return ""
    split = {name for of_one in used for name in of_one if sum(name in names for names in used) > 1}
    parts = []
    for budget, of_one in zip(budgets, used, strict=True):
        losses = [
            f"{name} (seeds {', '.join(map(str, seeds))})" if name in split else name for name, seeds in of_one.items()
        ]
        parts.append(f"{', '.join(losses)} with {', '.join(f'{key}={budget.get(key)}' for key in keys)}")
    return f"Not one budget: {'; '.join(parts)}. Differences between these are not of the losses alone."


def _held(path: Path) -> list[dict[str, Any]]:
    """Return the settings with the number of results after which they began, in order; empty before the first training.

    Raises:
        InputError: the file is damaged.
    """
    file = path / HELD
    if not file.is_file():
        return []
    try:
        known: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
        kinds = {"after": int, "budget": dict, "versions": dict, "formulas": dict}
        if not all(isinstance(entry[key], kind) for entry in known for key, kind in kinds.items()):
            raise ValueError(f"not entries of {', '.join(kinds)}")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(str(file), "what this comparison was made with", str(error)) from error
    return known


def _scored(trials: Path, words: Mapping[str, Collection[str]]) -> set[str]:
    """Return the words for hand-made losses in all contenders that have a result which is not tried again."""
    with Ledger(trials, (), read_only=True, studies=(STUDY,)) as ledger:
        names = {record.name for record in ledger.records(STUDY) if record.state not in (RUNNING, *RETRYABLE)}
    return {word for name in names for word in words.get(name) or re.findall(r"\w+", name)}


def _counts(trials: Path) -> tuple[int, int]:
    """Return the number of results of a comparison so far, repeated trainings included, and the number still
    waiting.
    """
    if not trials.exists():
        return 0, 0
    with Ledger(trials, (), read_only=True, studies=(STUDY,)) as ledger:
        waiting = sum(record.state == RUNNING for record in ledger.records(STUDY))
        return ledger.planned(STUDY) - waiting, waiting
