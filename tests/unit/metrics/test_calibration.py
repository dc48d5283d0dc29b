"""Calibration errors against torchmetrics and a plain loop; their direction and their refusals."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import autoseg
from autoseg import metrics
from autoseg.errors import InputError
from autoseg.metrics.calibration import tally
from autoseg.search.reward import Floor

C = 4


def draw(seed: int, n: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, C, 7, 9, generator=generator)
    labels = torch.where(torch.rand(n, 7, 9, generator=generator) < 0.5, logits.argmax(1), 0)
    labels[:, :2] = 255
    return logits.softmax(1), labels


def score(name: str, probs: Tensor, labels: Tensor, ignore_index: int = 255) -> float:
    metric = autoseg.build_metric(name, C, ignore_index=ignore_index)
    metric.update_probs(probs, labels)  # type: ignore[union-attr]
    return float(metric.compute())


def one_vs_rest(probs: Tensor, labels: Tensor, bins: int = 15) -> list[float]:
    """Per class, by a loop over bins."""
    keep = labels != 255
    errors = []
    for c in range(C):
        p, y = probs[:, c][keep].double(), (labels[keep] == c).double()
        error = 0.0
        for b in range(bins):
            inside = (p > b / bins) & (p <= (b + 1) / bins)
            if inside.any():
                error += float(inside.sum()) / len(p) * abs(float(y[inside].mean() - p[inside].mean()))
        errors.append(error)
    return errors


@pytest.mark.parametrize("seed", range(3))
def test_ece_agrees_with_torchmetrics(seed: int) -> None:
    from torchmetrics.functional.classification import multiclass_calibration_error

    probs, labels = draw(seed)
    keep = labels != 255
    flat = probs.movedim(1, -1)[keep]
    expected = multiclass_calibration_error(flat, labels[keep], num_classes=C, n_bins=15, norm="l1")
    assert score("ece", probs, labels) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_sce_agrees_with_a_loop(seed: int) -> None:
    probs, labels = draw(seed)
    metric = autoseg.build_metric("sce", C)
    metric.update_probs(probs, labels)  # type: ignore[union-attr]
    assert metric.per_class().tolist() == pytest.approx(one_vs_rest(probs, labels), abs=1e-6)
    assert float(metric.compute()) == pytest.approx(sum(one_vs_rest(probs, labels)) / C, abs=1e-6)


@pytest.mark.parametrize("name", ["ece", "sce"])
def test_void_may_have_any_number(name: str) -> None:
    probs, labels = draw(1)
    assert score(name, probs, labels.masked_fill(labels == 255, 77), ignore_index=77) == score(name, probs, labels)


def test_a_bin_holds_its_upper_end_and_not_its_lower_one() -> None:
    """A fifth is the end of the third of 15 bins: alone in the fourth, its error would not cancel that of 0.15."""
    confidence = torch.tensor([0.15, 0.2], dtype=torch.float64)
    sums = tally(confidence, torch.tensor([False, True]))
    assert sums["count"].tolist() == [0, 0, 2] + [0] * 12 and sums["hits"].sum() == 1
    assert tally(torch.tensor([0.0, 1.0]), torch.ones(2, dtype=torch.bool))["count"][[0, -1]].tolist() == [1, 1]


@pytest.mark.parametrize("name", ["ece", "sce"])
@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), cut=st.integers(1, 3))
def test_batching_order_and_merging_change_nothing(name: str, seed: int, cut: int) -> None:
    probs, labels = draw(seed)
    first, second = autoseg.build_metric(name, C), autoseg.build_metric(name, C)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    first.update_probs(probs[order[:cut]], labels[order[:cut]])  # type: ignore[union-attr]
    second.update_probs(probs[order[cut:]], labels[order[cut:]])  # type: ignore[union-attr]
    first.merge(second)  # type: ignore[arg-type]
    assert float(first.compute()) == pytest.approx(score(name, probs, labels), abs=1e-12)


@pytest.mark.parametrize("name", ["ece", "sce"])
def test_certain_and_right_is_0_certain_and_wrong_is_known_and_nothing_is_nan(name: str) -> None:
    labels = torch.randint(0, C, (2, 5, 5), generator=torch.Generator().manual_seed(0))
    certain = torch.nn.functional.one_hot(labels, C).movedim(-1, 1).float()
    assert score(name, certain, labels) == 0
    assert score(name, certain * (1 + 5e-7), labels) == pytest.approx(0, abs=1e-6)  # rounding, of a softmax too
    # every pixel is promised to the next class: ECE 1; each class is wrong where it is and where it is promised
    assert score(name, certain.roll(1, dims=1), labels) == pytest.approx({"ece": 1.0, "sce": 2 / C}[name])
    assert math.isnan(score(name, certain, torch.full_like(labels, 255)))
    assert math.isnan(autoseg.build_metric(name, C).compute())


def test_uniform_probabilities_of_a_balanced_label_are_calibrated() -> None:
    labels = torch.arange(C).repeat(1, 4, 1)
    probs = torch.full((1, C, 4, C), 1 / C)
    assert score("sce", probs, labels) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m, p, y: m.update(p.argmax(1), y), "update_probs"),
        (lambda m, p, y: m.update_probs(p.log(), y), "softmax"),
        (lambda m, p, y: m.update_probs(p[:, :2], y), r"\(N, 4, H, W\)"),
        (lambda m, p, y: m.update_probs(p, y + 7), "also 7"),
        (lambda m, p, y: m.update_probs(p.where(p < p.max(), torch.nan), y), "got NaN. So were the logits"),
        (lambda m, p, y: m.update_probs(p.numpy(), y), "probs: expected a tensor, got ndarray"),
    ],
)
def test_bad_input_is_refused(call, words) -> None:
    probs, labels = draw(0)
    with pytest.raises(InputError, match=words):
        call(autoseg.build_metric("ece", C), probs, labels)


@pytest.mark.parametrize("name", [n for n in metrics.names() if n not in metrics.searchable()])
def test_what_cannot_be_searched_for_is_refused_as_a_target(name: str) -> None:
    for make in (
        lambda: autoseg.build_space("default", metric=name),
        lambda: autoseg.build_space(f"paper-{name}"),
        lambda: autoseg.SurrogateLoss(name, C),
        lambda: autoseg.search(name, train=lambda loss, seed, device: 0.0, num_classes=C),
    ):
        with pytest.raises(InputError, match="reported only"):
            make()


def test_directions() -> None:
    assert not metrics.higher_is_better("ece") and metrics.higher_is_better("miou+0.5*bf1")
    assert [n for n in metrics.names() if not metrics.higher_is_better(n)] == ["ece", "sce"]
    with pytest.raises(InputError, match="by itself"):
        autoseg.build_metric("miou+ece", C)
    assert Floor.parse("ece>=0.1").metric == "ece"  # refused where metrics are known, see the search command


def test_a_weighted_error_is_no_sum_of_scores():
    with pytest.raises(InputError, match="ece"):
        autoseg.build_metric("0.5*ece", 3)


def test_it_keeps_no_graph():
    logits, labels = draw(0)
    metric = autoseg.build_metric("ece", C)
    metric.update_probs(logits.requires_grad_().softmax(1), labels)
    assert not any(value.requires_grad for value in metric._state.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_falls_into_the_bins_of_its_numbers(dtype):
    confidence = torch.rand(2000, generator=torch.Generator().manual_seed(0)).to(dtype)
    hit = torch.rand(2000, generator=torch.Generator().manual_seed(1)) < 0.5
    half, double = tally(confidence, hit), tally(confidence.double(), hit)
    assert all(torch.equal(half[key], double[key]) for key in double)
