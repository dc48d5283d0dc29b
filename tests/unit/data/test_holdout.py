from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autoseg.data import split_holdout
from autoseg.data.holdout import group_of
from autoseg.errors import InputError


def numbered(count: int) -> list[str]:
    return [f"{index:04}" for index in range(count)]


@given(st.integers(2, 500), st.floats(0.01, 0.99))
def test_the_two_parts_are_disjoint_and_complete(count: int, share: float) -> None:
    fit, heldout = split_holdout(numbered(count), share)
    assert torch.equal(torch.cat([fit, heldout]).sort().values, torch.arange(count))
    assert len(heldout) == min(max(round(count * share), 1), count - 1)


@given(st.integers(40, 500), st.floats(0.2, 0.8))
def test_held_out_images_lie_in_few_blocks_all_over(count: int, share: float) -> None:
    _, heldout = split_holdout(numbered(count), share)
    assert int((heldout.diff() > 1).sum()) + 1 == 8
    assert heldout[0] < count / 8
    assert heldout[-1] == count - 1


@pytest.mark.parametrize(("count", "share"), [(1, 0.2), (0, 0.2), (10, 0.0), (10, 1.0), (10, -0.5)])
def test_what_cannot_be_split_is_refused(count: int, share: float) -> None:
    with pytest.raises(InputError):
        split_holdout(numbered(count), share)


@given(st.lists(st.integers(1, 20), min_size=2, max_size=30), st.floats(0.01, 0.99))
def test_groups_are_held_out_as_a_whole(sizes: list[int], share: float) -> None:
    names = [f"{slice_:02}_patient{patient}" for patient, size in enumerate(sizes) for slice_ in range(size)]
    names.sort()  # by slice: each patient is all over the order
    parts = split_holdout(names, share, r"patient\d+")
    fit, heldout = ({names[row].split("_")[1] for row in part.tolist()} for part in parts)
    assert fit and heldout and not fit & heldout
    assert len(fit | heldout) == len(sizes)


@given(st.lists(st.integers(1, 20), min_size=2, max_size=30), st.floats(0.01, 0.99))
def test_groups_come_as_near_to_the_share_as_the_largest_allows(sizes: list[int], share: float) -> None:
    names = [f"{patient:02}/{slice_:02}" for patient, size in enumerate(sizes) for slice_ in range(size)]
    _, heldout = split_holdout(names, share, "^[0-9]+")
    assert abs(len(heldout) - share * len(names)) <= max(sizes)


def test_a_group_is_all_that_is_found_or_what_the_parentheses_find() -> None:
    assert group_of("scan_007_slice_12", r"scan_\d+") == "scan_007"
    assert group_of("scan_007_slice_12", r"scan_(\d+)_slice_\d(\d)") == "007 2"
    assert group_of("scan_007", r"scan_(\d+)(_slice)?") == "007 "


@pytest.mark.parametrize(("groups", "said"), [("z", "none in '0000'"), ("^0", "'^0', which finds one")])
def test_groups_that_cannot_be_told_apart_are_refused(groups: str, said: str) -> None:
    with pytest.raises(InputError) as refusal:
        split_holdout(numbered(10), 0.2, groups)
    assert said in str(refusal.value)
