"""Figures show what they were given: read back from the drawn artists, and rendered to a picture."""

from __future__ import annotations

import io
import math
import os
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from test_compare_statistics import matrix

from autoseg.evidence import figures, sampled
from autoseg.evidence.comparison.matrix import Matrix
from autoseg.losses import searched_loss
from autoseg.surrogates import SurrogateLoss, build_space

REWARDS = [[0.2, 0.3, math.nan], [0.25, 0.4, 0.35], [math.nan] * 3]


def ink(figure: Figure) -> float:
    """Share of pixels that are not white."""
    stream = io.BytesIO()
    figure.savefig(stream)
    return float((np.asarray(Image.open(stream).convert("L")) < 250).mean())


def test_a_notebooks_backend_that_is_not_installed_stops_no_figure():
    code = "from autoseg.evidence import figures; figures.reward_by_round([[0.5]], 'miou')"
    environment = {**os.environ, "MPLBACKEND": "module://no_such_notebook.backend"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_reward_by_round_draws_means_best_and_failures():
    figure = figures.reward_by_round(REWARDS, "miou")
    (axes,) = figure.axes
    lines = {line.get_label(): np.asarray(line.get_ydata(), float) for line in axes.lines}
    assert lines["mean of the round"] == pytest.approx([25.0, 100 / 3, math.nan], nan_ok=True)
    assert lines["best so far"] == pytest.approx([30.0, 40.0, 40.0])
    assert sum(len(line.get_xdata()) for line in axes.lines if line.get_marker() == "x") == 4
    assert ink(figure) > 0.01


def test_a_first_round_without_any_score_is_drawn_without_a_best():
    figure = figures.reward_by_round([[math.nan, math.nan], [0.5, 0.1]], "miou")
    best = next(line for line in figure.axes[0].lines if line.get_label() == "best so far")
    assert np.isnan(best.get_ydata()[0]) and best.get_ydata()[1] == 50


def outside(figure: Figure) -> list[str]:
    """The texts around the axes that are cut off at the figure's edge."""
    figure.canvas.draw()
    bounds = figure.bbox
    legends = [text for legend in figure.legends for text in legend.get_texts()]
    texts = [*figure.texts, *legends, *(axes.title for axes in figure.axes), *(a.xaxis.label for a in figure.axes)]
    boxes = {text.get_text(): text.get_window_extent() for text in texts if text.get_text()}
    return [text for text, box in boxes.items() if box.x0 < bounds.x0 or box.x1 > bounds.x1]


@pytest.mark.parametrize("interval", [Matrix.interval, "95 % bootstrap interval over seeds and images"])
def test_a_forest_of_one_metric_is_whole(interval: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one panel the figure is narrow."""
    monkeypatch.setattr(Matrix, "interval", interval)
    wave = [0.41, 0.42, 0.4, 0.43, 0.39, 0.4]
    assert outside(figures.forest(matrix(lovasz=wave, ce=wave[::-1], dice=[0.5, *wave[:5]]))) == []


def test_a_confirmation_with_long_names_is_whole() -> None:
    scores = {"0.25*ce+0.75*ctl(alpha=0.55,beta=0.05)": [0.4, 0.5], "ce": [0.3, 0.2]}
    assert outside(figures.confirmation(scores, "miou", "ce")) == []


def test_a_single_round_is_a_round() -> None:
    (axes,) = figures.reward_by_round([[0.5, 0.1]], "miou").axes
    assert [tick for tick in axes.get_xticks() if 0.5 <= tick <= 1.5] == [1.0]


def test_confirmation_names_every_loss_and_writes_its_mean():
    figure = figures.confirmation({"candidate 0.1": [0.4, 0.5], "ce": [0.3, math.nan]}, "miou", "candidate 0.1")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ce", "candidate 0.1"]
    assert {text.get_text() for text in axes.texts} == {"45.0", "30.0"}
    assert ink(figure) > 0.01


@pytest.mark.parametrize(("metric", "space"), [("miou", "paper"), ("gacc", "default"), ("miou+0.5*bf1", "default")])
def test_curves_and_surfaces_of_a_loss(metric, space):
    bound = build_space(space, metric=metric)
    loss = searched_loss(bound, np.linspace(0.1, 0.9, bound.dim), 3)
    points = sampled.curve_points(loss)
    assert list(points) == list(bound.curves)
    for line in points.values():
        assert line[0] == pytest.approx([0, 0]) and line[-1] == pytest.approx([1, 1])
        assert (np.diff(line, axis=0) >= 0).all()
    drawn = figures.curves(points, sampled.published_points(metric))
    assert [axes.get_title() for axes in drawn.axes] == list(points)
    operations = sampled.operands(loss)
    assert all(title.endswith(("AND", "OR")) for title in operations)
    surfaces = figures.surfaces(operations)
    assert len(surfaces.axes) == len(operations)
    assert ink(drawn) > 0.01 and ink(surfaces) > 0.01


def test_identity_curves_lie_on_the_diagonal():
    lines = sampled.curve_points(SurrogateLoss("miou", 3))
    assert len(lines) == 2
    for line in lines.values():
        assert line[:, 1] == pytest.approx(line[:, 0], abs=1e-12)


def test_published_curves_exist_for_the_papers_metrics_only():
    assert set(sampled.published_points("miou") or {}) == {"and", "or"}
    assert sampled.published_points("dice") is None
