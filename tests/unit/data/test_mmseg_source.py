from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image

from autoseg.config import DataConfig
from autoseg.data import open_data
from autoseg.errors import InputError
from autoseg.retrain.loaders import class_counts

pytestmark = pytest.mark.slow  # importing mmseg takes seconds

SIZE = (8, 10)
OWN = """
data = dict(type="OfFewOptions", data_root=".", data_prefix=dict(img_path="img", seg_map_path="ann"),
            pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")], ann_file="")
train_dataloader = val_dataloader = test_dataloader = dict(dataset=data)
"""


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


def test_images_that_end_otherwise_are_said_to(tmp_path: Path) -> None:
    """The root is right: to change it would be no help."""
    for split in ("training", "validation"):
        write(tmp_path / "data" / "images" / split / "x.png")
        write(tmp_path / "data" / "annotations" / split / "x.png", [0, 1])
    with pytest.raises(InputError, match=r"data\.root: expected images that end in \.jpg in .*training, got none\.$"):
        open_data(config(tmp_path, "ade20k"), SIZE)


def test_a_data_set_of_ones_own_may_take_few_options(tmp_path: Path) -> None:
    from mmseg.datasets import BaseSegDataset
    from mmseg.registry import DATASETS

    @DATASETS.register_module(force=True)
    class OfFewOptions(BaseSegDataset):
        METAINFO: ClassVar[dict[str, Any]] = {"classes": ("a", "b"), "palette": [[0, 0, 0], [9, 9, 9]]}

        def __init__(
            self, data_root: str, data_prefix: Any, pipeline: Any, ann_file: str = "", test_mode: bool = False
        ) -> None:
            options = {"ann_file": ann_file, "pipeline": pipeline, "test_mode": test_mode}
            super().__init__(data_root=data_root, data_prefix=data_prefix, **options)

    (tmp_path / "own.py").write_text(OWN)
    for name in ("x", "y"):
        write(tmp_path / "data" / "img" / f"{name}.jpg")
        write(tmp_path / "data" / "ann" / f"{name}.png", [0, 1])
    mine = replace(config(tmp_path, "own"), mmseg_config=str(tmp_path / "own.py"))
    assert open_data(mine, SIZE).classes == ["a", "b"]
    (tmp_path / "data" / "none.txt").write_text("")
    (tmp_path / "own.py").write_text(OWN.replace('ann_file=""', 'ann_file="none.txt"'))
    with pytest.raises(InputError, match=r"expected images that none\.txt lists, got none"):
        open_data(replace(mine, cache_dir=str(tmp_path / "other")), SIZE)


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


def own(tmp_path: Path, **splits: object) -> DataConfig:
    """A config of the user's own: the data set of each split."""
    lines = [f"{role}_dataloader = dict(dataset={dataset!r})" for role, dataset in splits.items()]
    (tmp_path / "own.py").write_text("\n".join(lines))
    return replace(config(tmp_path, "ade20k"), mmseg_config=str(tmp_path / "own.py"))


def part(folder: str, **changes: object) -> dict[str, object]:
    """The data set of one folder, of two classes."""
    found = {"type": "BaseSegDataset", "metainfo": {"classes": ["a", "b"], "palette": [[0, 0, 0], [1, 1, 1]]}}
    found["data_prefix"] = {"img_path": f"images/{folder}", "seg_map_path": f"masks/{folder}"}
    loading = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}]
    return {**found, "img_suffix": ".png", "pipeline": loading, **changes}


@pytest.fixture
def three_folders(tmp_path: Path) -> None:
    for folder in ("one", "two", "three"):
        write(tmp_path / "data" / "images" / folder / f"{folder}.png")
        write(tmp_path / "data" / "masks" / folder / f"{folder}.png", [1, 255])


@pytest.mark.parametrize("orientation", [3, 6])
def test_an_image_that_a_full_training_would_turn(tmp_path: Path, three_folders: None, orientation: int) -> None:
    """mmcv turns it by its EXIF tag, a search did not, and its mask fits one of the two."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "data/images/one/one.png"
    Image.open(path).save(path, exif=exif)
    turned = own(tmp_path, train=part("one"), val=part("two"))
    for read in (lambda: open_data(turned, SIZE), lambda: class_counts(turned)):
        with pytest.raises(InputError, match=rf"one\.png: .*stored upright, got EXIF orientation {orientation}"):
            read()
    loading = [{"type": "LoadImageFromFile", "color_type": "color_ignore_orientation"}, {"type": "LoadAnnotations"}]
    stored = own(tmp_path, train=part("one", pipeline=loading), val=part("two"))
    open_data(stored, SIZE)
    class_counts(stored)


def test_a_test_split_without_labels_is_none(tmp_path: Path, three_folders: None) -> None:
    train, val, test = part("one"), part("two"), part("three")
    assert open_data(own(tmp_path, train=train, val=val, test=test), SIZE).splits == ["train", "val", "test"]
    images_alone = part("three", data_prefix={"img_path": "images/three"})
    assert open_data(own(tmp_path, train=train, val=val, test=images_alone), SIZE).splits == ["train", "val"]


def test_an_image_that_a_list_names_and_nobody_has(tmp_path: Path, three_folders: None) -> None:
    (tmp_path / "data" / "list.txt").write_text("one\nmissing\n")
    write(tmp_path / "data" / "masks" / "one" / "missing.png", [1])
    data = own(tmp_path, train=part("one", ann_file="list.txt"), val=part("two"))
    with pytest.raises(InputError, match=r"image .*images/one/missing\.png: expected a file, got none"):
        open_data(data, SIZE)


@pytest.mark.parametrize("role", ["train", "val", "test"])
@pytest.mark.parametrize(
    ("change", "got"),
    [
        ({"reduce_zero_label": True}, "whose ids in the masks mean others"),
        ({"metainfo": {"classes": ["b", "a"], "palette": [[0, 0, 0], [1, 1, 1]]}}, "with b, a"),
    ],
)
def test_data_sets_that_number_their_classes_in_another_way_are_not_joined(
    tmp_path: Path, three_folders: None, role: str, change: dict[str, object], got: str
) -> None:
    """Each would be read by the ids of the first."""
    splits = {"train": part("one"), "val": part("two"), "test": part("three"), role: part("three", **change)}
    if role == "train":
        splits["train"] = {"type": "ConcatDataset", "datasets": [part("one"), splits["train"]]}
    hint = "data.test_split=null" if role == "test" else "Write their masks"
    with pytest.raises(InputError, match=f"data.mmseg_config: .* in its {role} split {got}.* {hint}"):
        open_data(own(tmp_path, **splits), SIZE)


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
