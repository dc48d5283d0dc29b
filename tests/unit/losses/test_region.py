from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from smp import smp_losses

from autoseg.errors import InputError
from autoseg.losses import build_loss
from autoseg.optimizers import PlainAdam

C = 3
LOGITS = torch.randn(2, C, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.randint(0, C, (2, 8, 8), generator=torch.Generator().manual_seed(1))
SMOOTH = 1e-12
unit = st.floats(0, 1, width=32)
maps = st.lists(unit, min_size=4, max_size=4).map(lambda values: torch.tensor(values, dtype=torch.float64))


def binary(name: str, x: torch.Tensor, y: torch.Tensor, **options: object) -> float:
    """Loss between two maps of foreground probabilities: the value of class 1 alone."""
    x, y = (torch.stack([1 - m, m]).view(1, 2, 1, -1) for m in (x, y))
    logits = x.clamp(min=1e-300).log()  # softmax of log-probabilities gives them back
    loss = build_loss(name, num_classes=2, class_weight=[0, 1], classes="all", smooth=SMOOTH, **options)
    return loss(logits, y).item()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [  # p = (.8, .5, .1) against y = (1, 0, 0): tp .8, fp .6, fn .2
        ("jaccard", 1 - 0.8 / 1.6),
        ("dice", 1 - 1.6 / 2.4),
        ("dice_squared", 1 - 1.6 / (0.64 + 0.25 + 0.01 + 1)),
        ("tversky", 1 - 0.8 / (0.8 + 0.3 * 0.6 + 0.7 * 0.2)),
        ("focal_tversky", (1 - 0.8 / (0.8 + 0.3 * 0.6 + 0.7 * 0.2)) ** 0.75),
        ("jml", 1 - 0.8 / 1.6),
        ("dml", 1 - 1.6 / 2.4),
        ("ctl", 1 - 0.8 / (0.8 + 0.3 * 0.6 + 0.7 * 0.2)),
        ("tversky(alpha=0.2,beta=0.9)", 1 - 0.8 / (0.8 + 0.2 * 0.6 + 0.9 * 0.2)),
        ("ctl(alpha=0.2,beta=0.9)", 1 - 0.8 / (0.8 + 0.2 * 0.6 + 0.9 * 0.2)),
        ("jml(gamma=2)", 0.25),
        ("jml(log=true)", math.log(2)),
    ],
)
def test_by_hand(spec: str, expected: float) -> None:
    p = torch.tensor([0.8, 0.5, 0.1], dtype=torch.float64)
    logits = torch.stack([1 - p, p]).log().view(1, 2, 1, 3)
    labels = torch.tensor([[[1, 0, 0]]])
    loss = build_loss(spec, num_classes=2, class_weight=[0, 1], smooth=SMOOTH)
    assert loss(logits, labels).item() == pytest.approx(expected, rel=1e-9)


def test_equal_to_smp_where_every_class_is_present() -> None:
    kwargs = {"mode": "multiclass", "smooth": 0.0, "eps": 1e-12}
    pairs = [
        ("dice", smp_losses().DiceLoss(**kwargs)),
        ("jaccard", smp_losses().JaccardLoss(**kwargs)),
        ("tversky", smp_losses().TverskyLoss(**kwargs, alpha=0.3, beta=0.7)),
    ]
    for name, reference in pairs:
        loss = build_loss(name, num_classes=C, smooth=SMOOTH)
        torch.testing.assert_close(loss(LOGITS, LABELS), reference(LOGITS, LABELS), rtol=1e-9, atol=0)


def test_focal_tversky_raises_each_class_to_the_power() -> None:
    """As the paper does; smp raises the mean."""
    single = [build_loss("tversky", num_classes=C, smooth=SMOOTH, class_weight=w) for w in torch.eye(C).tolist()]
    expected = torch.stack([loss(LOGITS, LABELS) ** 0.75 for loss in single]).mean()
    found = build_loss("focal_tversky", num_classes=C, smooth=SMOOTH)(LOGITS, LABELS)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("soft", "classic"), [("jml", "jaccard"), ("dml", "dice"), ("ctl", "tversky")])
def test_jdt_equals_the_classic_form_on_hard_labels(soft: str, classic: str) -> None:
    values = [build_loss(name, num_classes=C)(LOGITS, LABELS) for name in (soft, classic)]
    torch.testing.assert_close(values[0], values[1], rtol=1e-12, atol=0)


def test_reductions_by_hand() -> None:
    """Two images of two pixels: class 1 is absent from the second."""
    p = torch.tensor([[0.6, 0.2], [0.5, 0.7]], dtype=torch.float64)  # of class 0
    logits = torch.stack([p, 1 - p], dim=1).log()[:, :, None]
    labels = torch.tensor([[[0, 1]], [[0, 0]]])
    first = (1 - 0.6 / (0.6 + 0.2 + 0.4), 1 - 0.8 / (0.8 + 0.4 + 0.2))
    second = 1 - 1.2 / 2.0
    absent = 1.0  # class 1 of the second image, with classes="all"
    whole = (1 - 1.8 / (1.8 + 0.2 + 1.2), 1 - 0.8 / (0.8 + 1.2 + 0.2))
    expected = {
        ("D", "present"): sum(whole) / 2,
        ("I", "present"): (sum(first) / 2 + second) / 2,
        ("C", "present"): ((first[0] + second) / 2 + first[1]) / 2,
        ("I", "all"): (sum(first) / 2 + (second + absent) / 2) / 2,
        ("C", "all"): ((first[0] + second) / 2 + (first[1] + absent) / 2) / 2,
    }
    for (reduction, classes), wanted in expected.items():
        loss = build_loss("jml", num_classes=2, reduction=reduction, classes=classes, smooth=SMOOTH)
        assert loss(logits, labels).item() == pytest.approx(wanted, rel=1e-9), (reduction, classes)
    mix = build_loss("jml(reduction={D:1,I:0.5,C:0.5})", num_classes=2, smooth=SMOOTH)
    wanted = expected["D", "present"] + 0.5 * expected["I", "present"] + 0.5 * expected["C", "present"]
    assert mix(logits, labels).item() == pytest.approx(wanted, rel=1e-9)


def test_absent_classes_count_only_with_all() -> None:
    labels = LABELS.clamp(max=1)
    for classes, expected in (("present", 0.0), ("all", 1.0)):
        logits = LOGITS.clone().requires_grad_()
        loss = build_loss("jml", num_classes=C, classes=classes, class_weight=[0, 0, 1])
        value = loss(logits, labels)
        value.backward()
        assert value.item() == pytest.approx(expected, abs=1e-3)
        assert logits.grad is not None and bool(logits.grad.abs().max() > 0) is (classes == "all")


def test_soft_labels_average_over_all_classes_unless_told_otherwise() -> None:
    soft = torch.tensor([0.695, 0.3, 0.005], dtype=torch.float64).view(1, C, 1, 1).expand_as(LOGITS)
    alone = [build_loss("jml", num_classes=C, classes="all", class_weight=w)(LOGITS, soft) for w in torch.eye(C)]
    torch.testing.assert_close(build_loss("jml", num_classes=C)(LOGITS, soft), torch.stack(alone).mean())
    present = build_loss("jml", num_classes=C, classes="present")(LOGITS, soft)  # a label above 0.01
    torch.testing.assert_close(present, torch.stack(alone[:2]).mean())


@settings(max_examples=60)
@given(maps, maps, maps)
def test_jml_is_a_metric(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> None:
    assert binary("jml", x, z) <= binary("jml", x, y) + binary("jml", y, z) + 1e-6
    assert binary("jml", x, y) == pytest.approx(binary("jml", y, x), abs=1e-9)


@settings(max_examples=40)
@given(maps, maps, st.sampled_from(["jml", "dml", "ctl", "dice_squared"]))
def test_zero_exactly_where_prediction_equals_label(x: torch.Tensor, y: torch.Tensor, name: str) -> None:
    assert binary(name, y, y) == pytest.approx(0, abs=1e-9)
    if (x - y).abs().max() > 1e-3:
        assert binary(name, x, y) > 1e-8


def test_dml_breaks_the_triangle_inequality() -> None:
    """Why it is called a semimetric."""
    x, y, z = (torch.tensor(m, dtype=torch.float64) for m in ([1, 0], [1, 1], [0, 1]))
    assert binary("dml", x, z) > binary("dml", x, y) + binary("dml", y, z) + 0.3


def test_training_on_jml_reaches_a_soft_label() -> None:
    """Where the classic form would be driven to 1 (methods: one pixel with y = 1/2)."""
    soft = torch.tensor([0.7, 0.3], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, 2, 2)
    logits = torch.zeros(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    optimizer = PlainAdam([logits], lr=0.02)
    loss = build_loss("jml", num_classes=2)
    for _ in range(200):
        optimizer.zero_grad()
        loss(logits, soft).backward()
        optimizer.step()
    torch.testing.assert_close(logits.softmax(dim=1), soft, atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("jml(reduction=X)", "reduction"),
        ("jml(reduction={D:0})", "at least one weight above 0"),
        ("jml(classes=some)", "auto, present or all"),
        ("dice(smooth=0)", "smooth"),
        ("tversky(alpha=-1)", "alpha"),
        ("dice_squared(alpha=1)", "no alpha and no beta"),
        ("jml(gama=2)", "Did you mean gamma"),
    ],
)
def test_bad_options_are_named(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_loss(spec, num_classes=C)


def test_class_weights_may_be_a_tensor():
    logits, labels = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    weighed = build_loss("jml", num_classes=3, class_weight=torch.ones(3))
    torch.testing.assert_close(weighed(logits, labels), build_loss("jml", num_classes=3)(logits, labels))


def test_a_power_of_zero_which_has_no_gradient_is_refused() -> None:
    with pytest.raises(InputError, match=r"gamma: expected a number in \(0, inf\]"):
        build_loss("jml(gamma=0)", num_classes=C)
