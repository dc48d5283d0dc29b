"""The interactive figures: pure functions from numbers to plotly figures, without fonts or backgrounds.

The page adds those, since it knows its theme and its width. Every text that comes from a file goes through `label`,
since plotly reads tags in texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go

from autoseg.evidence.comparison.matrix import Matrix
from autoseg.evidence.comparison.tables import points
from autoseg.evidence.report.theme import BLUE, GREEN, GREY, ORANGE, RED
from autoseg.store.paired import Paired
from autoseg.store.records import COMPLETE, TrialRecord, by_round, percent

WIDEST = 26  # most characters of a loss's name beside an axis


def label(text: str, widest: int = 200) -> str:
    """Return a text of a file without tags and shortened, for plotly."""
    return escape(text if len(text) <= widest else text[: widest - 1] + "…", quote=False)  # plotly knows no &quot;


def figure(traces: Sequence[go.Trace] = (), **layout: object) -> go.Figure:
    """Return an empty figure with the margins and hover settings that all figures share."""
    base = {
        "margin": {"l": 52, "r": 14, "t": 14, "b": 46},
        "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "template": "none",
    }
    return go.Figure(list(traces), {**base, **layout})


# ------------------------------------------------------------------------------------------ search


def reward_by_round(records: Sequence[TrialRecord], names: Sequence[str], metric: str) -> go.Figure:
    """Draw every candidate of a search with all its values, the mean of each round, and the best so far.

    Args:
        records: records of the study "search".
        names: names of the coordinates of θ.
        metric: the target.
    """
    done = [r for r in records if r.state == COMPLETE]
    lost = [r for r in records if r.state != COMPLETE]
    values = [100 * r.reward for r in done]
    floor = min(values, default=0.0) - 0.08 * (max(values, default=1.0) - min(values, default=0.0) or 1.0)
    rounds = by_round(records)
    means, best, top = [], [], -math.inf
    for one in rounds:
        rewards = [100 * r.reward for r in one if r.state == COMPLETE]
        means.append(float(np.mean(rewards)) if rewards else None)
        top = max([top, *rewards])
        best.append(top if math.isfinite(top) else None)
    shown = [one[0].round + 1 for one in rounds]
    dots = {"mode": "markers", "hoverinfo": "text"}
    plot = figure(
        [
            _line(shown, best, "best so far", GREEN, shape="hv"),
            _line(shown, means, "mean of the round", GREY),
            go.Scatter(
                x=_spread(done, records), y=values, name="a candidate", 
                hovertext=[_about(r, names, metric) for r in done],
                marker={"color": BLUE, "size": 9, "opacity": 0.75}, **dots,
            ),
        ],
        xaxis={"title": {"text": "round"}, "dtick": max(1, len(rounds) // 12), "range": [0.4, len(rounds) + 0.6]},
        yaxis={"title": {"text": f"{label(metric)}, %"}},
    )  # fmt: skip
    if lost:
        plot.add_trace(
            go.Scatter(
                x=_spread(lost, records), y=[floor] * len(lost), name="without a score",
                hovertext=[_about(r, names, metric) for r in lost],
                marker={"color": RED, "size": 9, "symbol": "x-thin", "line": {"color": RED, "width": 2}}, **dots,
            )
        )  # fmt: skip
    return plot


def _line(x: Sequence[float], y: Sequence[float | None], name: str, colour: str, shape: str = "linear") -> go.Scatter:
    return go.Scatter(
        x=x, y=y, name=name, mode="lines+markers", line={"color": colour, "width": 2.5, "shape": shape},
        marker={"size": 5, "color": colour}, hovertemplate=f"{name} %{{y:.1f}}<extra></extra>",
    )  # fmt: skip


def _spread(some: Sequence[TrialRecord], records: Sequence[TrialRecord]) -> list[float]:
    """Return the x positions of candidates: side by side around the number of their round."""
    widest = max((r.index for r in records), default=0) or 1
    return [r.round + 1 + 0.28 * (2 * r.index / widest - 1) for r in some]


def _about(record: TrialRecord, names: Sequence[str], metric: str) -> str:
    """Return the hover label of a candidate: name, state, scores, θ."""
    scores = [f"{label(name)} {percent(value)}" for name, value in record.scores.items() if "/" not in name]
    theta = [f"{label(name)} {value:.3f}" for name, value in zip(names, record.theta or (), strict=False)]
    head = f"<b>{label(record.name)}</b>  {label(record.state)}  {record.seconds:.3g} s"
    reward = f"reward {percent(record.reward)} ({label(metric)})" if record.state == COMPLETE else ""
    return "<br>".join(
        [part for part in (head, reward, label(record.why, 90), *_wrapped(scores, 4), *_wrapped(theta, 3)) if part]
    )


def _wrapped(texts: Sequence[str], number: int) -> list[str]:
    return ["   ".join(texts[i : i + number]) for i in range(0, len(texts), number)]


def seeds_and_means(scores: Mapping[str, Sequence[float]], metric: str, colour_of: Mapping[str, str]) -> go.Figure:
    """Draw a line per loss, with a dot per seed and a bar for the mean.

    Args:
        scores: loss to its score per seed (shares of 1, NaN: it has none), best first.
        metric: name of the score.
        colour_of: loss to colour.
    """
    plot = figure(
        xaxis={"title": {"text": f"{label(metric)}, %"}},
        yaxis=_categories([label(name, WIDEST) for name in scores]),
        showlegend=False,
    )
    for place, (name, values) in enumerate(scores.items()):
        row = 100 * np.asarray(values, dtype=np.float64)
        row = row[np.isfinite(row)]
        if not len(row):
            continue
        mean, y = float(row.mean()), len(scores) - 1 - place
        bar = {"color": colour_of[name], "width": 3}
        tip = f"<b>{label(name)}</b><br>mean {mean:.1f}"
        plot.add_trace(
            go.Scatter(x=[mean, mean], y=[y - 0.3, y + 0.3], mode="lines", line=bar, hovertext=tip, hoverinfo="text")
        )
        dots = {"color": colour_of[name], "size": 9, "opacity": 0.6}
        tips = [f"<b>{label(name)}</b><br>{value:.1f}, mean {mean:.1f}" for value in row]
        plot.add_trace(
            go.Scatter(x=row, y=[y] * len(row), mode="markers", marker=dots, hovertext=tips, hoverinfo="text")
        )
    return plot


def _categories(names: Sequence[str]) -> dict[str, object]:
    """Return a y axis that names lines from top to bottom."""
    return {
        "tickvals": list(range(len(names)))[::-1],
        "ticktext": list(names),
        "range": [-0.6, len(names) - 0.4],
        "showgrid": False,
        "zeroline": False,
        "automargin": True,
        "fixedrange": True,
    }


# ------------------------------------------------------------------------------------------ comparison


def forest(lines: Sequence[tuple[str, str, str, Paired]]) -> go.Figure:
    """Draw paired differences with their intervals, in percentage points; filled: marked, hollow: not.

    Args:
        lines: (loss, opponent, colour, difference), from top to bottom; a loss may have several.
    """
    names = list(dict.fromkeys(name for name, *_ in lines))
    plot = figure(
        xaxis={"title": {"text": "percentage points"}, "zeroline": True, "zerolinewidth": 2},
        yaxis=_categories([label(name, WIDEST) for name in names]),
        showlegend=False,
    )
    for name in names:
        mine = [(other, colour, d) for line, other, colour, d in lines if line == name and not math.isnan(d.mean)]
        for turn, (other, colour, difference) in enumerate(mine):
            y = len(names) - 1 - names.index(name) + 0.17 * (len(mine) - 1 - 2 * turn)
            plot.add_trace(_interval(name, other, colour, difference, y))
    return plot


def _interval(name: str, other: str, colour: str, difference: Paired, y: float) -> go.Scatter:
    reach = 100 * (difference.high - difference.mean)
    sure = "marked: the interval excludes zero" if difference.significant else "not marked"
    return go.Scatter(
        x=[100 * difference.mean],
        y=[y],
        mode="markers",
        marker={"color": colour, "size": 10, "symbol": "circle" if difference.significant else "circle-open"},
        error_x={"type": "data", "array": [0 if math.isnan(reach) else reach], "color": colour, "thickness": 2.2},
        hovertext=f"<b>{label(name)}</b> to {label(other)}<br>{points(difference)}, {difference.n} seeds<br>{sure}",
        hoverinfo="text",
    )


def forest_of(matrix: Matrix, metric: str) -> go.Figure:
    """Draw every loss of a comparison against the reference and the best hand-made one, under one metric."""
    lines = []
    for name in matrix.names:
        for other in dict.fromkeys(other for _, other in matrix.opponents(name, metric)):  # one may be both
            colour = ORANGE if other == matrix.reference else GREEN
            lines.append((name, other, colour, matrix.difference(name, other, metric)))
    return forest(lines)


def seconds(
    records: Sequence[TrialRecord], colour_of: Mapping[str, str], group_of: Callable[[TrialRecord], str]
) -> go.Figure:
    """Draw the time of every training, in the order in which they were planned.

    Args:
        records: records of all studies, without those that have no result.
        colour_of: group ("search", "confirmation", or a loss) to its colour.
        group_of: returns the group of a training.
    """
    plot = figure(
        xaxis={"title": {"text": "training"}},
        yaxis={"title": {"text": "seconds"}, "rangemode": "tozero"},
        bargap=0.15,
    )
    groups = [group_of(record) for record in records]
    for group, colour in colour_of.items():
        mine = [(place, r) for place, (r, of) in enumerate(zip(records, groups, strict=True), start=1) if of == group]
        tips = [f"<b>{label(r.name)}</b>  seed {r.seed}<br>{r.seconds:.3g} s  {label(r.state)}" for _, r in mine]
        plot.add_trace(
            go.Bar(
                x=[place for place, _ in mine], y=[r.seconds for _, r in mine], name=label(group, WIDEST),
                marker={"color": colour}, hovertext=tips, hoverinfo="text",
            )
        )  # fmt: skip
    return plot
