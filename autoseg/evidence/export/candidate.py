"""The card of any candidate of a search, such as a finalist that is better by another metric than the winner."""

from __future__ import annotations

from pathlib import Path

from autoseg.errors import InputError
from autoseg.evidence.report.read import SearchRun, open_run
from autoseg.losses import LossCard
from autoseg.search.confirm import confirmed, found
from autoseg.search.publish import CardPublisher
from autoseg.store.records import COMPLETE, Finding

OWN = ("candidate", "run", "behind")  # what a card's provenance says of the one loss


def candidate_card(path: Path, name: str) -> LossCard:
    """Return the card that a candidate would have as the winner of its search.

    Args:
        path: the run folder, which is only read.
        name: as in the table of the confirmation, "candidate 3.0" or "mean 8"; or "3.0".

    Raises:
        InputError: not the folder of a search, no card in it yet, or no completed candidate of that name.
    """
    run = open_run(path)
    if not isinstance(run, SearchRun) or run.card is None:
        raise InputError("RUN", "a search with a loss.json, for --candidate", str(path))
    finding = _finding(run, name)
    options = {key: value for key, value in run.card.options.items() if key not in ("ignore_index", "absent")}
    about = {key: value for key, value in run.card.provenance.items() if key not in OWN}
    ignored = run.card.options.get("ignore_index", 255)
    return CardPublisher(path / "loss.json", run.space, run.card.num_classes, ignored, options, about).card(finding)


def _finding(run: SearchRun, name: str) -> Finding:
    """Return the candidate with its scores over the fresh seeds if it was a finalist, else with those of the search."""
    wanted, best = (name, f"candidate {name}"), run.result.best
    rows = [row for row in run.result.rows if row.kind == "candidate" and row.n]
    for row in rows:
        if row.name in wanted:
            return confirmed(
                row, run.result.rows, best.seeds, best.iters
            )  # the winner's, as all of the table have them
    complete = {record.name: record for record in run.search if record.state == COMPLETE}
    for record in complete.values():
        if record.name in wanted:
            return found(record, record.seed)
    names = [row.name for row in rows] or sorted(complete, key=lambda one: -complete[one].reward)[:4]
    number = names[0].removeprefix("candidate ")
    best_known = f"the best {'is' if len(names) == 1 else 'are'} {', '.join(names)}"
    expected = f"a completed candidate of {run.path}, as {number} ({best_known})"
    raise InputError("--candidate", expected, name)
