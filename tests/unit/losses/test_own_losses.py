"""A loss of the user's that cannot be trained with is named before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from autoseg.errors import InputError
from autoseg.losses import Batch, LossSum, SegLoss, build_loss, check_own_losses


class Mine(SegLoss):
    name, summary = "mine", "for this test"
    formula: Callable[[Batch], Any] = staticmethod(lambda batch: batch.mean(batch.cross_entropy()))
    seen = 0

    def compute(self, batch: Batch) -> Tensor:
        self.seen += 1
        torch.rand(3)
        value: Tensor = self.formula(batch)
        return value


def mine(formula: Callable[[Batch], Any]) -> SegLoss:
    loss = Mine(3)
    loss.formula = formula
    return loss


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        (lambda batch: batch.cross_entropy(), r"^compute\(\) of mine: expected a scalar tensor as its result"),
        (lambda batch: batch.mean(batch.cross_entropy()).detach(), r"^compute\(\) of mine: expected a value with"),
        (lambda batch: batch.nothing, r"^loss mine: expected a loss that can be computed for 3 classes, got Attribute"),
        (lambda batch: (batch.logits + torch.ones(5)).sum(), r"^loss mine: .* got RuntimeError: The size of tensor"),
    ],
)  # fmt: skip
def test_one_that_would_fail_is_named(formula: Callable[[Batch], Any], words: str) -> None:
    for loss in (mine(formula), LossSum([0.5, 0.5], [build_loss("ce", num_classes=3), mine(formula)])):
        with pytest.raises(InputError, match=words):
            check_own_losses(loss)


def test_the_others_stay_as_they_are_and_so_do_random_numbers() -> None:
    loss, before = Mine(3), torch.get_rng_state()
    check_own_losses(loss)
    check_own_losses(build_loss("0.5*ce+0.5*lovasz", num_classes=3))
    assert loss.seen == 0 and torch.equal(torch.get_rng_state(), before)
