from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autoseg.config import DataConfig
from autoseg.data import open_data
from autoseg.errors import InputError

pytestmark = pytest.mark.slow  # importing mmseg takes seconds

SIZE = (8, 10)


def write(path: Path, ids: list[int] | None = None) -> None:
    """An image, or a mask whose first row begins with `ids`, the rest id 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros(SIZE if ids is not None else (*SIZE, 3), dtype=np.uint8)
    if ids is not None:
        pixels[0, : len(ids)] = ids
    Image.fromarray(pixels).save(path)


def config(tmp_path: Path, name: str) -> DataConfig:
    return DataConfig(
        name="m",
        kind="mmseg",
        mmseg_config=f"_base_/datasets/{name}.py",
        root=str(tmp_path / "data"),
        cache_dir=str(tmp_path / "cache"),
    )


def test_ade20k_shifts_its_ids(tmp_path: Path) -> None:
    for split in ("training", "validation"):
        write(tmp_path / "data" / "images" / split / "x.jpg")
        write(tmp_path / "data" / "annotations" / split / "x.png", [0, 1, 150])
    data = open_data(config(tmp_path, "ade20k"), SIZE)
    assert (data.splits, data.num_classes, len(data.palette)) == (["train", "val"], 150, 150)
    assert data.labels("train")[0, 0, :4].tolist() == [255, 0, 149, 255]


def test_some_classes_of_a_config_are_numbered_anew(tmp_path: Path) -> None:
    for split in ("training", "validation"):
        write(tmp_path / "data" / "images" / split / "x.jpg")
        write(tmp_path / "data" / "annotations" / split / "x.png", [0, 1, 2, 3, 255])
    data = open_data(replace(config(tmp_path, "ade20k"), classes=["building", "wall"]), SIZE)
    assert data.classes == ["building", "wall"]
    assert data.labels("train")[0, 0, :5].tolist() == [255, 1, 0, 255, 255]


def test_voc_aug_joins_two_lists(tmp_path: Path) -> None:
    root = tmp_path / "data"
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for name, split, folder in (("b", "train", ""), ("a", "aug", "Aug"), ("c", "val", "")):
        (lists / f"{split}.txt").write_text(f"{name}\n")
        write(root / "JPEGImages" / f"{name}.jpg")
        write(root / f"SegmentationClass{folder}" / f"{name}.png", [20, 255])
    data = open_data(config(tmp_path, "pascal_voc12_aug"), SIZE)
    assert (data.names("train"), data.names("val"), data.num_classes) == (["a", "b"], ["c"], 21)
    assert data.labels("train")[1, 0, :3].tolist() == [20, 255, 0]


def test_cityscapes_has_its_own_suffixes(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write(tmp_path / "data" / "leftImg8bit" / split / "ulm" / "ulm_0_leftImg8bit.png")
        write(tmp_path / "data" / "gtFine" / split / "ulm" / "ulm_0_gtFine_labelTrainIds.png", [18, 255])
    data = open_data(config(tmp_path, "cityscapes"), SIZE)
    assert data.num_classes == 19
    assert data.labels("val")[0, 0, :2].tolist() == [18, 255]


@pytest.mark.parametrize("kind", ["levir_256x256", "nyu", "hsi_drive"])
def test_images_that_are_not_one_file_each_are_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(InputError, match=r"data\.mmseg_config: expected a pipeline that loads with LoadImageFromFile"):
        open_data(config(tmp_path, kind), SIZE)


def test_bad_inputs_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.mmseg_config.*nonesuch"):
        open_data(config(tmp_path, "nonesuch"), SIZE)
    with pytest.raises(InputError, match=r"data\.root"):
        open_data(config(tmp_path, "ade20k"), SIZE)
    for split in ("training", "validation"):
        write(tmp_path / "data" / "images" / split / "x.jpg")
        write(tmp_path / "data" / "annotations" / split / "x.png", [151])
    with pytest.raises(InputError, match=r"x\.png.*id 151 in 1 pixels"):
        open_data(config(tmp_path, "ade20k"), SIZE)
    (tmp_path / "data" / "annotations" / "validation" / "x.png").unlink()
    with pytest.raises(InputError, match=r"image .*x\.jpg: expected a mask"):
        open_data(config(tmp_path, "ade20k"), SIZE)
