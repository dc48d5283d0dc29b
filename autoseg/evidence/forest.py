"""A forest plot: how far every loss is from the others, and how sure that is."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from autoseg.evidence.figures import BLUE, GREY, ORANGE
from autoseg.evidence.matrix import Matrix
from autoseg.search.paired import LEAST_SEEDS, Paired

COLUMNS = 3
SHIFT = 0.17  # of the two opponents from the middle of a loss's line


def forest(matrix: Matrix) -> Figure:
    """A panel per metric, a line per loss: paired differences with their 95 % intervals, in percentage points.

    Blue is the difference to the reference, orange that to the best hand-made loss; a filled dot is marked (five
    seeds or more and an interval without zero), a hollow one is not.
    """
    rows = math.ceil(len(matrix.metrics) / COLUMNS)
    columns = math.ceil(len(matrix.metrics) / rows)
    size = (2.0 + 3.4 * columns, 1.1 + rows * (0.9 + 0.42 * len(matrix.names)))
    figure = Figure(figsize=size, layout="constrained", dpi=150)
    first: Axes | None = None
    for place, metric in enumerate(matrix.metrics, start=1):
        axes = figure.add_subplot(rows, columns, place, sharey=first)
        first = first or axes
        _panel(axes, matrix, metric)
        axes.tick_params(labelleft=(place - 1) % columns == 0)
    figure.suptitle(f"Paired differences over {len(matrix.seeds)} seeds: {matrix.interval}", fontsize=11)
    figure.legend(handles=_key(matrix), loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _panel(axes: Axes, matrix: Matrix, metric: str) -> None:
    rival = matrix.best_hand_made(metric)
    count = len(matrix.names)
    axes.axvline(0, color=GREY, lw=1)
    for line, name in enumerate(matrix.names):
        for other, colour, shift in ((matrix.reference, BLUE, SHIFT), (rival, ORANGE, -SHIFT)):
            if other is not None and other != name:
                _interval(axes, matrix.difference(name, other, metric), count - 1 - line + shift, colour)
    axes.set_yticks(range(count), matrix.names[::-1])
    axes.set_ylim(-0.6, count - 0.4)
    axes.set_title(f"{metric}   (best hand-made: {rival})", fontsize=9)
    axes.set_xlabel("percentage points", fontsize=8)
    axes.tick_params(labelsize=8, left=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", color="#E5E5E5", lw=0.7)
    axes.set_axisbelow(True)


def _interval(axes: Axes, difference: Paired, height: float, colour: str) -> None:
    if math.isnan(difference.mean):
        return
    if not math.isnan(difference.low):
        axes.plot([100 * difference.low, 100 * difference.high], [height, height], color=colour, lw=1.8)
    face = colour if difference.significant else "white"
    axes.plot(100 * difference.mean, height, "o", ms=5.5, mec=colour, mfc=face, mew=1.5, zorder=3)


def _key(matrix: Matrix) -> list[Line2D]:
    def dot(colour: str, face: str, label: str) -> Line2D:
        return Line2D([], [], marker="o", color=colour, mfc=face, mec=colour, label=label)

    key = [dot(BLUE, BLUE, f"to {matrix.reference}"), dot(ORANGE, ORANGE, "to the best hand-made loss")]
    unsure = f"hollow: fewer than {LEAST_SEEDS} seeds, or zero is inside"
    return [*key, Line2D([], [], ls="", marker="o", mfc="white", mec=GREY, label=unsure)]
