"""Masks of any ids or colours become the labels 0, 1, 2, … and 255, alike in a search and in a full training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from autoseg import limits
from autoseg.config import DataConfig
from autoseg.data import open_data, remarks_on
from autoseg.data.masks import MaskCode
from autoseg.data.remarks import remarks_on_files
from autoseg.errors import InputError
from autoseg.retrain.loaders import class_counts, datasets

Make = Callable[..., DataConfig]
COLOURS = [[0, 0, 0], [128, 64, 128], [0, 0, 142], [255, 255, 255]]


def written(config: DataConfig, values: list[Any], picked: np.ndarray[Any, Any]) -> None:
    """Write this mask, of indices into the values, as every mask."""
    table = np.array(values, np.uint8)
    for path in Path(str(config.root), "ann_dir").rglob("*.png"):
        Image.fromarray(table[picked]).save(path)


def shown(config: DataConfig) -> np.ndarray[Any, Any]:
    """The labels of the first training image of a search, after those of a full training were found to be the same."""
    from mmseg.registry import DATASETS
    from mmseg.utils import register_all_modules

    import autoseg.retrain.parts  # noqa: F401  (a config's custom_imports)

    register_all_modules(init_default_scope=True)
    found = open_data(config, (12, 16)).labels("train")[0].numpy()
    data = datasets(config)
    dataset = DATASETS.build({**data.splits["train"], "pipeline": [*data.loading, {"type": "PackSegInputs"}]})
    assert (dataset[0]["data_samples"].gt_sem_seg.data[0].numpy() == found).all()
    assert data.ignore_index == 255
    counts = np.bincount(found.ravel(), minlength=256)[: len(config.classes)]
    assert class_counts(config).pixels == (counts * len(dataset)).tolist()
    return found


@pytest.fixture
def picked() -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).integers(0, 2, (12, 16))


@pytest.mark.parametrize(("mode", "suffix"), [("RGBA", "tif"), ("RGBA", "png"), ("L", "png"), ("RGB", "bmp")])
def test_a_full_training_reads_the_images_that_a_search_reads(make_folder: Make, mode: str, suffix: str) -> None:
    """OpenCV multiplies the bands of such a TIFF by the fourth one, which may be infrared."""
    from mmseg.registry import DATASETS
    from mmseg.utils import register_all_modules

    import autoseg.retrain.parts  # noqa: F401  (a config's custom_imports)

    register_all_modules(init_default_scope=True)
    config = make_folder()
    image = Path(str(config.root), "img_dir/train/0.png")
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 4), dtype=np.uint8)
    image.unlink()
    Image.fromarray(noise, "RGBA").convert(mode).save(image.with_suffix(f".{suffix}"))
    found = open_data(config, (12, 16)).images("train")[0]
    data = datasets(config)
    dataset = DATASETS.build({**data.splits["train"], "pipeline": [*data.loading, {"type": "PackSegInputs"}]})
    assert (dataset[0]["inputs"].flip(0) == found).all()  # BGR there
    assert dataset[0]["data_samples"].ori_shape == (12, 16)


def test_masks_of_0_and_255(make_folder: Make, picked: np.ndarray[Any, Any]) -> None:
    config = make_folder()
    written(config, [0, 255], picked)
    with pytest.raises(InputError, match=r"255 is ignored: .* as in data\.ids=\[0,255\]\."):
        remarks_on(open_data(config, (12, 16)), config, 8)
    config = replace(config, ids=[0, 255])
    assert (shown(config) == picked).all()
    assert remarks_on(open_data(config, (12, 16)), config, 8, "val") == []


def test_ids_in_any_order_beside_ids_that_are_ignored(make_folder: Make) -> None:
    config = replace(make_folder(), classes=["a", "b", "c"], ids=[7, 3, 0], ignored_ids=[1, 9])
    picked = np.random.default_rng(1).integers(0, 6, (12, 16))
    written(config, [7, 3, 0, 1, 9, 255], picked)
    assert (shown(config) == np.array([0, 1, 2, 255, 255, 255])[picked]).all()


def test_further_ids_are_ignored_beside_the_usual_ones(make_folder: Make) -> None:
    config = replace(make_folder(), ignored_ids=[2, 3])
    picked = np.random.default_rng(1).integers(0, 5, (12, 16))
    written(config, [0, 1, 2, 3, 255], picked)
    assert (shown(config) == np.array([0, 1, 255, 255, 255])[picked]).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_masks_in_colours(make_folder: Make, mode: str) -> None:
    config = replace(make_folder(), classes=["a", "b", "c"], ids=COLOURS[:3][::-1], ignored_ids=COLOURS[3:])
    picked = np.random.default_rng(1).integers(0, 4, (12, 16))
    written(config, COLOURS, picked)
    for path in Path(str(config.root), "ann_dir").rglob("*.png"):
        picture = Image.open(path)
        (picture.quantize(8) if mode == "P" else picture.convert(mode)).save(path)
    assert (shown(config) == np.array([2, 1, 0, 255])[picked]).all()
    assert open_data(config, (12, 16)).palette == COLOURS[:3][::-1]
    assert open_data(replace(config, palette=[[1, 2, 3]] * 3), (12, 16)).palette == [[1, 2, 3]] * 3


def test_named_colours_are_read_however_they_are_stored(make_folder: Make, picked: np.ndarray[Any, Any]) -> None:
    """Tools that shrink PNGs store black and white as grey, with one bit, or with a palette."""
    config = replace(make_folder(count=6), ids=[[0, 0, 0], [255, 255, 255]])
    grey = Image.fromarray((255 * picked).astype(np.uint8))
    for index, mode in enumerate(("L", "LA", "1", "RGB", "RGBA", "P")):
        for split in ("train", "val"):
            stored = grey.convert("RGB").quantize(2) if mode == "P" else grey.convert(mode)
            assert stored.mode == mode
            stored.save(Path(str(config.root), "ann_dir", split, f"{index}.png"))
    labels = open_data(config, (12, 16)).labels("train").numpy()
    assert (labels == picked).all() and (shown(config) == picked).all()


def palettes(config: DataConfig, *of_files: list[int]) -> None:
    masks = sorted(Path(str(config.root), "ann_dir/train").iterdir())
    for path, colours in zip(masks, of_files, strict=False):
        mask = Image.fromarray(np.eye(12, 16, dtype=np.uint8)).convert("P")
        mask.putpalette(colours)
        mask.save(path)


def remarks(config: DataConfig) -> list[str]:
    return remarks_on(open_data(config, (12, 16)), config, 8, "val")


def test_palettes_that_differ_are_remarked(make_folder: Make) -> None:
    """Each file of its own order, as tools write that choose the palette: by id, the classes would be mixed."""
    config = make_folder(annotators=0)
    red, green = [0, 0, 0, 255, 0, 0], [0, 0, 0, 0, 255, 0]
    palettes(config, red, red, [*red, 9, 9, 9])
    assert remarks(config) == []
    palettes(config, red, green)
    (text,) = remarks(config)
    assert text == (
        "id 1 has the colour [255, 0, 0] in 0.png and [0, 255, 0] in 1.png, but masks are read by id: "
        "if colours tell the classes, name them in data.ids"
    )
    assert not any(
        "by id" in text for text in remarks_on_files(replace(config, ids=[[0, 0, 0], [255, 0, 0]]), "ab", [1, 1])
    )


def test_masks_of_one_bit_beside_others_are_remarked(make_folder: Make, picked: np.ndarray[Any, Any]) -> None:
    config = make_folder()
    written(config, [0, 1], picked)
    Image.fromarray(picked.astype(bool)).save(Path(str(config.root), "ann_dir/train/1.png"))
    assert remarks(config) == []  # the same ids
    Image.fromarray((255 * picked).astype(np.uint8)).save(Path(str(config.root), "ann_dir/train/2.png"))
    (text,) = remarks(config)
    assert text == (
        "white is the id 1 in 1.png, a mask of 1 bit, and 255 in 2.png, which is ignored: "
        "if it is a class there too, data.ids=[[0,0,0],[255,255,255]] reads both alike"
    )


def test_smoothed_masks_are_to_be_made_anew(make_folder: Make) -> None:
    config = make_folder()
    mask = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(12, 16))
    for mode in ("L", "RGB"):
        mask.convert(mode).save(Path(str(config.root), "ann_dir/train/0.png"))
        ids = [[0, 0, 0], [255, 255, 255]] if mode == "RGB" else []
        refused(
            replace(config, ids=ids),
            "If they come from JPEG or smooth resizing, make the masks anew.",
            "mask > 127",
            ", … in ",
        )


# Edges inside the blocks of 8 pixels, where JPEG blurs them.
IN_TWO, IN_THREE = (np.repeat([[*range(n)]], widths, 1).repeat(12, 0) for n, widths in ((2, (5, 11)), (3, (5, 6, 5))))


@pytest.mark.parametrize(
    ("ids", "values", "labels", "picked"),
    [
        ([0, 255], [0, 255], [0, 1], IN_TWO),
        ([255, 0], [0, 255], [1, 0], IN_TWO),
        ([0, 128, 255], [0, 128, 255], [0, 1, 2], IN_THREE),
        ([0, 90], [0, 90, 200], [0, 1, 255], IN_THREE),  # 200 is ignored
        ([0, 64, 128, 192], [0, 64, 128], [0, 1, 2], IN_THREE),  # 255 is not named
        ([[0, 0, 0], [255, 0, 0]], [[0, 0, 0], [255, 0, 0]], [0, 1], IN_TWO),
        ([[0, 0, 0], [255, 255, 255]], [0, 255], [0, 1], IN_TWO),
    ],
)
def test_in_a_jpeg_a_pixel_is_of_the_nearest(
    make_folder: Make, ids: list[Any], values: list[Any], labels: list[int], picked: np.ndarray[Any, Any]
) -> None:
    classes, ignored = ["a", "b", "c", "d"][: len(ids)], [200] if 200 in values else []
    config = replace(make_folder(), classes=classes, ids=ids, ignored_ids=ignored, seg_map_suffix=".jpg")
    written(config, values, picked)
    for path in Path(str(config.root), "ann_dir").rglob("*.png"):
        Image.open(path).save(path.with_suffix(".jpg"), quality=50)
    stored = np.asarray(Image.open(Path(str(config.root), "ann_dir/train/0.jpg")))
    assert len(np.unique(stored)) > len(values)  # JPEG has changed them
    assert (shown(config) == np.array(labels)[picked]).all()


def test_a_class_that_nobody_names_is_found_in_a_jpeg_too(make_folder: Make) -> None:
    config = replace(make_folder(), ids=[0, 255], seg_map_suffix=".jpg")
    written(config, [0, 128, 255], np.repeat([[0, 1]], 8, 1).repeat(12, 0))
    for path in Path(str(config.root), "ann_dir").rglob("*.png"):
        Image.open(path).save(path.with_suffix(".jpg"))
    refused(config, "0.jpg", "id 128 in 96 pixels", "Name every class in data.classes")


def test_another_code_is_another_data_set(make_folder: Make, picked: np.ndarray[Any, Any]) -> None:
    config = replace(make_folder(), ids=[0, 255])
    written(config, [0, 255], picked)
    codes = [config, replace(config, ids=[255, 0]), replace(config, ids=[0, 1])]
    codes += [replace(config, ids=ids) for ids in ([[0, 0, 0], [255, 0, 0]], [[0, 0, 0], [0, 255, 0]])]
    codes += [replace(codes[3], ids=codes[3].ids[::-1])]
    assert len({str(MaskCode.of(one).identity()) for one in codes}) == len(codes)
    assert (shown(codes[1]) == 1 - picked).all()


@settings(max_examples=25)  # a table of all colours each time
@given(st.data())
def test_each_colour_becomes_its_label(data: st.DataObject) -> None:
    colour = st.lists(st.integers(0, 255), min_size=3, max_size=3)
    values = data.draw(st.lists(colour, min_size=3, max_size=20, unique_by=tuple))
    count = data.draw(st.integers(2, len(values)))
    config = DataConfig(
        kind="folder", classes=list(map(str, range(count))), ids=values[:count], ignored_ids=values[count:]
    )
    code = MaskCode.of(config)
    picked = np.array(data.draw(st.lists(st.integers(0, len(values) - 1), min_size=1, max_size=30)))
    labels = code.lookup[code._pixels(Image.fromarray(np.array(values, np.uint8)[picked][None]))][0]
    assert labels.tolist() == [index if index < count else 255 for index in picked]


def refused(config: DataConfig, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        open_data(config, (12, 16))
    message = str(caught.value)
    assert all(word in message for word in words), message
    with pytest.raises(InputError) as caught:
        class_counts(config)
    assert str(caught.value) == message


def test_a_colour_that_is_no_class(make_folder: Make) -> None:
    config = replace(make_folder(), ids=COLOURS[:2])
    picked = np.zeros((12, 16), int)
    picked[0, :5], picked[1, :2] = 2, 1
    written(config, COLOURS, picked)
    refused(config, "ann_dir/train/0.png", "got colours [0, 0, 142] in 5 pixels", "in data.ids", "data.ignored_ids")
    Image.fromarray(np.arange(576, dtype=np.uint16).reshape(12, 16, 3).astype(np.uint8)).resize((16, 12)).save(
        Path(str(config.root), "ann_dir/train/0.png")
    )
    refused(config, "ann_dir/train/0.png", ", … in ")


def test_masks_of_ids_where_colours_are_named_and_the_other_way_round(make_folder: Make) -> None:
    config = make_folder()
    refused(replace(config, ids=COLOURS[1:3]), "expected colours of the 2 classes, got colours", "[1, 1, 1]")
    written(config, COLOURS, np.zeros((12, 16), int))
    refused(replace(config, ids=[0, 255]), "mode RGB", "data.ids=[[0,0,0],[255,0,0]]")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ids": [0, 1, 2]}, ["data.ids: expected one for each of the 2 classes, got 3"]),
        ({"ids": [0, 5], "ignored_ids": [[0, 0, 0]]}, ["data.ignored_ids: expected ids, got [0, 0, 0]"]),
        ({"ignored_ids": [[0, 0, 0]]}, ["data.ignored_ids: expected ids", "0, 1, 2, … if it is empty"]),
        ({"ids": COLOURS[:2], "ignored_ids": [4]}, ["data.ignored_ids: expected colours, got 4"]),
        ({"ids": [0, 5], "ignored_ids": [5]}, ["data.ignored_ids: expected none of data.ids, got 5"]),
    ],
)
def test_codes_that_contradict_themselves(make_folder: Make, changes: dict[str, Any], words: list[str]) -> None:
    refused(replace(make_folder(), **changes), *words)


@pytest.mark.parametrize(
    "ids", [[0, 0], [0, 256], [-1, 0], [0, [1, 2, 3]], [[1, 2], [3, 4]], ["road", 1], [0, 1.5], [True]]
)
def test_ids_that_are_none(ids: list[Any]) -> None:
    with pytest.raises(InputError, match=r"data.ids: expected ids from 0 to 255, or RGB colours"):
        limits.check(DataConfig(kind="folder", ids=ids), "data.")


def test_of_mmsegmentations_data_sets_no_ids_are_taken() -> None:
    config = DataConfig(kind="mmseg", mmseg_config="_base_/datasets/ade20k.py", ids=[0, 1])
    with pytest.raises(InputError, match=r"data\.ids: expected none with data\.kind=mmseg, got \[0, 1\]\."):
        open_data(config, (12, 16))


def test_masks_of_ids_may_have_a_palette(make_folder: Make, picked: np.ndarray[Any, Any]) -> None:
    config = make_folder()
    for path in Path(str(config.root), "ann_dir").rglob("*.png"):
        mask = Image.fromarray(picked.astype(np.uint8)).convert("P")
        mask.putpalette([0, 0, 0, 200, 10, 10])
        mask.save(path)
    assert (shown(config) == picked).all()
