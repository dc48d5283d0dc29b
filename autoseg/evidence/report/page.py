"""Runs as one self-contained HTML page: blocks through a template that escapes every text, plotly.js inlined once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from itertools import count
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.io import to_json
from plotly.offline import get_plotlyjs

from autoseg.evidence.report.blocks import Plot, RunPage
from autoseg.evidence.report.comparison_page import comparison_page
from autoseg.evidence.report.read import ComparisonRun, SearchRun, differing_budgets
from autoseg.evidence.report.search_page import search_page
from autoseg.evidence.report.theme import DARK
from autoseg.store.run_folder import slug

PACKAGE = "autoseg.evidence.report"


def report(runs: Sequence[SearchRun | ComparisonRun], commands: Sequence[str]) -> str:
    """Return the page about runs; `commands` repeat them."""
    names = [slug(run.path.resolve().name) for run in runs]
    slugs = [name if names.count(name) == 1 else f"{name}-{number}" for number, name in enumerate(names, start=1)]
    pages = [
        search_page(run, anchor, command) if isinstance(run, SearchRun) else comparison_page(run, anchor, command)
        for run, anchor, command in zip(runs, slugs, commands, strict=True)
    ]
    notices = [f"Different budgets, scores cannot be compared: {text}." for text in differing_budgets(runs)]
    return render(pages, notices)


def render(runs: Sequence[RunPage], notices: Sequence[str] = ()) -> str:
    """Render the page.

    Args:
        runs: the page of each run; for several, a list of them comes first.
        notices: important warnings about all of them together.
    """
    environment = Environment(
        loader=PackageLoader(PACKAGE, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    figures: dict[str, Plot] = {}
    names = count(1)

    def place(plot: Plot) -> str:
        """Register a figure of the page; returns its id."""
        name = f"plot-{next(names)}"
        figures[name] = plot
        return name

    environment.globals["place"] = place
    return environment.get_template("page.html.j2").render(
        runs=runs,
        notices=notices,
        title=" · ".join(run.title for run in runs),
        style=Markup(_asset("page.css")),
        body_script=Markup(_asset("page.js")),
        plotly=Markup(get_plotlyjs().replace("</script", r"<\/script")),
        data=lambda: Markup(_json({name: json.loads(to_json(plot.figure)) for name, plot in figures.items()})),
        dark=Markup(_json(DARK)),
    )


def _asset(name: str) -> str:
    return files(PACKAGE).joinpath(name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    """Return JSON for a script element: nothing in it can close the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")
