"""Proxy trust as text, tables and a scatter plot."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.figure import Figure

from autoseg.evidence.comparison.tables import aligned, csv_text, literal, markdown_rows, number
from autoseg.evidence.figures import BLUE, COLUMNS, GREY, ORANGE
from autoseg.evidence.trust.agreement import Agreement
from autoseg.evidence.trust.rankings import FULL, PROXY, Row, Trust, verdict
from autoseg.files import write_atomic
from autoseg.store.records import percent
from autoseg.store.run_files import RESULTS

INTERVALS = (
    "tau, rho: 1 is the same ranking, 0 none alike; [95 % interval] over losses drawn with replacement. tau lost: "
    "against the proxy with another seed; the intervals of all cheaper proxies hold together. points lost: the best "
    "score of the fuller training minus that of the row's best loss."
)


def lines(trust: Trust) -> list[str]:
    """Return the result as lines of text, with the verdict last."""
    return [*aligned(*_table(trust)), _yardstick(trust), INTERVALS, verdict(trust.rows())]


def write(trust: Trust, about: str, metric: str, folder: Path) -> None:
    """Write `trust.md`, `trust.csv` (every score), `agreement.csv` and `figures/trust.png`.

    Args:
        trust: the rankings.
        about: one line: the search, its data and proxy.
        metric: name of the score.
        folder: the run folder.

    Raises:
        InputError: no space on the disk.
    """
    parts = [
        "# Proxy trust",
        literal(about),
        markdown_rows(*_table(trust)),
        f"{_yardstick(trust)} {INTERVALS}",
        literal(verdict(trust.rows())),
    ]
    write_atomic(folder / "trust.md", "\n\n".join(parts) + "\n")
    write_atomic(folder / RESULTS["trust"], _scores(trust, metric))
    write_atomic(folder / "agreement.csv", _agreements(trust))
    (folder / "figures").mkdir(exist_ok=True)
    scatter(trust, metric).savefig(folder / "figures" / "trust.png")


def _table(trust: Trust) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            row.name,
            f"{row.cost:.2f}",
            str(row.full.tau),
            str(row.full.rho),
            "–" if math.isnan(row.share) else f"{row.share:.2f}",
            str(row.lost),
            percent(row.regret),
            str(row.full.n),
        ]
        for row in trust.rows()
    ]
    measures = ["tau to fuller", "rho to fuller", "tau / seed-to-seed", "tau lost", "points lost"]
    return ["training", "cost", *measures, "losses"], rows


def _yardstick(trust: Trust) -> str:
    yard = trust.seed_to_seed
    return (
        f"Two seeds of the proxy agree at tau {yard.tau}, rho {yard.rho}; the fuller training "
        f"costs {trust.full_cost:.1f} times the proxy."
    )


def _scores(trust: Trust, metric: str) -> str:
    rows: list[list[object]] = [["loss", "kind", "training", "seeds", metric]]
    for variant in trust.variants:
        for entry, score in zip(trust.entries, trust.scores(variant), strict=True):
            seeds = " ".join(map(str, variant.seeds))
            rows.append([entry.name, entry.kind, variant.name, seeds, number(score)])
    return csv_text(rows)


def _agreements(trust: Trust) -> str:
    intervals = ["tau", "tau low", "tau high", "rho", "rho low", "rho high"]
    lost = ["tau lost", "tau lost low", "tau lost high", "score lost"]
    rows: list[list[object]] = [["training", "with", "cost", "losses", *intervals, *lost]]
    rows += [[row.name, FULL, number(row.cost), *_numbers(row.full), *_lost(row)] for row in trust.rows()]
    rows.append([PROXY, "another seed", 1, *_numbers(trust.seed_to_seed), *[""] * len(lost)])
    return csv_text(rows)


def _numbers(found: Agreement) -> list[object]:
    values = (found.tau.value, found.tau.low, found.tau.high, found.rho.value, found.rho.low, found.rho.high)
    return [found.n, *map(number, values)]


def _lost(row: Row) -> list[object]:
    return [*map(number, (row.lost.value, row.lost.low, row.lost.high, row.regret))]


def scatter(trust: Trust, metric: str) -> Figure:
    """Draw a panel per variant: its scores against those of the fuller training; candidates blue, rivals orange."""
    rows = trust.rows()
    height = math.ceil(len(rows) / COLUMNS)
    width = math.ceil(len(rows) / height)
    figure = Figure(figsize=(3.2 * width, 0.5 + 3.0 * height), layout="constrained", dpi=150)
    full = trust.scores(trust.of(FULL))
    for place, row in enumerate(rows, start=1):
        axes = figure.add_subplot(height, width, place)
        scores = trust.scores(trust.of(row.name))
        for kind, colour in (("candidate", BLUE), ("rival", ORANGE)):
            chosen = [i for i, entry in enumerate(trust.entries) if entry.kind == kind]
            axes.scatter([100 * scores[i] for i in chosen], [100 * full[i] for i in chosen], s=22, c=colour, label=kind)
        named = [i for i, e in enumerate(trust.entries) if e.kind == "rival" and not math.isnan(scores[i] + full[i])]
        for turn, i in enumerate(sorted(named, key=lambda i: scores[i])):
            beside = (3, -8) if turn % 2 else (3, 3)  # by turns below and above, since neighbours lie close together
            axes.annotate(trust.entries[i].name, (100 * scores[i], 100 * full[i]), fontsize=6, color=GREY,
                          xytext=beside, textcoords="offset points")  # fmt: skip
        axes.set_title(f"{row.name}   tau {percent(row.full.tau.value / 100, 2)}   cost {row.cost:.2f}", fontsize=8)
        axes.set_xlabel(f"{metric}, percent", fontsize=7)
        axes.set_ylabel(f"{metric}, {FULL}", fontsize=7)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#E5E5E5", lw=0.6)
        axes.set_axisbelow(True)
    figure.axes[0].legend(fontsize=7, frameon=False)
    return figure
