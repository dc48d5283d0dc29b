"""What a comparison keeps in files beside its ledger: lists that say what held from which training on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from autoseg.errors import InputError
from autoseg.evidence.compare import STUDY
from autoseg.search.ledger import Ledger
from autoseg.search.records import TrialRecord
from autoseg.search.run_folder import RunFolder


def read_list(file: Path, number: str, content: str) -> list[dict[str, Any]]:
    """The entries of such a file, each a whole `number` and a mapping `content`; none if there is no file.

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
