"""Worst-q metrics against a plain loop over images."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import autoseg
from autoseg.errors import InputError

C = 3


def draw(seed: int, n: int = 23) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (n, 6, 6), generator=generator)
    labels[: n // 2, :2] = 2  # a class that half of the images have
    labels[0] = 255
    keep = torch.rand(n, 1, 1, generator=generator)  # some images are hard
    pred = torch.where(torch.rand(labels.shape, generator=generator) < keep, labels.clamp(max=2), 0)
    return pred, labels


def loop(pred: Tensor, labels: Tensor, letter: str, q: int) -> float:
    by_image: list[float] = []
    by_class: list[list[float]] = [[] for _ in range(C)]
    for p, y in zip(pred, labels, strict=True):
        scores = []
        for c in range(C):
            a, b = (p == c) & (y != 255), y == c
            if b.any():
                scores.append(float((a & b).sum()) / float((a | b).sum()))
                by_class[c].append(scores[-1])
        if scores:
            by_image.append(sum(scores) / len(scores))

    def worst(values: list[float]) -> float:
        kept = sorted(values)[: max(1, int(len(values) * q / 100))]
        return sum(kept) / len(kept)

    if letter == "i":
        return worst(by_image)
    return sum(worst(values) for values in by_class) / C


@pytest.mark.parametrize("letter", ["i", "c"])
@pytest.mark.parametrize("q", [1, 10, 25, 99])
def test_agrees_with_a_loop_and_merges(letter: str, q: int) -> None:
    pred, labels = draw(q)
    name = f"miou_{letter}_q{q}"
    whole, first, second = (autoseg.build_metric(name, C) for _ in range(3))
    whole.update(pred, labels)
    first.update(pred[12:], labels[12:])
    second.update(pred[:12], labels[:12])
    first.merge(second)
    assert float(whole.compute()) == pytest.approx(loop(pred, labels, letter, q), abs=1e-12)
    assert float(first.compute()) == pytest.approx(float(whole.compute()), abs=1e-12)
    assert whole.name == name and whole.per_class().shape == (1 if letter == "i" else C,)


def test_worst_is_never_above_the_mean_over_all() -> None:
    pred, labels = draw(0)
    for name in ("miou_i", "miou_c", "dice_i", "macc_c"):
        scores = []
        for variant in (f"{name}_q10", f"{name}_q50", name):
            metric = autoseg.build_metric(variant, C)
            metric.update(pred, labels)
            scores.append(float(metric.compute()))
        assert scores == sorted(scores) and scores[0] < scores[-1]


def test_a_class_no_image_has_is_undefined_and_so_is_nothing_at_all() -> None:
    pred, labels = draw(0)
    metric = autoseg.build_metric("macc_c_q5", C + 1)
    assert math.isnan(metric.compute())
    metric.update(pred, labels)
    assert metric.per_class().isnan().tolist() == [False, False, False, True]
    assert not math.isnan(metric.compute())


@pytest.mark.parametrize("name", ["miou_i_q0", "miou_i_q100", "miou_q10", "miou_i_q10_q10", "nothing_q5"])
def test_other_names_are_unknown(name: str) -> None:
    with pytest.raises(InputError, match="one of"):
        autoseg.build_metric(name, C)
