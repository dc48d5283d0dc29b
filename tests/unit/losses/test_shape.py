from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autoseg.errors import InputError
from autoseg.losses import build_loss
from autoseg.losses.shape import ShapePrior, encode


def discs(count: int, seed: int) -> Tensor:
    """(count, 48, 48) labels: one disc of class 1 each."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(48), torch.arange(48), indexing="ij")
    centres = torch.randint(14, 34, (count, 2, 1, 1), generator=generator)
    radii = torch.randint(6, 13, (count, 1, 1), generator=generator)
    return ((y - centres[:, 0]) ** 2 + (x - centres[:, 1]) ** 2 <= radii**2).long()


def certain(labels: Tensor) -> Tensor:
    return 30 * nn.functional.one_hot(labels, 2).movedim(-1, 1).double()


@pytest.fixture(scope="module")
def learnt() -> tuple[ShapePrior, dict[str, Tensor]]:
    loss = build_loss("shape_prior(steps=100)", num_classes=2)
    assert isinstance(loss, ShapePrior)
    return loss, loss.prepare(discs(64, seed=0))


def distance(learnt: tuple[ShapePrior, dict[str, Tensor]], seen: Tensor, truth: Tensor) -> float:
    loss, extra = learnt
    beside = build_loss("ce", num_classes=2)(certain(seen), truth)
    return float((loss(certain(seen), truth, extra) - beside) / loss.weight)


def test_zero_where_the_prediction_is_the_label(learnt):
    labels = discs(3, seed=1)
    assert distance(learnt, labels, labels) == pytest.approx(0, abs=1e-9)


def test_a_larger_shape_costs_more_than_as_many_stray_pixels(learnt):
    truth = discs(24, seed=2)
    grown = (nn.functional.max_pool2d(truth.float()[:, None], 3, 1, 1)[:, 0]).long()
    ring = (grown != truth).flatten(1).sum(1)
    generator = torch.Generator().manual_seed(0)
    scattered = truth.clone()
    for image, count in zip(scattered, ring.tolist(), strict=True):
        places = torch.randperm(image.numel(), generator=generator)[:count]
        image.view(-1)[places] = 1 - image.view(-1)[places]
    assert distance(learnt, grown, truth) > 2 * distance(learnt, scattered, truth) > 0


def test_equals_a_network_with_the_same_weights(learnt):
    loss, extra = learnt
    *weights, scale = (part.double() for part in loss.unflatten(extra["shape_encoder"]))
    layers = [nn.Conv2d(2, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 8, 3, 2, 1)]
    network = nn.Sequential(*layers).double()
    with torch.no_grad():
        for mine, theirs in zip(network.parameters(), weights, strict=True):
            mine.copy_(theirs)
    masks = torch.rand(2, 2, 20, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encode(masks, weights), network(masks))
    truth, seen = discs(2, seed=3), discs(2, seed=4)
    code = [network(certain(labels).softmax(1)) for labels in (seen, truth)]
    assert distance(learnt, seen, truth) == pytest.approx(((code[0] - code[1]).square().mean() / scale**2).item())


def test_learning_is_repeatable_and_leaves_the_generator_alone(learnt):
    loss, extra = learnt
    before = torch.get_rng_state()
    again = loss.prepare(discs(64, seed=0))
    torch.testing.assert_close(again["shape_encoder"], extra["shape_encoder"], rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_extra_the_first_batch_is_learnt_from_and_kept():
    loss = build_loss("shape_prior(steps=3)", num_classes=2)
    first, second = discs(2, seed=5), discs(2, seed=6)
    loss(certain(first), first)
    kept = loss(certain(first), second)
    torch.testing.assert_close(kept, loss(certain(first), second, loss.prepare(first)))
    assert kept != loss(certain(first), second, loss.prepare(second))


def test_an_encoder_of_other_options_is_refused(learnt):
    labels = discs(2, seed=0)
    with pytest.raises(InputError, match="extra of shape_prior"):
        build_loss("shape_prior(code=4)", num_classes=2)(certain(labels), labels, learnt[1])


def test_the_encoder_is_learnt(learnt):
    _, extra = learnt
    once = build_loss("shape_prior(steps=1)", num_classes=2).prepare(discs(64, seed=0))
    moved = (extra["shape_encoder"] - once["shape_encoder"])[:-1]  # the last number is the code's scale
    assert moved.abs().max() > 0.05
