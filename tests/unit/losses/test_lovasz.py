from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from smp import smp_losses

from autoseg.losses import build_loss, lovasz
from autoseg.losses.lovasz import descending, lovasz_weights

C = 3
LABELS = torch.randint(0, C, (2, 8, 8), generator=torch.Generator().manual_seed(1))
LABELS[0, :2] = 255


def logits(dtype: torch.dtype) -> torch.Tensor:
    values = torch.randn(2, C, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return values.to(dtype).requires_grad_()


@pytest.mark.parametrize("per_image", [False, True])
def test_value_and_gradient_equal_smp(per_image: bool) -> None:
    ours, theirs = logits(torch.float32), logits(torch.float32)
    value = build_loss("lovasz", num_classes=C, per_image=per_image)(ours, LABELS)
    expected = smp_losses().LovaszLoss("multiclass", per_image=per_image, ignore_index=255)(theirs, LABELS)
    value.backward()
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_by_hand() -> None:
    """Errors of class 1: .6 at a true pixel, .3 at a false one; IoU 1 -> 0 -> 0: .6; of class 0: .3 then .6."""
    p = torch.tensor([0.3, 0.4], dtype=torch.float64)  # of class 1; the second pixel is of class 1
    scores = torch.stack([1 - p, p]).log().view(1, 2, 1, 2)
    value = build_loss("lovasz", num_classes=2)(scores, torch.tensor([[[0, 1]]]))
    class_1 = 0.6 * 1 + 0.3 * 0
    class_0 = 0.6 * 0.5 + 0.3 * 0.5  # a false pixel first: IoU 1 -> 1/2, then the true one: -> 0
    assert value.item() == pytest.approx((class_1 + class_0) / 2)


def test_hard_predictions_give_one_minus_iou() -> None:
    predicted = torch.randint(0, C, (2, 8, 8), generator=torch.Generator().manual_seed(5))
    scores = 1e3 * torch.nn.functional.one_hot(predicted, C).movedim(-1, 1).double()
    valid = LABELS != 255
    ious = []
    for c in range(C):
        p, y = (predicted == c)[valid], (LABELS == c)[valid]
        ious.append((p & y).sum() / (p | y).sum())
    value = build_loss("lovasz", num_classes=C)(scores, LABELS)
    assert value.item() == pytest.approx(1 - torch.stack(ious).mean().item())


def test_absent_class_costs_its_largest_probability_only_with_all() -> None:
    labels = LABELS.where(LABELS != 2, 255)
    scores = logits(torch.float64)
    present = build_loss("lovasz", num_classes=C)(scores, labels)
    everything = build_loss("lovasz", num_classes=C, classes="all")(scores, labels)
    largest = scores.softmax(dim=1)[:, 2][labels != 255].max()
    torch.testing.assert_close(everything, (2 * present + largest) / 3)


def test_chunks_do_not_change_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build_loss("lovasz", num_classes=C)(logits(torch.float64), LABELS)
    monkeypatch.setattr(lovasz, "CHUNK", 1)
    torch.testing.assert_close(build_loss("lovasz", num_classes=C)(logits(torch.float64), LABELS), whole)


@settings(max_examples=50)
@given(st.lists(st.lists(st.floats(0, 1, width=32) | st.just(-1.0), min_size=7, max_size=7), min_size=1, max_size=3))
def test_packed_order_is_descending(rows: list[list[float]]) -> None:
    values = torch.tensor(rows)
    order = descending(values)
    assert torch.equal(values.gather(1, order), values.sort(dim=1, descending=True).values)
    assert torch.equal(order.sort(dim=1).values, torch.arange(7).expand(len(rows), 7))


@settings(max_examples=50)
@given(st.integers(0, 10_000))
def test_weights_are_differences_of_the_jaccard_loss(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    errors = torch.rand(1, 9, generator=generator, dtype=torch.float64)
    truth = torch.rand(1, 9, generator=generator) < 0.4
    weights = lovasz_weights(errors, truth, torch.ones_like(truth))
    wrong = torch.zeros_like(truth[0])
    before = 0.0
    for i in errors[0].argsort(descending=True).tolist():
        wrong[i] = True
        intersection = (truth[0] & ~wrong).sum()
        union = (truth[0] | wrong).sum()
        after = 1 - (intersection / union).item()
        assert weights[0, i].item() == pytest.approx(after - before, abs=1e-6)
        before = after
