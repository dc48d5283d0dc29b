"""Which metrics are one ratio of sums of totals: what is read of their formulas computes what they compute."""

from __future__ import annotations

import pytest
import torch

import autoseg
from autoseg.metrics.base import MetricOptions, exact_ratio
from autoseg.metrics.region import MIoU
from autoseg.surrogates.fast import ratios
from autoseg.surrogates.fast.formula_plan import plan_formula

C = 3


def test_which_metrics_are_one_ratio():
    kinds = {
        name: plan_formula(autoseg.build_metric(name, C), kernels=True).ratio for name in autoseg.metrics.searchable()
    }
    known = {"miou", "fwiou", "dice", "macc", "gacc", "biou"}
    assert {name for name, ratio in kinds.items() if ratio is not None} == known
    g = torch.Generator().manual_seed(0)
    for name in known:  # what was read of a formula computes what it computes
        metric, ratio = autoseg.build_metric(name, C), kinds[name]
        places = plan_formula(metric, kernels=True).places
        totals = torch.rand(len(ratio.rows[0]), C, generator=g, dtype=torch.float64)
        sums = {key: totals[at] for key, at in places.items()}
        parts = [totals.new_tensor(row) @ totals for row in ratio.rows]
        parts = [part.sum(-1, keepdim=True) if ratio.pooled else part for part in parts]
        torch.testing.assert_close(metric.scores(sums, exact_ratio), parts[0] / parts[1])
        torch.testing.assert_close(metric.weights(sums), parts[2] if len(parts) > 2 else torch.ones_like(parts[0]))


@pytest.mark.parametrize(
    "formula",
    [
        lambda s, ratio: ratio(s["and"] * s["or"], s["or"]),
        lambda s, ratio: ratio(s["and"], s["or"]) + 0,
        lambda s, ratio: ratio(s["and"], s["or"].clamp_min(1)),
        lambda s, ratio: ratio(s["and"].sum(-1, keepdim=True), s["or"]),
        lambda s, ratio: ratio(s["and"], s["or"].sum(-1, keepdim=True)),
        lambda s, ratio: ratio(s["and"], s["or"] + 1),
        lambda s, ratio: ratio(s["and"] if s["or"] else s["label"], s["or"]),
        lambda s, ratio: 1 - s["and"],
        lambda s, ratio: ratio(1 - s["and"], s["or"]),
        lambda s, ratio: ratio(torch.relu(s["and"]), s["or"]),
    ],
)
def test_other_formulas_are_left_to_torch(formula):
    metric = autoseg.build_metric("miou", C)
    metric.scores = formula
    places = {"and": 0, "or": 1, "label": 2}
    assert ratios.ratio_of(metric, places, 3, counts=[2]) is None


def test_differences_and_multiples_of_totals_are_sums_of_them():
    metric = autoseg.build_metric("miou", C)
    metric.scores = lambda s, ratio: ratio(5 * s["and"], s["or"] - s["label"] + s["and"] + 4 * s["label"])
    found = ratios.ratio_of(metric, {"and": 0, "or": 1, "label": 2}, 3, counts=[2])
    assert found is not None and found.rows == ((5, 0, 0), (1, 1, 3))


@pytest.mark.parametrize(("counts", "fits"), [([2], False), ([1, 2], True)])
def test_weights_that_have_a_gradient_are_left_to_torch(counts, fits):
    class Own(MIoU):
        def weights(self, s):
            return s["or"]

    found = ratios.ratio_of(Own(MetricOptions(C)), {"and": 0, "or": 1, "label": 2}, 3, counts)
    assert (found is not None and found.rows[2] == (0, 1, 0)) if fits else found is None
