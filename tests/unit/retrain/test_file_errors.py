"""A file that does not fit is named, in the process that trains, whichever process read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmengine.dataset import ConcatDataset
from mmseg.datasets import BaseSegDataset
from PIL import Image
from torch.utils.data import DataLoader

from autoseg.config import DataConfig
from autoseg.retrain.file_errors import WrongFile, name_files
from autoseg.retrain.loaders import datasets

PIPELINE = [{"type": "LoadImageFromFile"}, {"type": "mmseg.LoadAnnotations"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images with masks of the ids 0, 1 and 255."""
    labels = np.zeros((12, 16), dtype=np.uint8)
    labels[:3], labels[0, 0] = 1, 255
    for name in ("a b", "ü"):
        Image.new("RGB", (16, 12), "red").save(tmp_path / f"{name}.jpg")
        Image.fromarray(labels).save(tmp_path / f"{name}.png")
    return tmp_path


def read(folder: Path, workers: int) -> list[Any]:
    part = BaseSegDataset(
        data_root=str(folder), data_prefix={"img_path": "", "seg_map_path": ""}, pipeline=PIPELINE,
        metainfo={"classes": ("one", "two")},
    )  # fmt: skip
    whole = ConcatDataset([part])
    name_files(whole, classes=2, ignore_index=255)
    return list(DataLoader(whole, batch_size=1, num_workers=workers, collate_fn=list))


@pytest.mark.parametrize("workers", [0, 1])
def test_files_that_fit_are_read_as_before(folder: Path, workers: int) -> None:
    assert [batch[0]["gt_seg_map"].max() for batch in read(folder, workers)] == [255, 255]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mask_with_an_id_of_no_class(folder: Path, workers: int) -> None:
    Image.fromarray(np.full((12, 16), 40, dtype=np.uint8)).save(folder / "ü.png")
    with pytest.raises(WrongFile) as told:
        read(folder, workers)
    error = told.value.error()
    assert error.field == f"mask {folder / 'ü.png'}" and "ids 0 to 1, or 255" in str(error)
    assert "id 40 in 192 pixels" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("file", ["a b.jpg", "a b.png"])
def test_a_file_that_is_none(folder: Path, workers: int, file: str) -> None:
    (folder / file).write_bytes(b"nothing")
    with pytest.raises(WrongFile) as told:
        read(folder, workers)
    assert str(folder / file) in told.value.error().field and "\n" not in str(told.value.error())


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mask_of_the_users_own_folders_that_changed_after_it_was_checked(tmp_path: Path, workers: int) -> None:
    from mmseg.registry import DATASETS
    from mmseg.utils import register_all_modules

    import autoseg.retrain.parts  # noqa: F401  (a config's custom_imports)

    for split in ("train", "val"):
        for kind, mode in (("img_dir", "RGB"), ("ann_dir", "L")):
            (tmp_path / kind / split).mkdir(parents=True)
            Image.new(mode, (16, 12)).save(tmp_path / kind / split / "a.png")
    data = datasets(DataConfig(kind="folder", root=str(tmp_path), classes=["one", "two"], ids=[0, 255]))
    register_all_modules(init_default_scope=True)
    dataset = DATASETS.build({**data.splits["train"], "pipeline": data.loading})
    name_files(dataset, classes=2, ignore_index=255)
    mask = tmp_path / "ann_dir/train/a.png"
    Image.new("L", (16, 12), 7).save(mask)
    with pytest.raises(WrongFile) as told:
        list(DataLoader(dataset, batch_size=1, num_workers=workers, collate_fn=list))
    assert told.value.error().field == f"mask {mask}" and "(0, 255), got id 7 in 192 pixels" in str(told.value.error())
