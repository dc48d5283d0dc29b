"""The found losses among a search's rivals. The run keeps copies, which it and `trust` read: it may be moved, and the
files that the user named may change.
"""

from __future__ import annotations

import json
from pathlib import Path

from autoseg.config import SearchSettings
from autoseg.evidence.comparison.contenders import built_from, contender, keep_cards
from autoseg.files import write_atomic
from autoseg.search.target import hand_made_rivals
from autoseg.store.run_files import read_json

KEPT = "rivals.json"  # in the run folder: the user's text of each rival to the one with the cards of the run


def texts_of(run: Path, metric: str) -> dict[str, str]:
    """Return the text that each rival with a card is built from, by the user's; empty for a run without any.

    Raises:
        InputError: a copy that is missing or damaged.
    """
    return {name: built_from(contender(text, metric, run), run) for name, text in _kept(run).items()}


def keep(settings: SearchSettings, metric: str, run: Path) -> dict[str, str]:
    """Copy the cards among the rivals into the run folder, those that it has not yet.

    Return as `texts_of`, for every working directory: a training may change its own.
    """
    kept = _kept(run)
    found = [(name, contender(name, metric)) for name in hand_made_rivals(settings) if name not in kept]
    found = [(name, one) for name, one in found if one.cards]
    if found:
        keep_cards([one for _, one in found], run)
        write_atomic(run / KEPT, json.dumps({**kept, **{name: one.kept for name, one in found}}))
    return texts_of(run.absolute(), metric)


def _kept(run: Path) -> dict[str, str]:
    kept = read_json(run / KEPT) if (run / KEPT).is_file() else {}
    return {name: text for name, text in kept.items() if isinstance(text, str)}  # at first, it had the cards' numbers
