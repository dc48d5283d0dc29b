"""From run folders to the text of a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoseg.errors import InputError
from autoseg.evidence.report.of_comparison import comparison_page
from autoseg.evidence.report.of_search import search_page
from autoseg.evidence.report.page import render
from autoseg.evidence.report.read import ComparisonRun, SearchRun, differing_budgets, open_run
from autoseg.search.run_folder import slug

AnyRun = SearchRun | ComparisonRun


def open_runs(paths: Sequence[Path], *, force: bool = False) -> list[AnyRun]:
    """Read runs that are to stand in one report.

    Args:
        paths: of run folders.
        force: take runs of different budgets too.

    Raises:
        InputError: one that cannot be read or is given twice; different budgets.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError("RUN", "each run once", ", ".join(map(str, paths)))
    runs = [open_run(path) for path in paths]
    if (differing := differing_budgets(runs)) and not force:
        hint = "Their scores cannot be compared; --force puts them into one report all the same."
        raise InputError("RUN", "runs of one budget", "; ".join(differing), hint)
    return runs


def report(runs: Sequence[AnyRun], commands: Sequence[str]) -> str:
    """The page about runs; `commands` repeat them."""
    slugs = _anchors(runs)
    pages = [
        search_page(run, anchor, command) if isinstance(run, SearchRun) else comparison_page(run, anchor, command)
        for run, anchor, command in zip(runs, slugs, commands, strict=True)
    ]
    notices = [f"Different budgets, scores cannot be compared: {text}." for text in differing_budgets(runs)]
    return render(pages, notices)


def _anchors(runs: Sequence[AnyRun]) -> list[str]:
    names = [slug(run.path.resolve().name) for run in runs]
    return [name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names, start=1)]
