"""Which package versions trained a comparison: it may be gone on with by others than it was begun with."""

from __future__ import annotations

import json
from pathlib import Path

from autoseg.evidence.kept_lists import read_list, recorded
from autoseg.files import write_atomic
from autoseg.search.records import RUNNING
from autoseg.search.run_folder import RunFolder
from autoseg.search.versions import told, versions

NAME = "versions.json"


def note(folder: RunFolder) -> None:
    """Keep the installed versions, and after how many results they came, if that is new."""
    known = read_list(folder.path / NAME, "after", "versions")
    done = sum(record.state != RUNNING for record in recorded(folder))
    if done and not known:  # of a comparison that was begun without keeping them
        known = [{"after": 0, "versions": {}}]
    known = [entry for entry in known if entry["after"] < done]  # of versions that brought no result, nothing is said
    if not known or known[-1]["versions"] != versions():
        write_atomic(folder.path / NAME, json.dumps([*known, {"after": done, "versions": versions()}], indent=1))


def described(path: Path, done: int) -> str:
    """The versions in words.

    Args:
        path: of the comparison.
        done: how many of its trainings have a result.
    """
    known = [entry for entry in read_list(path / NAME, "after", "versions") if entry["after"] < done]
    parts = [f"after {entry['after']} of {done} trainings {told(entry['versions'])}" for entry in known[1:]]
    return "; ".join([told(known[0]["versions"] if known else {}), *parts])
