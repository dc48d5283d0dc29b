"""Counting once for several metrics, and the bit windows it rests on, against plain definitions."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

import autoseg
from autoseg import metrics
from autoseg.errors import InputError
from autoseg.metrics.bits import reached, square, uniform, widen
from autoseg.metrics.maps import HardLogic, count_spread

C = 5
NAMES = [name for name, metric in metrics.base.registry().items() if not metric.needs_probs]


def maps(seed: int, size: tuple[int, int] = (13, 9), classes: int = C, low: int = 0) -> Tensor:
    coarse = torch.randint(low, classes, (3, 5, 4), generator=torch.Generator().manual_seed(seed))
    return coarse.repeat_interleave(3, 1).repeat_interleave(3, 2)[:, : size[0], : size[1]].contiguous()


def test_together_gives_what_one_by_one_gives() -> None:
    labels, pred = maps(0), maps(1)
    labels[:, :2, :3] = 255
    specs = [*NAMES, "miou+0.5*bf1"]
    options = [{"tolerance": 1}, {"tolerance": 2}, {"tolerance": 3, "drop_background": True}]
    together, alone = ([autoseg.build_metric(s, C, **o) for s in specs for o in options] for _ in range(2))
    for batch in (slice(0, 2), slice(2, 3)):
        metrics.update_all(together, pred[batch], labels[batch])
        for metric in alone:
            metric.update(pred[batch], labels[batch])
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one.per_class().nan_to_num(-1), other.per_class().nan_to_num(-1))
        assert torch.equal(one.compute(), other.compute())


def test_together_metrics_of_other_classes_are_counted_apart() -> None:
    labels, pred = maps(0), maps(1)
    few, many = autoseg.build_metric("miou", C), autoseg.build_metric("miou", C + 3)
    metrics.update_all([few, many], pred, labels)
    assert few.per_class().shape == (C,) and many.per_class().shape == (C + 3,)
    with pytest.raises(InputError, match="labels"):  # void for the first alone
        metrics.update_all(
            [few, autoseg.build_metric("miou", C, ignore_index=7)], pred, labels.masked_fill(labels == 1, 255)
        )


def test_what_lies_in_void_counts_only_where_asked_for() -> None:
    """A plane is the same whoever asks for it, its totals are not: with void, within it, dilated into it."""
    pred, labels = torch.zeros(1, 5, 8, dtype=torch.long), torch.zeros(1, 5, 8, dtype=torch.long)
    pred[:, :, 3:], labels[:, :, 4:] = 1, 255
    logic = HardLogic(pred, labels, 2)
    edge, near = logic.boundary(logic.pred), logic.dilate(logic.boundary(logic.label), 3)
    assert logic.total(edge, void=True).tolist() == [5, 5]
    assert logic.total(edge).tolist() == [5, 5]
    assert logic.total(logic.pred, void=True).tolist() == [15, 25] and logic.total(logic.pred).tolist() == [15, 5]
    assert logic.total(logic.pred, within=near, void=True).tolist() == [15, 0]
    pred[:, :, 4:] = 0
    again = HardLogic(pred, labels, 2)
    assert again.total(again.pred, within=again.dilate(again.boundary(again.label), 3), void=True).tolist() == [30, 0]
    assert again.total(again.pred, within=again.dilate(again.boundary(again.label), 3)).tolist() == [15, 0]


def test_a_region_is_as_wide_as_its_plane_and_no_wider() -> None:
    logic = HardLogic(maps(0), maps(1), C)
    edge = logic.boundary(logic.label)
    assert torch.equal(logic.total(logic.label, within=logic.anywhere(edge)), logic.total(edge))
    one = logic.anywhere(logic.boundary(logic.label), skip_first=True)
    assert torch.equal(logic.total(logic.label, within=one)[1:], logic.total(edge)[1:])
    assert logic.total(logic.label, within=one)[0] == 0


def test_together_checks_ids_too() -> None:
    with pytest.raises(InputError, match="labels"):
        metrics.update_all([autoseg.build_metric("miou", C)], maps(0), maps(0) + 1)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(0, 4), st.integers(0, 4), st.sampled_from([-1, -2]))
def test_widen_is_a_running_or(seed: int, before: int, after: int, dim: int) -> None:
    flags = torch.rand(2, 7, 6, generator=torch.Generator().manual_seed(seed)) < 0.2
    expected = torch.zeros_like(flags)
    size = flags.shape[dim]
    for at in range(size):
        window = flags.narrow(dim, max(0, at - before), min(size, at + after + 1) - max(0, at - before))
        expected.select(dim, at).copy_(window.any(dim))
    assert torch.equal(widen(flags, dim, before, after), expected)


@pytest.mark.parametrize("px", [1, 2, 5, 20])
@pytest.mark.parametrize("border", [False, True])
def test_uniform_is_erosion_of_every_class(px: int, border: bool) -> None:
    classes = maps(3, low=-1)
    window = torch.ones(2 * px + 1, 2 * px + 1, dtype=torch.bool).numpy()
    expected = torch.zeros_like(classes, dtype=torch.bool)
    for image, out in zip(classes, expected, strict=True):
        for label in range(-1, C):
            inside = ndimage.binary_erosion((image == label).numpy(), window, border_value=int(not border))
            out |= torch.as_tensor(inside)
    assert torch.equal(uniform(classes, px, border), expected)


@pytest.mark.parametrize("classes", [3, 62, 63, 150])
@pytest.mark.parametrize("px", [0, 1, 4])
def test_reached_is_dilation_of_every_class(classes: int, px: int) -> None:
    sources, at = maps(5, classes=classes, low=-1), maps(6, classes=classes, low=-1)
    at[:, ::2] = sources[:, ::2].roll(1, 2)
    window = torch.ones(2 * px + 1, 2 * px + 1, dtype=torch.bool).numpy()
    expected = torch.zeros_like(at, dtype=torch.bool)
    for image, asked, out in zip(sources, at, expected, strict=True):
        for label in image.unique().tolist():
            if label >= 0:
                wide = torch.as_tensor(ndimage.binary_dilation((image == label).numpy(), window))
                out |= wide & (asked == label)
    assert torch.equal(reached(sources, at, px, classes), expected)
    assert expected.any() and not expected.all()


def test_square_of_bits_keeps_classes_apart() -> None:
    bits = torch.zeros(1, 5, 5, dtype=torch.int64)
    bits[0, 0, 0], bits[0, 4, 4] = 1, 1 << 61
    wide = square(bits, 2)
    assert wide[0, 2, 2] == 1 | 1 << 61 and wide[0, 0, 2] == 1 and wide[0, 0, 3] == 0


@pytest.mark.parametrize("pixels", [0, 1, 255, 256, 1000])
def test_counting_without_waiting_equals_bincount(pixels: int) -> None:
    bins = torch.randint(0, 7, (pixels,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(count_spread(bins, 9), torch.bincount(bins, minlength=9))


AROUND = {"biou", "bf1", "boundary_iou"}


@pytest.mark.parametrize("name", [*NAMES, "miou+0.5*dice_i"])
def test_a_volume_is_a_tall_image_or_refused(name: str) -> None:
    labels, pred = (torch.stack([maps(seed), maps(seed + 2)], 1) for seed in (0, 1))
    labels[:, :, :2, :3] = 255
    one, other = autoseg.build_metric(name, C), autoseg.build_metric(name, C)
    if name in AROUND:
        said = rf"input of {name}: expected images, .* got volumes\. .*pred\.flatten\(0, 1\)"
        with pytest.raises(InputError, match=said):
            one.update(pred, labels)
        one.update(pred.flatten(0, 1), labels.flatten(0, 1))
        return
    one.update(pred, labels)
    metrics.update_all([other], pred.flatten(1, 2), labels.flatten(1, 2))
    assert torch.equal(one.per_class().nan_to_num(-1), other.per_class().nan_to_num(-1))
    assert torch.equal(one.compute(), other.compute())
    with pytest.raises(InputError, match="pred, labels"):
        one.update(pred, labels.transpose(1, 2))


@pytest.mark.parametrize("name", ["ece", "sce"])
def test_a_volume_has_probabilities_too(name: str) -> None:
    probs = torch.rand(2, C, 3, 5, 4, generator=torch.Generator().manual_seed(0)).softmax(1)
    labels = torch.randint(0, C, (2, 3, 5, 4))
    one, other = (autoseg.build_metric(name, C) for _ in range(2))
    one.update_probs(probs, labels)  # type: ignore[union-attr]
    other.update_probs(probs.flatten(2, 3), labels.flatten(1, 2))  # type: ignore[union-attr]
    assert torch.equal(one.compute(), other.compute())


@pytest.mark.parametrize("word", ["boundary", "dilate"])
def test_an_own_formula_that_looks_around_is_found_out(word: str) -> None:
    class Own(metrics.region.MIoU):
        name, summary = "own", "within a plane of neighbours"

        def sums(self, p, y, logic):  # type: ignore[no-untyped-def]
            plane = {"boundary": lambda: logic.boundary(y), "dilate": lambda: logic.anywhere(logic.dilate(y, 1))}[
                word
            ]()
            return {**super().sums(p, y, logic), "own": logic.total(p, within=plane)}

    metric = Own(metrics.MetricOptions(C))
    with pytest.raises(InputError, match=r"input of own: .* got volumes"):
        metric.update(maps(0)[None], maps(1)[None])
    metric.update(maps(0), maps(1))
