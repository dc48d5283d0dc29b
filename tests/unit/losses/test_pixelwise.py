from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from autoseg.errors import InputError
from autoseg.losses import build_loss, class_weights
from autoseg.losses.pixelwise import CrossEntropy

C = 3
LOGITS = torch.randn(2, C, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.randint(0, C, (2, 6, 6), generator=torch.Generator().manual_seed(1))
LABELS[0, :2] = 255
VALID = LABELS != 255
TRUE_LOSS = F.cross_entropy(LOGITS, LABELS, ignore_index=255, reduction="none")[VALID]  # nats, valid pixels


def value(spec: str, **options: object) -> torch.Tensor:
    return build_loss(spec, num_classes=C, **options)(LOGITS, LABELS)


def two_pixels(p: float, q: float) -> tuple[torch.Tensor, torch.Tensor]:
    """One image of two pixels and two classes: true class 0 with probability p, true class 1 with q."""
    probs = torch.tensor([[p, 1 - q], [1 - p, q]], dtype=torch.float64)
    return probs.log().view(1, 2, 1, 2), torch.tensor([[[0, 1]]])


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("ce", -(math.log(0.8) + math.log(0.5)) / 2),
        ("wce(class_weight=[3,1])", -(3 * math.log(0.8) + math.log(0.5)) / 4),
        ("focal", -(0.04 * math.log(0.8) + 0.25 * math.log(0.5)) / 2),
        ("focal(gamma=1,alpha=[2,1])", -(2 * 0.2 * math.log(0.8) + 0.5 * math.log(0.5)) / 2),
        ("focal(alpha=2)", -(0.04 * math.log(0.8) + 0.25 * math.log(0.5))),
        ("ohem", -math.log(0.5)),
        ("ohem(thresh=0.3,min_kept=1)", -(math.log(0.8) + math.log(0.5)) / 2),
        ("smooth_ce(eps=0.2)", -(0.9 * math.log(0.8) + 0.1 * math.log(0.2) + math.log(0.5)) / 2),
        ("boundary_smooth_ce", -(0.75 * math.log(0.8) + 0.25 * math.log(0.2) + math.log(0.5)) / 2),
        ("mse", (0.04 + 0.25) / 2),
        ("wmse(weight=3)", (0.04 + 3 * 0.25) / 4),
        ("wmse(weight=3,background=1)", (3 * 0.04 + 0.25) / 4),
        ("0.5*ce+2*mse", -(math.log(0.8) + math.log(0.5)) / 4 + 0.29),
    ],
)
def test_by_hand(spec: str, expected: float) -> None:
    assert build_loss(spec, num_classes=2)(*two_pixels(0.8, 0.5)).item() == pytest.approx(expected, rel=1e-12)


def test_cross_entropies_equal_torch() -> None:
    weight = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(value("ce"), F.cross_entropy(LOGITS, LABELS, ignore_index=255))
    torch.testing.assert_close(
        value("wce", class_weight=weight.tolist()), F.cross_entropy(LOGITS, LABELS, weight, ignore_index=255)
    )
    torch.testing.assert_close(
        value("smooth_ce"), F.cross_entropy(LOGITS, LABELS, ignore_index=255, label_smoothing=0.1)
    )


def test_soft_cross_entropy_equals_torch() -> None:
    soft = torch.rand(2, C, 6, 6, dtype=torch.float64).softmax(dim=1)
    loss = build_loss("ce", num_classes=C)(LOGITS, soft)
    torch.testing.assert_close(loss, F.cross_entropy(LOGITS, soft, reduction="sum") / 72)


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.6, 0.5)])
def test_sigmoid_focal_equals_torchvision(alpha: float, gamma: float) -> None:
    import torchvision

    target = F.one_hot(LABELS.where(VALID, 0), C).movedim(-1, 1).double()
    reference = torchvision.ops.sigmoid_focal_loss(LOGITS, target, alpha=alpha, gamma=gamma)
    expected = reference.movedim(1, -1)[VALID].mean()
    torch.testing.assert_close(value("focal", mode="sigmoid", alpha=alpha, gamma=gamma), expected)


def test_softmax_focal_equals_kornia() -> None:
    import kornia

    labels = LABELS.where(VALID, 0)
    expected = kornia.losses.focal_loss(LOGITS, labels, alpha=None, gamma=2.0, reduction="sum") / labels.numel()
    torch.testing.assert_close(build_loss("focal", num_classes=C)(LOGITS, labels), expected)


def test_focal_without_focus_is_cross_entropy() -> None:
    torch.testing.assert_close(value("focal", gamma=0.0), value("ce"))


def test_sigmoid_of_one_class_is_a_binary_task() -> None:
    logits, labels = LOGITS[:, :1], LABELS.clone().clamp(max=1).where(VALID, 255)
    loss = build_loss("focal", num_classes=1, mode="sigmoid", gamma=0.0)(logits, labels)
    expected = F.binary_cross_entropy_with_logits(logits[:, 0][VALID], labels[VALID].double())
    torch.testing.assert_close(loss, expected)


def test_multilabel_masks_may_overlap() -> None:
    masks = torch.randint(0, 2, (2, C, 6, 6), generator=torch.Generator().manual_seed(2)).double()
    loss = build_loss("focal", num_classes=C, mode="sigmoid", gamma=0.0)(LOGITS, masks)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(LOGITS, masks))


def test_ohem_keeps_the_hardest_share() -> None:
    kept = math.ceil(0.3 * len(TRUE_LOSS))
    expected = TRUE_LOSS.sort(descending=True).values[:kept].mean()
    torch.testing.assert_close(value("ohem", thresh=1e-9, min_kept=0.3), expected)
    torch.testing.assert_close(value("ohem", min_kept=0), TRUE_LOSS[TRUE_LOSS > -math.log(0.7)].mean())


def test_boundary_smoothing_is_at_edges_away_from_void() -> None:
    labels = torch.zeros(1, 6, 6, dtype=torch.long)
    labels[..., 3:] = 1
    labels[:, 0, 0] = 255
    labels[:, 5, 3] = 255
    logits = LOGITS[:1]
    each = F.cross_entropy(logits, labels, ignore_index=255, reduction="none")
    for width, px in ((3, 1), (5, 2)):
        eps = torch.zeros(1, 6, 6, dtype=torch.float64)
        eps[..., 3 - px : 3 + px] = 0.5
        eps[:, 5 - px :, 3 - px :] = 0  # beside the void pixel
        eps[:, : 1 + px, : 1 + px] = 0
        mixed = ((1 - eps) * each - eps * logits.log_softmax(dim=1).mean(dim=1))[labels != 255].mean()
        loss = build_loss("boundary_smooth_ce", num_classes=C, width=width)
        torch.testing.assert_close(loss(logits, labels), mixed)


def test_class_weights_by_hand() -> None:
    labels = torch.tensor([[[0, 0, 0, 1]], [[0, 0, 255, 255]]])  # class 2 never occurs
    torch.testing.assert_close(class_weights(labels, "inverse", 3), torch.tensor([6 / 10, 6 / 2, 1.0]))
    shares = torch.tensor([5 / 6, 1 / 4])
    median = shares.mean() / shares
    torch.testing.assert_close(class_weights(labels, "median", 3), torch.tensor([*median, 1.0]))


def test_class_weights_are_counted_from_what_is_prepared() -> None:
    loss = build_loss("wce", num_classes=C, class_weight="inverse")
    counted = class_weights(LABELS, "inverse", C).double()
    expected = F.cross_entropy(LOGITS[:1], LABELS[:1], counted, ignore_index=255)
    torch.testing.assert_close(loss(LOGITS[:1], LABELS[:1], loss.prepare(LABELS)), expected)


@pytest.mark.parametrize("text", ["wce(class_weight=inverse)", "0.5*wce+0.5*dice", "wce(class_weight=[3,1,2])"])
def test_in_mmsegmentation_class_weights_are_those_of_the_counts_it_is_given(text: str) -> None:
    pytest.importorskip("mmseg")
    from autoseg.mmseg import AutoSegLoss

    found = [torch.bincount(labels[labels != 255].flatten(), minlength=C) for labels in LABELS]
    pixels, around = sum(found), sum(one.sum() * (one > 0) for one in found)
    counts = {"pixels": pixels.tolist(), "around": around.tolist()}
    loss = build_loss(text, num_classes=C)
    expected = loss(LOGITS[:1], LABELS[:1], loss.prepare(LABELS))
    given = AutoSegLoss(text, class_counts=counts)
    torch.testing.assert_close(given(LOGITS[:1], LABELS[:1]), expected)
    if "[" not in text:
        assert not torch.equal(AutoSegLoss(text)(LOGITS[:1], LABELS[:1]), expected)


@pytest.mark.parametrize("weights", [[1.0, -1.0, 1.0], [1.0, math.nan, 1.0], [1.0, math.inf, 1.0], [1.0, 1.0]])
def test_class_weights_that_cannot_be_are_refused(weights: list[float]) -> None:
    with pytest.raises(InputError, match="3 non-negative numbers"):
        build_loss("wce", num_classes=3, class_weight=weights)


def test_class_weights_of_nothing_are_one() -> None:
    assert class_weights(torch.full((1, 2, 2), 255), "median", 3).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("wce(class_weight=invers)", "Did you mean inverse"),
        ("wce(class_weight=[1,2])", "3 non-negative numbers"),
        ("focal(gamma=-1)", r"gamma: expected a number in \[0, inf\]"),
        ("focal(mode=tanh)", "softmax or sigmoid"),
        ("focal(mode=sigmoid,alpha=[1,2,3])", "alpha"),
        ("ohem(thresh=0)", "thresh"),
        ("smooth_ce(eps=2)", "eps"),
        ("boundary_smooth_ce(width=2)", "odd number"),
        ("wmse(background=3)", "class id"),
    ],
)
def test_bad_options_are_named(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_loss(spec, num_classes=C)


@pytest.mark.parametrize("width", [1, 4])
def test_a_window_has_a_centre_and_neighbours(width: int) -> None:
    with pytest.raises(InputError, match="odd number of pixels, 3 or more"):
        build_loss("boundary_smooth_ce", num_classes=C, width=width)


def test_a_loss_made_by_its_class_ignores_255_too() -> None:
    torch.testing.assert_close(CrossEntropy(C)(LOGITS, LABELS), value("ce"))


def test_a_binary_mask_has_no_third_id() -> None:
    loss = build_loss("focal", num_classes=1, mode="sigmoid")
    with pytest.raises(InputError, match=r"labels: expected class ids 0 to 1 .* got also 2"):
        loss(LOGITS[:, :1], LABELS)


@pytest.mark.parametrize("name", ["ce", "wce", "focal", "lmp"])
def test_a_class_that_is_masked_out_is_no_nan_to_soft_labels_without_it(name):
    """With a logit of -inf its log p is infinite, and the label's share of it is 0."""
    logits = torch.randn(2, 4, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits[:, 3] = -math.inf
    labels = torch.rand(2, 4, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels[:, 3] = 0
    labels /= labels.sum(1, keepdim=True)
    logits.requires_grad_()
    value = build_loss(name, num_classes=4)(logits, labels)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(logits.grad).all()
    without = logits.detach()[:, :3].requires_grad_()
    three = build_loss(name, num_classes=3)(without, labels[:, :3])
    three.backward()
    torch.testing.assert_close(value, three)
    torch.testing.assert_close(logits.grad[:, :3], without.grad)


@pytest.mark.parametrize("text", ["smooth_ce(eps=0)", "boundary_smooth_ce"])
def test_what_is_not_smoothed_is_no_nan_where_a_class_is_masked_out(text):
    logits = torch.randn(1, 4, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits[:, 3] = -math.inf
    labels = torch.ones(1, 6, 6, dtype=torch.long)  # no boundary
    labels[:, :, 4:] = 255
    expected = torch.nn.functional.cross_entropy(logits[..., :4], labels[..., :4])
    torch.testing.assert_close(build_loss(text, num_classes=4)(logits, labels), expected)


def test_a_weight_of_nothing_leaves_a_loss_out_of_a_sum():
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 1] = -math.inf
    labels = torch.ones(1, 4, 4, dtype=torch.long)
    value = build_loss("0*ce+jaccard", num_classes=3)(logits, labels)
    torch.testing.assert_close(value, build_loss("jaccard", num_classes=3)(logits, labels))
    nothing = build_loss("0*dice", num_classes=3)(torch.zeros(1, 3, 4, 4).requires_grad_(), labels)
    assert nothing.item() == 0 and nothing.requires_grad


def test_ohem_of_more_pixels_than_float32_counts():
    """The share of pixels that count is rounded up in float32, to a pixel that is not there."""
    loss = build_loss("ohem(min_kept=1)", num_classes=2)
    loss.min_kept = 1.0 + 1e-3  # as rounding does from 16.8 million pixels on
    logits, labels = torch.randn(1, 2, 40, 40), torch.zeros(1, 40, 40, dtype=torch.long)
    expected = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(loss(logits, labels), expected)
