from __future__ import annotations

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray

from autoseg.config import DataConfig
from autoseg.data.builtin import CHECKS, CLASSES, CRACK, SEED, STRIPES, BuiltinSource
from autoseg.errors import InputError


@pytest.fixture(scope="module")
def labels() -> NDArray[np.uint8]:
    source = BuiltinSource(0, {"train": 60})
    return np.stack([source.read("train", i).masks[0] for i in range(60)])


def test_same_seed_same_bytes_on_every_machine() -> None:
    sample = BuiltinSource(0, {"train": 1}).read("train", 0)
    digest = hashlib.sha256(sample.image.tobytes() + sample.masks.tobytes()).hexdigest()
    assert digest == "b607cf145b8f4f164b8d45c352b9c08f4516add66dd71aad662926914b2824a0"


def test_seed_role_and_index_each_give_another_image() -> None:
    first = BuiltinSource(0, {"train": 2, "val": 1})
    images = [first.read("train", 0), first.read("train", 1), first.read("val", 0)]
    images.append(BuiltinSource(1, {"train": 1}).read("train", 0))
    assert len({sample.image.tobytes() for sample in images}) == 4


def test_images_do_not_depend_on_the_counts() -> None:
    few, many = BuiltinSource(3, {"train": 1}), BuiltinSource(3, {"train": 9, "val": 4})
    np.testing.assert_array_equal(few.read("train", 0).image, many.read("train", 0).image)


def test_every_class_occurs_and_the_rare_one_is_rare(labels: NDArray[np.uint8]) -> None:
    share = np.bincount(labels.ravel(), minlength=256) / labels.size
    assert set(np.flatnonzero(share)) == {*range(len(CLASSES)), 255}
    assert 0 < share[SEED] < 0.005
    assert share[0] > 50 * share[CRACK]


def test_cracks_are_thin(labels: NDArray[np.uint8]) -> None:
    crack = labels == CRACK
    # Nowhere does a 5x5 square fit into a crack: erode by running minima along both axes.
    for axis in (1, 2):
        crack = np.lib.stride_tricks.sliding_window_view(crack, 5, axis=axis).all(-1)
    assert crack.mean() < 1e-4


def test_colour_alone_does_not_give_the_class() -> None:
    """The best guess from mean object colour (nearest class mean) between the two textured classes is near chance."""
    source = BuiltinSource(0, {"train": 80})
    colours: dict[int, list[NDArray[np.float64]]] = {STRIPES: [], CHECKS: []}
    for i in range(80):
        sample = source.read("train", i)
        for label, found in colours.items():
            mask = sample.masks[0] == label
            if mask.sum() > 50:
                found.append(sample.image[mask].mean(0))
    stripes, checks = (np.array(found) for found in colours.values())
    centre = (stripes.mean(0) + checks.mean(0)) / 2
    axis = stripes.mean(0) - checks.mean(0)
    hits = ((stripes - centre) @ axis > 0).mean() / 2 + ((checks - centre) @ axis < 0).mean() / 2
    assert hits < 0.65


@pytest.mark.parametrize("bad", [{"count": [0, 1, 1]}, {"count": [4, 1]}, {"count": [4, 1, -1]}, {"seed": -1}])
def test_settings_that_make_no_sense_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"data\."):
        BuiltinSource.from_config(DataConfig(**bad))  # type: ignore[arg-type]


def test_no_test_images_no_test_role() -> None:
    assert list(BuiltinSource.from_config(DataConfig(count=[4, 2, 0])).names) == ["train", "val"]
