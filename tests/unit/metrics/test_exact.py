"""Exact metrics against independent implementations, and the promises every metric makes."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

import autoseg
from autoseg import metrics
from autoseg.errors import InputError

C = 4
REGISTRY = metrics.base.registry()
WHOLE = [n for n, m in REGISTRY.items() if not (m.per_image or m.needs_probs)]  # test_per_image, test_calibration
ALL = [*WHOLE, "miou+0.5*bf1"]


def blobs(seed: int, n: int = 3, size: tuple[int, int] = (17, 23), void: bool = True):
    """Labels and predictions with connected regions, so that boundaries mean something."""
    rng = np.random.default_rng(seed)

    def draw(k: int) -> np.ndarray:
        noise = rng.normal(size=(n, C, *size))
        return np.stack([ndimage.gaussian_filter(x, (0, k, k)) for x in noise]).argmax(1)

    labels, pred = draw(2), draw(2)
    pred = np.where(rng.random(labels.shape) < 0.7, labels, pred)
    if void:
        labels[:, :3, :4] = 255
    return torch.as_tensor(pred), torch.as_tensor(labels)


def confusion(pred, labels):
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    keep = labels < C
    return multiclass_confusion_matrix(pred[keep], labels[keep], num_classes=C).double()


def reference(name: str, pred, labels, tol: int = 2) -> float:
    """Written from the definitions with scipy and torchmetrics, image by image, nothing shared with the product."""
    cm = confusion(pred, labels)
    tp, rows, cols = cm.diag(), cm.sum(1), cm.sum(0)
    union = rows + cols - tp
    if name == "miou":
        return float((tp / union)[union > 0].mean())
    if name == "fwiou":
        return float(((tp / union) * rows / rows.sum())[rows > 0].sum())
    if name == "dice":
        return float((2 * tp / (rows + cols))[union > 0].mean())
    if name == "macc":
        return float((tp / rows)[rows > 0].mean())
    if name == "precision":
        return float(torch.where(cols > 0, tp / cols, 0.0)[1:][union[1:] > 0].mean())
    if name == "recall":
        return float((tp / rows)[1:][rows[1:] > 0].mean())
    if name == "f1":
        return float((2 * tp / (rows + cols))[1:][union[1:] > 0].mean())
    if name == "gacc":
        return float(tp.sum() / rows.sum())
    square = np.ones((3, 3), bool)
    band = np.ones((2 * tol + 1,) * 2, bool)

    def edge(mask):  # a pixel of the mask with another pixel outside it, the image border apart
        return mask & ~ndimage.binary_erosion(mask, square, border_value=1)

    if name == "biou":
        trimap = torch.stack(
            [
                torch.as_tensor(np.any([ndimage.binary_dilation(edge(y.numpy() == c), band) for c in range(C)], axis=0))
                for y in labels
            ]
        )
        return reference("miou", pred[None][:, trimap], labels[None][:, trimap])
    if name == "bf1":
        f1 = []
        for c in range(C):
            n = np.zeros(4)
            for p, y in zip(pred.numpy(), labels.numpy(), strict=True):
                ep, ey = edge(p == c), edge(y == c)
                n += [
                    ep.sum(),
                    (ep & ndimage.binary_dilation(ey, band)).sum(),
                    ey.sum(),
                    (ey & ndimage.binary_dilation(ep, band)).sum(),
                ]
            if n[2]:
                precision, recall = n[1] / n[0] if n[0] else 0, n[3] / n[2]
                f1.append(2 * precision * recall / (precision + recall) if precision + recall else 0)
        return float(np.mean(f1))
    assert name == "boundary_iou"
    iou = []
    for c in range(C):
        both = either = 0
        for p, y in zip(pred.numpy(), labels.numpy(), strict=True):
            bp, by = (m & ~ndimage.binary_erosion(m, square, iterations=tol) for m in (p == c, y == c))
            keep = y < C
            both += (bp & by & keep).sum()
            either += ((bp | by) & keep).sum()
        if either:
            iou.append(both / either)
    return float(np.mean(iou))


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_definition(name, seed):
    pred, labels = blobs(seed)
    metric = autoseg.build_metric(name, C, tolerance=2)
    metric.update(pred, labels)
    assert metric.compute().dtype == torch.float64
    assert float(metric.compute()) == pytest.approx(reference(name, pred, labels), abs=1e-12)


@pytest.mark.parametrize("name", ["biou", "bf1", "boundary_iou"])
@pytest.mark.parametrize("tolerance", range(4))
def test_boundaries_that_miss_one_another_agree_with_the_definition(name, tolerance):
    """Of unrelated pictures: in `blobs` a pixel of noise lies near every outline, and no boundary is ever missed."""
    (_, pred), (_, labels) = blobs(0, void=False), blobs(1)
    metric = autoseg.build_metric(name, C, tolerance=tolerance)
    metric.update(pred, labels)
    if name == "bf1" and tolerance < 3:
        assert (metric._state["label_hit"] < 0.95 * metric._state["label"]).all()
    width = max(tolerance, 1) if name == "boundary_iou" else tolerance
    assert float(metric.compute()) == pytest.approx(reference(name, pred, labels, width), abs=1e-12)


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), cut=st.integers(1, 4))
def test_batching_order_and_merging_change_nothing(name, seed, cut):
    pred, labels = blobs(seed, n=5)
    whole, first, second = (autoseg.build_metric(name, C, tolerance=2) for _ in range(3))
    whole.update(pred, labels)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    first.update(pred[order[:cut]], labels[order[:cut]])
    second.update(pred[order[cut:]], labels[order[cut:]])
    first.merge(second)
    assert torch.equal(first.compute(), whole.compute())
    assert torch.equal(first.per_class().nan_to_num(-1), whole.per_class().nan_to_num(-1))


@pytest.mark.parametrize("name", [name for name in metrics.names() if not REGISTRY[name].needs_probs])
def test_perfect_prediction_scores_one(name):
    _, labels = blobs(0, void=False)
    metric = autoseg.build_metric(name, C)
    metric.update(labels, labels)
    assert float(metric.compute()) == 1.0


@pytest.mark.parametrize("name", ALL)
def test_nothing_to_count_is_nan_and_reset_forgets(name):
    metric = autoseg.build_metric(name, C)
    assert math.isnan(metric.compute())
    metric.update(torch.zeros(1, 4, 4, dtype=torch.long), torch.full((1, 4, 4), 255))
    assert math.isnan(metric.compute())
    pred, labels = blobs(0)
    metric.update(pred, labels)
    metric.reset()
    assert math.isnan(metric.compute())


def test_absent_classes():
    labels = torch.zeros(1, 6, 6, dtype=torch.long)
    labels[:, 3:] = 1
    pred = labels.clone()
    pred[:, 0, 0] = 2  # class 2 is predicted only: it occurs for IoU, not for accuracy; class 3 never occurs
    miou, macc = autoseg.build_metric("miou", C), autoseg.build_metric("macc", C)
    miou.update(pred, labels)
    macc.update(pred, labels)
    assert miou.per_class().isnan().tolist() == [False, False, False, True]
    assert miou.per_class()[2] == 0
    assert macc.per_class().isnan().tolist() == [False, False, True, True]
    gacc = autoseg.build_metric("gacc", C)
    gacc.update(pred, labels)
    assert gacc.per_class().shape == (1,)


@pytest.mark.parametrize("name", metrics.names())
def test_before_anything_was_seen_the_classes_are_nan_and_as_many_as_after(name):
    metric, seen = autoseg.build_metric(name, C), autoseg.build_metric(name, C)
    pred, labels = blobs(0)
    if metric.needs_probs:
        seen.update_probs(torch.eye(C)[pred].permute(0, 3, 1, 2), labels)
    else:
        seen.update(pred, labels)
    assert metric.per_class().isnan().all() and metric.per_class().dtype == torch.float64
    assert metric.per_class().shape == seen.per_class().shape
    assert math.isnan(metric.compute()) and not metric._state


def test_dropping_the_background():
    pred, labels = blobs(1)
    kept, dropped = (autoseg.build_metric("bf1", C, drop_background=d) for d in (False, True))
    for metric in (kept, dropped):
        metric.update(pred, labels)
    assert dropped.per_class()[0].isnan()
    assert float(dropped.compute()) == pytest.approx(float(kept.per_class()[1:].nanmean()))
    flat = torch.zeros(1, 9, 9, dtype=torch.long)
    biou = autoseg.build_metric("biou", C, tolerance=1, drop_background=True)
    flat[:, :, 5:] = 1  # the trimap is then around class 1's own inner edge, column 5
    biou.update(flat, flat)
    assert int(biou._state["label"].sum()) == 9 * 3


def test_a_sum_is_the_weighted_sum():
    pred, labels = blobs(2)
    parts = {n: autoseg.build_metric(n, C) for n in ("miou", "bf1", "miou+0.5*bf1")}
    for metric in parts.values():
        metric.update(pred, labels)
    miou, bf1, both = parts.values()
    torch.testing.assert_close(both.compute(), miou.compute() + 0.5 * bf1.compute())
    torch.testing.assert_close(both.per_class(), miou.per_class() + 0.5 * bf1.per_class())
    assert both.name == "miou+0.5*bf1"
    alone = autoseg.build_metric("0.5*miou", C)
    alone.update(pred, labels)
    torch.testing.assert_close(alone.compute(), 0.5 * miou.compute())
    pooled = autoseg.build_metric("miou+0.5*gacc", C)
    pooled.update(pred, labels)
    torch.testing.assert_close(pooled.per_class(), miou.per_class() + 0.5 * reference("gacc", pred, labels))


@pytest.mark.parametrize("name", WHOLE)
def test_void_may_have_any_number(name):
    pred, labels = blobs(4)
    usual, other = (autoseg.build_metric(name, C, ignore_index=number, tolerance=2) for number in (255, -7))
    usual.update(pred, labels)
    other.update(pred, torch.where(labels == 255, -7, labels))
    assert torch.equal(usual.compute(), other.compute())
    with pytest.raises(InputError, match="ignore_index -7, got also 255"):
        other.update(pred, labels)


@pytest.mark.parametrize("name", ["miou", "bf1", "miou_i"])
def test_parts_by_image_are_in_the_order_of_the_images(name):
    pred, labels = blobs(5, n=4)
    kept = autoseg.build_metric(name, C, tolerance=2)
    kept.keep_images()
    for batch in (slice(0, 3), slice(3, 4)):
        kept.update(pred[batch], labels[batch])
    for image in range(4):
        alone = autoseg.build_metric(name, C, tolerance=2)
        alone.update(pred[image : image + 1], labels[image : image + 1])
        of_one = kept.score_of({total: part[image] for total, part in kept.parts.items()})
        torch.testing.assert_close(of_one, alone.compute())
    more = autoseg.build_metric(name, C, tolerance=2)
    more.keep_images()
    assert more.parts == {}
    more.update(pred[:1], labels[:1])
    kept.merge(more)
    assert len(next(iter(kept.parts.values()))) == 5
    kept.reset()
    assert kept.parts == {}
    kept.update(pred[:2], labels[:2])
    assert len(next(iter(kept.parts.values()))) == 2


@pytest.mark.parametrize("name", [*metrics.names(), "miou+0.5*bf1"])
def test_a_worker_that_saw_nothing_adds_nothing(name):
    pred, labels = blobs(0)
    metric, empty = (autoseg.build_metric(name, C, tolerance=2) for _ in range(2))
    if name in REGISTRY and REGISTRY[name].needs_probs:
        metric.update_probs(torch.nn.functional.one_hot(pred, C).movedim(-1, 1).float(), labels)
    else:
        metric.update(pred, labels)
    before = metric.compute()
    assert not before.isnan()
    metric.merge(empty)
    assert torch.equal(metric.compute(), before)
    empty.merge(metric)
    assert torch.equal(empty.compute(), before)


@pytest.mark.parametrize("name", [*metrics.names(), "miou+0.5*bf1", "miou_i_q25"])
def test_a_state_travels_between_processes(name):
    pred, labels = blobs(5)
    here, twice = (autoseg.build_metric(name, C, tolerance=2) for _ in range(2))
    update = "update_probs" if name in REGISTRY and REGISTRY[name].needs_probs else "update"
    given = torch.nn.functional.one_hot(pred, C).movedim(-1, 1).float() if update == "update_probs" else pred
    getattr(here, update)(given, labels)
    there = pickle.loads(pickle.dumps(here))
    assert torch.equal(there.compute(), here.compute())
    there.merge(here)
    for _ in range(2):
        getattr(twice, update)(given, labels)
    assert torch.equal(there.compute(), twice.compute())


@pytest.mark.parametrize("name", ALL)
def test_an_ignored_class_counts_as_void(name):
    pred, labels = blobs(0, void=False)
    ignoring = autoseg.build_metric(name, C, ignore_index=0, tolerance=2)
    ignoring.update(pred, labels)
    void = autoseg.build_metric(name, C, tolerance=2)
    void.update(pred, labels.masked_fill(labels == 0, 255))
    assert torch.equal(ignoring.compute(), void.compute())


def test_only_alike_states_merge():
    pred, labels = blobs(0)
    metric = autoseg.build_metric("biou", C, tolerance=2)
    metric.update(pred, labels)
    before = metric.compute()
    others = [{"tolerance": 3}, {"tolerance": 2, "ignore_index": 9}, {"tolerance": 2, "drop_background": True}]
    for other in [autoseg.build_metric("miou", C), *(autoseg.build_metric("biou", C, **each) for each in others)]:
        other.update(pred.clamp(max=1), labels.clamp(max=1))
        with pytest.raises(InputError, match="merge"):
            metric.merge(other)
    half, whole = (autoseg.build_metric(f"miou+{weight}*bf1", C) for weight in (0.5, 1))
    with pytest.raises(InputError, match="merge"):
        half.merge(whole)
    for other in (metric, None, "biou"):
        with pytest.raises(InputError, match=r"merge: expected a miou\+0\.5\*bf1"):
            half.merge(other)
    assert torch.equal(metric.compute(), before)


def test_boundary_f1_of_a_class_missed_altogether_is_zero():
    labels = torch.zeros(1, 12, 30, dtype=torch.long)
    labels[:, :, 15:] = 1
    nowhere = torch.zeros_like(labels)
    elsewhere = nowhere.clone()
    elsewhere[:, :, :3] = 1
    for pred in (nowhere, elsewhere):
        metric = autoseg.build_metric("bf1", 2, tolerance=1)
        metric.update(pred, labels)
        assert metric.per_class().tolist() == [0.0, 0.0] and metric.compute() == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: autoseg.build_metric("mioo", C), ["miou", "mioo"]),
        (lambda: autoseg.build_metric("miou+0*bf1", C), ["above 0"]),
        (lambda: autoseg.build_metric("1e400*miou", C), ["finite"]),
        (lambda: autoseg.build_metric("miou+miou", C), ["once"]),
        (lambda: autoseg.build_metric("miou-bf1", C), ["miou+0.5*bf1"]),
        (lambda: autoseg.build_metric("miou", 0), ["num_classes", "a positive whole number"]),
        (lambda: autoseg.build_metric("biou", C, tolerance=-1), ["tolerance"]),
        (lambda: autoseg.build_metric("biou", C, tolerance=1.5), ["tolerance", "whole"]),
        (lambda: autoseg.build_metric("miou", 2.5), ["num_classes", "2.5"]),
        (lambda: autoseg.build_metric("miou", C).update(torch.ones(1, 2, 2), torch.ones(1, 2, 2)), ["pred", "integer"]),
    ],
)
def test_bad_requests(make, words):
    with pytest.raises(InputError) as error:
        make()
    assert all(w in str(error.value) for w in words)


@pytest.mark.parametrize("bad", [C, -1, 254])
def test_ids_out_of_range_raise(bad):
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    metric = autoseg.build_metric("miou", C)
    wrong = labels.clone()
    wrong[0, 0, 0] = bad
    with pytest.raises(InputError, match=f"also {bad}"):
        metric.update(labels, wrong)
    with pytest.raises(InputError, match="pred"):
        metric.update(wrong, labels)
    with pytest.raises(InputError, match="one shape"):
        metric.update(labels, labels[0])


def test_counts_are_integers_and_exact_beyond_float32():
    metric = autoseg.build_metric("gacc", 2)
    ones = torch.ones(1, 1024, 1024, dtype=torch.long)
    wrong = ones.clone()
    wrong[0, 0, 0] = 0
    metric.update(wrong, ones)
    for _ in range(4):
        metric.merge(metric)
    assert all(v.dtype == torch.int64 for v in metric._state.values())
    assert float(metric.compute()) == 1 - 16 / (16 * 2**20)


@pytest.mark.parametrize("name", WHOLE)
def test_void_may_be_the_first_id_that_is_no_class(name):
    pred, labels = blobs(4)
    usual, other = (autoseg.build_metric(name, C, ignore_index=number, tolerance=2) for number in (255, C))
    usual.update(pred, labels)
    other.update(pred, torch.where(labels == 255, C, labels))
    assert torch.equal(usual.compute(), other.compute())


@pytest.mark.parametrize("shape", [(4, 4), (1, 1, 1, 4, 4)])
def test_maps_that_are_no_batch_are_refused(shape):
    maps = torch.zeros(shape, dtype=torch.long)
    with pytest.raises(InputError, match="pred, labels: expected two"):
        autoseg.build_metric("miou", C).update(maps, maps)
