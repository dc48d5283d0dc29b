"""Figures of a search or a comparison: pure functions to a matplotlib `Figure`, no files and no global state.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart; lines are labelled directly
if there is room, so that no legend is needed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence

import numpy as np

try:
    import matplotlib
except ValueError:  # MPLBACKEND names a notebook's, which is not installed here; nothing is shown in a window
    os.environ["MPLBACKEND"] = "agg"
    import matplotlib  # noqa: F401

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from autoseg.evidence import sampled
from autoseg.evidence.comparison.matrix import REFERENCE, Matrix
from autoseg.store.paired import LEAST_SEEDS, Paired
from autoseg.store.records import counted

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#8A8A8A"
FloatArray = NDArray[np.float64]
COLUMNS = 3  # columns of panels
SHIFT = 0.17  # distance of the two opponents from the middle of a loss's line


def reward_by_round(rewards: Sequence[Sequence[float]], metric: str) -> Figure:
    """Draw every candidate's reward, the mean of each round and the best so far.

    Args:
        rewards: one sequence per round, NaN for a candidate without a score; shares of 1, drawn in percent.
        metric: the metric's name, for the axis.
    """
    figure, axes = _canvas(6.4, 4.0)
    rows = [100 * np.asarray(row, dtype=np.float64) for row in rewards]
    for index, row in enumerate(rows, start=1):
        spread = index + 0.18 * np.linspace(-1, 1, len(row)) if len(row) > 1 else np.array([float(index)])
        axes.scatter(spread, row, s=22, color=BLUE, alpha=0.55, linewidths=0, zorder=2)
        failed = spread[np.isnan(row)]
        low = np.full(len(failed), 0.02)  # as a share of the panel's height
        axes.plot(failed, low, "x", color=RED, transform=axes.get_xaxis_transform(), clip_on=False)
    numbers = np.arange(1, len(rows) + 1)
    means = np.array([np.nanmean(row) if np.isfinite(row).any() else np.nan for row in rows])
    tops = np.array([np.nanmax(row) if np.isfinite(row).any() else -np.inf for row in rows])
    best = np.maximum.accumulate(tops)
    best[np.isneginf(best)] = np.nan
    axes.plot(numbers, means, color=ORANGE, lw=2, marker="o", ms=4, label="mean of the round", zorder=3)
    axes.step(numbers, best, where="mid", color=GREEN, lw=2, label="best so far", zorder=3)
    axes.scatter([], [], s=22, color=BLUE, alpha=0.55, label="one candidate")
    if any(np.isnan(row).any() for row in rows):
        axes.plot([], [], "x", color=RED, label="without a score")
    axes.set(xlabel="round", ylabel=f"{metric} on held-out images, %", title="Reward by round")
    axes.set_xlim(0.5, max(1, len(rows)) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.legend(frameon=False, fontsize=9)
    return figure


def confirmation(scores: Mapping[str, Sequence[float]], metric: str, winner: str) -> Figure:
    """Draw the final comparison: each loss trained with the same fresh seeds, with a dot per seed and a bar for the
    mean.

    Args:
        scores: loss name to its score per seed (shares of 1; NaN: it failed), in the order to draw.
        metric: the metric's name.
        winner: the name to highlight.
    """
    figure, axes = _canvas(6.4, 0.9 + 0.48 * len(scores))
    for place, (name, values) in enumerate(reversed(list(scores.items()))):
        row = 100 * np.asarray(values, dtype=np.float64)
        colour = GREEN if name == winner else GREY
        axes.scatter(row, np.full(len(row), float(place)), s=26, color=colour, alpha=0.6, linewidths=0)
        if np.isfinite(row).any():
            mean = float(np.nanmean(row))
            axes.plot([mean, mean], [place - 0.28, place + 0.28], color=colour, lw=3)
            axes.annotate(f"{mean:.1f}", (mean, place + 0.3), ha="center", va="bottom", fontsize=8, color=colour)
    axes.set_yticks(range(len(scores)), list(scores)[::-1])
    axes.set_ylim(-0.6, len(scores) - 0.2)
    axes.set_xlabel(f"{metric} on held-out images, %")
    figure.suptitle("Same budget, fresh seeds: a dot a seed, a bar the mean", fontsize=11)
    axes.grid(axis="y", visible=False)
    return figure


def curves(found: Mapping[str, FloatArray], published: Mapping[str, FloatArray] | None = None) -> Figure:
    """Draw the found curves over the identity.

    Args:
        found: curve name to (n, 2) points (x, y) along it, in [0, 1].
        published: the same for a published loss, drawn dashed in the panel of the same name.
    """
    columns = min(4, len(found))
    rows = math.ceil(len(found) / columns)
    figure = Figure(figsize=(2.9 * columns, 2.9 * rows + 0.3), layout="constrained", dpi=150)
    for panel, (name, points) in enumerate(found.items(), start=1):
        axes = figure.add_subplot(rows, columns, panel)
        _style(axes)
        axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":", label="identity")
        if published is not None and name in published:
            other = np.asarray(published[name], dtype=np.float64)
            axes.plot(other[:, 0], other[:, 1], color=ORANGE, lw=1.5, ls="--", label="published")
        line = np.asarray(points, dtype=np.float64)
        axes.plot(line[:, 0], line[:, 1], color=BLUE, lw=2.2, label="found")
        axes.set(title=name, xlim=(0, 1), ylim=(-0.02, 1.02), aspect="equal", xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        if panel == 1:
            axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.suptitle("Found curves over the identity", fontsize=11)
    return figure


def surfaces(operations: Mapping[str, tuple[FloatArray, FloatArray]]) -> Figure:
    """Draw the relaxed AND and OR over the unit square, see `sampled.relaxed`.

    Args:
        operations: title ending in AND or OR to the (n,) values of the curves of both operands on an even grid.
    """
    columns = min(4, len(operations))
    rows = math.ceil(len(operations) / columns)
    figure = Figure(figsize=(4.4 * columns, 3.9 * rows + 0.4), dpi=150)
    for panel, (title, (g, h)) in enumerate(operations.items(), start=1):
        axes = figure.add_subplot(rows, columns, panel, projection="3d", computed_zorder=False)
        grid = np.linspace(0, 1, len(g))
        a, b = np.meshgrid(grid, grid, indexing="ij")
        height, corners, truth = sampled.relaxed(g, h, title.endswith("AND"))
        axes.plot_surface(a, b, height, cmap="viridis", vmin=0, vmax=1, rstride=1, cstride=1, lw=0, antialiased=True)
        axes.scatter(corners[:, 0], corners[:, 1], truth, color=RED, s=24, depthshade=False, zorder=5)
        axes.set(xlabel="a", ylabel="b", xlim=(0, 1), ylim=(0, 1), zlim=(0, 1), title=f"{title}(a, b)")
        axes.set(xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), zticks=(0, 0.5, 1))
        axes.view_init(elev=28, azim=-125)
    figure.suptitle("Found AND and OR; red: the truth table", fontsize=11)
    figure.subplots_adjust(left=0.02, right=0.94, bottom=0.06, top=0.86, wspace=0.12)
    return figure


def forest(matrix: Matrix) -> Figure:
    """Draw paired differences with their 95 % intervals, in percentage points: a panel per metric, a line per loss.

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
    title, narrow = f"Paired differences over {counted(len(matrix.seeds), 'seed')}:", columns == 1
    figure.suptitle(f"{title}{chr(10) if narrow else ' '}{matrix.interval}", fontsize=11)
    columns_of_key = 1 if narrow else 3
    figure.legend(handles=_key(matrix), loc="outside lower center", ncols=columns_of_key, frameon=False, fontsize=8)
    return figure


def _panel(axes: Axes, matrix: Matrix, metric: str) -> None:
    count = len(matrix.names)
    axes.axvline(0, color=GREY, lw=1)
    for line, name in enumerate(matrix.names):
        for role, other in matrix.opponents(name, metric):
            colour, shift = (BLUE, SHIFT) if role == REFERENCE else (ORANGE, -SHIFT)
            _interval(axes, matrix.difference(name, other, metric), count - 1 - line + shift, colour)
    axes.set_yticks(range(count), matrix.names[::-1])
    axes.set_ylim(-0.6, count - 0.4)
    hand_made = matrix.best_hand_made(metric)
    axes.set_title(metric if hand_made is None else f"{metric}   (best hand-made: {hand_made})", fontsize=9)
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

    key = [dot(BLUE, BLUE, f"to {matrix.reference}")]
    if any(matrix.best_hand_made(metric) is not None for metric in matrix.metrics):
        key.append(dot(ORANGE, ORANGE, "to the best hand-made loss"))
    unsure = f"hollow: fewer than {LEAST_SEEDS} seeds, or zero is inside"
    return [*key, Line2D([], [], ls="", marker="o", mfc="white", mec=GREY, label=unsure)]


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    _style(axes)
    return figure, axes


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#E5E5E5", lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9)
    axes.title.set_fontsize(11)
