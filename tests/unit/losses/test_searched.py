"""Spaces with scalars: options of hand-made losses and weights of sums, beside or instead of curves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import autoseg
from autoseg.errors import InputError
from autoseg.losses import LossCard, LossSum, SearchedLoss, searched_loss
from autoseg.metrics import MetricOptions
from autoseg.surrogates import SearchSpace, SurrogateLoss

C = 3
NAMES = ["ce-mix-biou", "lmp-miou", "ctl-miou"]


def batch():
    g = torch.Generator().manual_seed(0)
    return torch.randn(2, C, 8, 8, generator=g, dtype=torch.float64), torch.randint(0, C, (2, 8, 8), generator=g)


def test_the_mix_is_the_sum_it_says():
    space = autoseg.build_space("ce-mix-biou")
    assert space.names[-1] == "a" and space.dim == 7
    theta = np.full(7, 0.5)
    theta[-1] = 0.3
    loss = searched_loss(space, theta, C, tolerance=1)
    logits, labels = batch()
    curves = searched_loss(space.curves_only(), theta[:6], C, tolerance=1)
    expected = 0.3 * autoseg.build_loss("ce", num_classes=C)(logits, labels) + 0.7 * curves(logits, labels)
    assert float(loss(logits, labels)) == pytest.approx(float(expected), abs=1e-12)
    assert loss.surrogate is not None


def test_options_of_a_loss_are_dimensions():
    space = autoseg.build_space("lmp-miou")
    assert space.names == ["p", "share"] and not space.curves
    logits, labels = batch()
    loss = searched_loss(space, space.identity, C)
    same = autoseg.build_loss("lmp", num_classes=C, p=1.3, share=0.25)
    assert float(loss(logits, labels)) == pytest.approx(float(same(logits, labels)), rel=1e-9)
    assert space.scalar_values([0.0, 1.0]) == pytest.approx({"p": 1.01, "share": 1.0})


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck_and_card(name, tmp_path):
    space = autoseg.build_space(name)
    theta = 0.2 + 0.6 * np.random.default_rng(1).random(space.dim)
    np.testing.assert_allclose(space.encode(space.decode(theta)), theta)
    loss = searched_loss(space, theta, C, tolerance=1)
    logits, labels = batch()
    few, known = logits[:, :, :4, :4].clone().requires_grad_(), labels[:, :4, :4]
    assert torch.autograd.gradcheck(lambda x: loss(x, known), few, eps=1e-7, atol=1e-4)
    autoseg.save_loss(loss, tmp_path / "loss.json")
    again = autoseg.load_loss(tmp_path / "loss.json")
    assert isinstance(again, SearchedLoss)
    assert again(logits, labels) == loss(logits, labels)
    assert LossCard.load(tmp_path / "loss.json").scalars == pytest.approx(space.scalar_values(theta))
    by_name = autoseg.build_loss(f"0.5*{tmp_path}/loss.json+0.5*ce", num_classes=C)
    assert by_name(logits, labels).isfinite()


@pytest.mark.parametrize("name", [*NAMES, "default-biou"])
def test_the_void_id_and_the_options_are_those_of_every_part(name):
    space, (logits, labels) = autoseg.build_space(name), batch()
    labels[:, 2:4] = 7
    options = {"tolerance": 1, "drop_background": True}
    loss = searched_loss(space, space.identity, C, 7, **options)
    usual = searched_loss(space, space.identity, C, **options)
    assert loss(logits, labels) == usual(logits, labels.where(labels != 7, 255))
    assert loss.options == MetricOptions(C, 7, 1, True)
    assert searched_loss(space, space.identity, C, absent="skip").absent == "skip"


def test_a_searched_loss_in_a_sum_is_told_what_it_is_told_alone():
    logits, labels = batch()
    ce_mix = autoseg.build_space("ce-mix-miou").to_dict()
    space = SearchSpace.from_dict(ce_mix | {"loss": "{a}*boundary+{1-a}*surrogate"})
    alone = searched_loss(space, space.identity, C)
    both = LossSum([0.5, 0.5], [searched_loss(space, space.identity, C), autoseg.build_loss("ce", num_classes=C)])
    extra = both.prepare(labels)
    assert set(extra) == {f"0.{key}" for key in alone.prepare(labels)} != set()
    for loss in (alone, both):
        loss.set_progress(0.5)
    ce = autoseg.build_loss("ce", num_classes=C)(logits, labels)
    expected = 0.5 * alone(logits, labels, alone.prepare(labels)) + 0.5 * ce
    torch.testing.assert_close(both(logits, labels, extra), expected)


def test_curves_alone_are_asked_for_elsewhere():
    space = autoseg.build_space("ce-mix-miou")
    with pytest.raises(InputError, match="searched_loss"):
        SurrogateLoss.from_theta("miou", space.identity, C, space=space)


def test_a_space_mixes_hand_made_losses_and_names_no_file(tmp_path):
    """A card that named another one would be half a card wherever it goes."""
    autoseg.save_loss(autoseg.load_loss("asl2021/miou", num_classes=C), tmp_path / "other.json")
    ce_mix = autoseg.build_space("ce-mix-miou").to_dict()
    space = SearchSpace.from_dict(ce_mix | {"loss": f"{{a}}*{tmp_path}/other.json+{{1-a}}*surrogate"})
    with pytest.raises(InputError, match=r"loss of the space: expected one of .*other\.json"):
        searched_loss(space, space.identity, C)
