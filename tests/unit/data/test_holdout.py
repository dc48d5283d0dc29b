from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autoseg.data import split_holdout
from autoseg.errors import InputError


@given(st.integers(2, 500), st.floats(0.01, 0.99))
def test_the_two_parts_are_disjoint_and_complete(count: int, share: float) -> None:
    fit, heldout = split_holdout(count, share)
    assert torch.equal(torch.cat([fit, heldout]).sort().values, torch.arange(count))
    assert len(heldout) == min(max(round(count * share), 1), count - 1)


@given(st.integers(40, 500), st.floats(0.2, 0.8))
def test_held_out_images_lie_in_few_blocks_all_over(count: int, share: float) -> None:
    _, heldout = split_holdout(count, share)
    assert int((heldout.diff() > 1).sum()) + 1 == 8
    assert heldout[0] < count / 8
    assert heldout[-1] == count - 1


@pytest.mark.parametrize(("count", "share"), [(1, 0.2), (0, 0.2), (10, 0.0), (10, 1.0), (10, -0.5)])
def test_what_cannot_be_split_is_refused(count: int, share: float) -> None:
    with pytest.raises(InputError):
        split_holdout(count, share)
