from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from autoseg.errors import InputError
from autoseg.losses import build_loss
from autoseg.losses.distances import closeness, signed_distance, two_nearest_cells

STRIPE = torch.tensor([[[0, 0, 0, 1, 1]]])  # (1, 1, 5)


def test_signed_distance_by_hand() -> None:
    outside_1, inside_1 = [3, 2, 1], [0, -1]
    maps = signed_distance(STRIPE[0].numpy(), 3, 255)
    assert maps[1, 0].tolist() == outside_1 + inside_1
    assert maps[0, 0].tolist() == [-2, -1, 0, 1, 2]
    assert not maps[2].any()  # absent: no edge


def test_signed_distance_equals_the_release() -> None:
    """one_hot2dist of the authors' code, where nothing is ignored and every class has an edge."""
    labels = np.random.default_rng(0).integers(0, 3, (9, 9))
    for c, ours in enumerate(signed_distance(labels, 3, 255)):
        inside = labels == c
        edt = ndimage.distance_transform_edt
        np.testing.assert_allclose(ours, edt(~inside) * ~inside - (edt(inside) - 1) * inside, rtol=1e-6)


def test_ignored_pixels_make_no_edge() -> None:
    labels = np.array([[0, 0, 255, 1, 1]])
    assert signed_distance(labels, 2, 255)[1, 0].tolist() == [3, 2, 0, -1, -2]
    assert not signed_distance(np.array([[0, 0, 255]]), 2, 255).any()


def test_boundary_by_hand_and_its_rising_weight() -> None:
    p = torch.tensor([0.1, 0.2, 0.3, 0.6, 0.9], dtype=torch.float64)  # of class 1
    logits = torch.stack([1 - p, p]).log().view(1, 2, 1, 5)
    distance = (
        p @ torch.tensor([3.0, 2, 1, 0, -1]).double() + (1 - p) @ torch.tensor([-2.0, -1, 0, 1, 2]).double()
    ) / 10
    weight = torch.tensor([1 / 9, 1 / 4], dtype=torch.float64)
    overlap = torch.stack([(1 - p)[:3].sum(), p[3:].sum()])
    both = torch.stack([(1 - p).sum() + 3, p.sum() + 2])
    dice = 1 - 2 * (weight @ overlap) / (weight @ both)
    loss = build_loss("boundary", num_classes=2)
    extra = loss.prepare(STRIPE)
    for progress, share in ((None, 0.01), (0.5, 0.505), (1.0, 1.0)):
        if progress is not None:
            loss.set_progress(progress)
        torch.testing.assert_close(
            loss(logits, STRIPE, extra), (1 - share) * dice + share * distance, rtol=1e-6, atol=1e-7
        )
    with pytest.raises(InputError, match="progress"):
        loss.set_progress(1.5)


def test_dpce_by_hand() -> None:
    assert closeness(STRIPE[0].numpy(), 255)[0, 0] == pytest.approx([1 / 3, 2 / 3, 1, 1, 0.5])
    logits = torch.randn(1, 2, 1, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    each = F.cross_entropy(logits, STRIPE, reduction="none")
    weight = 1 + 2 * torch.tensor([1 / 3, 2 / 3, 1, 1, 0.5], dtype=torch.float64)
    value = build_loss("dpce", num_classes=2, scale=2.0)(logits, STRIPE)
    torch.testing.assert_close(value, (weight * each).mean(), rtol=1e-6, atol=0)


def test_unet_weights_by_hand() -> None:
    labels = torch.tensor([[[1, 0, 0, 2, 2, 0, 255]]])  # two cells, a gap of two pixels
    sums = torch.tensor([3.0, 3, 3, 3, 4, 6, 8])  # d1 + d2
    for sigma in (5, 1):  # far cells count too, up to six times as far
        weight = build_loss("unet_ce", num_classes=3, sigma=sigma).prepare(labels)["unet_weight"]
        torch.testing.assert_close(weight[0, 0, 0], 1 + 10 * torch.exp(-(sums**2) / (2 * sigma**2)))
    logits = torch.randn(1, 3, 1, 7, generator=torch.Generator().manual_seed(0))
    each = F.cross_entropy(logits, labels, ignore_index=255, reduction="none")
    expected = ((1 + 10 * torch.exp(-(sums**2) / 50)) * each)[labels != 255].mean()
    torch.testing.assert_close(build_loss("unet_ce", num_classes=3)(logits, labels), expected)


def test_two_nearest_cells_equal_brute_force() -> None:
    labels = (np.random.default_rng(1).random((16, 16)) < 0.1).astype(np.int64)
    components, count = ndimage.label(labels, structure=np.ones((3, 3)))
    every = np.sort([ndimage.distance_transform_edt(components != k) for k in range(1, count + 1)], axis=0)
    first, second = two_nearest_cells(labels, 0, 255, reach_px=50.0)
    np.testing.assert_allclose(first, every[0], rtol=1e-6)
    np.testing.assert_allclose(second, every[1], rtol=1e-6)
    first, second = two_nearest_cells(labels, 0, 255, reach_px=3.0)
    np.testing.assert_allclose(second[every[1] <= 3], every[1][every[1] <= 3], rtol=1e-6)


def test_one_cell_has_no_gap() -> None:
    assert build_loss("unet_ce", num_classes=2).prepare(STRIPE)["unet_weight"].tolist() == [[[[1.0] * 5]]]


def test_prepared_maps_follow_a_flip() -> None:
    labels = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    for name in ("boundary", "dpce", "unet_ce"):
        loss = build_loss(name, num_classes=3)
        for key, maps in loss.prepare(labels.flip(-1)).items():
            torch.testing.assert_close(maps, loss.prepare(labels)[key].flip(-1))
    assert math.isfinite(build_loss("boundary", num_classes=3).prepare(labels)["signed_distance"].sum().item())


@pytest.mark.parametrize("name", ["boundary", "dpce", "unet_ce"])
def test_maps_of_many_images_are_those_of_each(name: str) -> None:
    labels = torch.randint(0, 3, (4, 9, 12), generator=torch.Generator().manual_seed(0))
    loss = build_loss(name, num_classes=3)
    prepared = loss.prepare(labels)
    assert prepared
    for key, maps in prepared.items():
        assert maps.dtype == torch.float32
        assert torch.equal(maps, torch.cat([loss.prepare(one[None])[key] for one in labels]))


def test_maps_that_the_memory_does_not_hold_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel ended the workers, without a word that led to the loss."""
    labels, free = torch.arange(2).repeat(40, 8, 4), iter([SimpleNamespace(available=size) for size in (10**9, 9_000)])
    monkeypatch.setattr("psutil.virtual_memory", lambda: next(free))
    with pytest.raises(InputError) as refusal:  # at the second image: others have filled the memory meanwhile
        build_loss("ce+boundary", num_classes=150).prepare(labels)
    words = (
        "loss boundary: expected memory for what it prepares, 0.0 GB: 150 map(s) of 8x8 for each of 40 images, got 0.0"
    )
    assert str(refusal.value).startswith(words)
    assert all(key in refusal.value.hint for key in ("proxy.size", "data.holdout", "another loss"))
    assert next(free, None) is None
    monkeypatch.undo()
    endless = torch.zeros(1, 512, 512, dtype=torch.uint8).expand(10**5, -1, -1)
    with pytest.raises(InputError, match=r"15728\.6 GB"):  # not even asked for, which the system may refuse its own way
        build_loss("boundary", num_classes=150).prepare(endless)


def test_an_absent_class_has_no_part_in_generalised_dice() -> None:
    logits = torch.randn(1, 3, 1, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p, y = logits.softmax(1)[0, :2, 0], F.one_hot(STRIPE[0, 0], 2).T
    weight = torch.tensor([1 / 9, 1 / 4], dtype=torch.float64)
    expected = 1 - 2 * (weight @ (p * y).sum(1)) / (weight @ (p + y).sum(1))
    torch.testing.assert_close(build_loss("boundary", num_classes=3, start=0.0)(logits, STRIPE), expected)
