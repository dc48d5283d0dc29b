from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoseg.errors import InputError
from autoseg.search.reward import Floor, Reward

score = st.floats(-10, 10)


@pytest.mark.parametrize(
    ("text", "floor"),
    [
        ("miou>=0.9*ce", Floor("miou", 0.9, "ce")),
        (" miou >= .5 * identity ", Floor("miou", 0.5, "identity")),
        ("boundary_iou>=lovasz", Floor("boundary_iou", 1.0, "lovasz")),
        ("miou>=0.4", Floor("miou", 0.4, None)),
        ("miou>=4e-1", Floor("miou", 0.4, None)),
        ("mIoU>=0.4", Floor("mIoU", 0.4, None)),
        ("val/Dice.2>=0.9*ce", Floor("val/Dice.2", 0.9, "ce")),
    ],
)
def test_parse(text: str, floor: Floor) -> None:
    assert Floor.parse(text) == floor


@pytest.mark.parametrize(
    "text",
    ["", "miou", "miou>0.9*ce", "miou>=", "miou>=*ce", "miou>=0.9*", "miou>=0*ce", "miou>=-1", "miou>=0.9ce*2",
     "miou>=ce*0.9", "miou>=1e999", "miou>=0.9*ce; import os", "__import__('os')", "miou>=nan*ce"],
)  # fmt: skip
def test_what_is_no_floor(text: str) -> None:
    with pytest.raises(InputError, match=r"search\.floor"):
        Floor.parse(text)


def test_level_of_a_rival_or_a_number() -> None:
    assert Floor("miou", 0.9, "ce").level({"miou": 0.5}) == pytest.approx(0.45)
    assert Floor("miou", 0.4, None).level(None) == 0.4


def test_a_rival_without_that_score_has_no_level() -> None:
    """Every candidate would be below it, with a reward of 0."""
    with pytest.raises(InputError, match=r"search\.floor: expected a loss that has a score of bf1, got ce, with NaN"):
        Floor("bf1", 0.9, "ce").level({"miou": 0.4, "bf1": math.nan})


def test_cut_by_hand() -> None:
    reward = Reward("biou", Floor("miou", 0.9, "ce"), 0.45)
    assert reward({"biou": 0.6, "miou": 0.45}) == 0.6
    assert reward({"biou": 0.6, "miou": 0.15}) == pytest.approx(0.2)
    assert reward({"biou": 0.6, "miou": 0.0}) == 0.0
    assert reward({"biou": 0.6, "miou": math.nan}) == 0.0
    assert reward({"biou": -2.0, "miou": 0.0}) == -4.0  # a cut never helps


def test_names_that_are_not_scores() -> None:
    with pytest.raises(InputError, match="metric: expected one of miou, got 'biou'"):
        Reward("biou")({"miou": 0.5})
    with pytest.raises(InputError, match=r"search\.floor: expected one of biou, got 'miuo'"):
        Reward("biou", Floor("miuo", 0.4, None), 0.4)({"biou": 0.5})


@given(target=score, low=score, high=score, level=score)
def test_below_the_floor_more_is_better_and_above_nothing_changes(
    target: float, low: float, high: float, level: float
) -> None:
    reward = Reward("t", Floor("w", 1.0, None), level)
    low, high = min(low, high), max(low, high)
    assert reward({"t": target, "w": low}) <= reward({"t": target, "w": high}) <= target
    assert reward({"t": target, "w": level}) == target


@given(target=score, level=st.floats(0.01, 10))
def test_continuous_at_the_floor(target: float, level: float) -> None:
    near = Reward("t", Floor("w", 1.0, None), level)({"t": target, "w": level * (1 - 1e-9)})
    assert near == pytest.approx(target, abs=1e-6)


def test_below_a_floor_of_zero_what_is_missing_is_cut() -> None:
    assert Reward("t", Floor("w", 1.0, "ce"), 0.0)({"t": 0.6, "w": -0.5}) == pytest.approx(0.3)
