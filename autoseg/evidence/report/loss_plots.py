"""Interactive figures of losses as functions: curves, AND and OR, gradients at a pixel.

Pure functions, as in `plots`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from autoseg.evidence import sampled
from autoseg.evidence.report.plots import WIDEST, figure, label
from autoseg.evidence.report.theme import BLUE, GREY, PURPLE, RED, SEQUENTIAL

Points = NDArray[np.float64]


def curve(found: Points, published: Points | None) -> go.Figure:
    """Draw a found curve over the identity and, if there is one, the published one; (n, 2) points of [0, 1]."""
    plot = figure(
        xaxis={"range": [0, 1], "dtick": 0.25, "title": {"text": "x"}, "constrain": "domain"},
        yaxis={"range": [-0.02, 1.02], "dtick": 0.25, "title": {"text": "g(x)"}, "scaleanchor": "x"},
        showlegend=False,
    )
    lines = [("identity", np.array([[0.0, 0.0], [1.0, 1.0]]), GREY, "dot", 1.5)]
    lines += [] if published is None else [("published", published, PURPLE, "dash", 2.0)]
    for name, points_, colour, dash, width in [*lines, ("found", found, BLUE, "solid", 3.0)]:
        plot.add_trace(
            go.Scatter(
                x=points_[:, 0], y=points_[:, 1], name=name, mode="lines",
                line={"color": colour, "dash": dash, "width": width},
                hovertemplate=f"{name}<br>g(%{{x:.3f}}) = %{{y:.3f}}<extra></extra>",
            )
        )  # fmt: skip
    return plot


def surface(g: Points, h: Points, is_and: bool) -> go.Figure:
    """Draw AND or OR over the unit square, see `sampled.relaxed`; red: the truth table."""
    grid = np.linspace(0, 1, len(g))
    height, corners, truth = sampled.relaxed(g, h, is_and)
    axis = {"range": [0, 1], "dtick": 0.5, "showspikes": False}
    return figure(
        [
            go.Surface(
                x=grid, y=grid, z=height.T, cmin=0, cmax=1, colorscale=SEQUENTIAL, showscale=False,
                contours={"z": {"show": True, "start": 0.1, "end": 0.9, "size": 0.1, "color": "rgba(255,255,255,.55)"}},
                hovertemplate="a %{x:.2f}   b %{y:.2f}<br>%{z:.3f}<extra></extra>",
            ),
            go.Scatter3d(
                x=corners[:, 0], y=corners[:, 1], z=truth, mode="markers",
                marker={"color": RED, "size": 5}, hovertemplate="truth table<br>%{z}<extra></extra>",
            ),
        ],
        scene={
            "xaxis": {**axis, "title": {"text": "a"}},
            "yaxis": {**axis, "title": {"text": "b"}},
            "zaxis": {**axis, "title": {"text": ""}, "range": [0, 1.02]},
            "camera": {"eye": {"x": -1.5, "y": -1.65, "z": 1.05}, "center": {"x": 0, "y": 0, "z": -0.12}},
            "aspectmode": "cube",
        },
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        showlegend=False,
    )  # fmt: skip


def pull(p: Points, pulls: Mapping[str, Points], style_of: Mapping[str, tuple[str, str]], sign: str) -> go.Figure:
    """Draw the scaled derivatives of losses at one pixel, by the probability it has.

    Args:
        p: (n,) probability of the class.
        pulls: loss to (n,) scaled derivatives.
        style_of: loss to (colour, dash).
        sign: "up" or "down", the right direction, for the axis.
    """
    plot = figure(
        xaxis={"range": [0, 1], "title": {"text": "p, probability of the class"}},
        yaxis={"title": {"text": f"pull {sign}"}, "rangemode": "tozero", "zeroline": True},
        showlegend=False,
    )
    for name, values in pulls.items():
        colour, dash = style_of[name]
        plot.add_trace(
            go.Scatter(
                x=p, y=values, name=label(name, WIDEST), mode="lines",
                line={"color": colour, "dash": dash, "width": 3 if colour == BLUE else 2},
                hovertemplate=f"{label(name)}<br>p %{{x:.3f}}   pull %{{y:.3f}}<extra></extra>",
            )
        )  # fmt: skip
    return plot
