"""What is odd about data is said, what is right is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from autoseg.config import DataConfig
from autoseg.data import open_data, remarks_on


def folder(root: Path, ids: list[int], size: tuple[int, int] = (48, 64)) -> DataConfig:
    """Two splits of one image whose mask has stripes of these ids; classes road, crack."""
    mask = np.repeat(np.array(ids, dtype=np.uint8), size[0] // len(ids))[:, None].repeat(size[1], 1)
    for split in ("train", "val"):
        for kind, picture in (("img_dir", np.zeros((*size, 3), np.uint8)), ("ann_dir", mask)):
            (root / kind / split).mkdir(parents=True)
            Image.fromarray(picture).save(root / kind / split / "a.png")
    return DataConfig(name="x", kind="folder", root=str(root), classes=["road", "crack"], cache_dir=str(root / "cache"))


def test_masks_of_0_and_255_are_the_usual_mistake(tmp_path: Path) -> None:
    (text,) = remarks_on(open_data(folder(tmp_path, [0, 255]), (48, 64)), 255, 32)
    assert text.startswith("no training image has a pixel of crack; if 255 stands for a class in your masks")


def test_a_class_that_never_occurs(tmp_path: Path) -> None:
    assert remarks_on(open_data(folder(tmp_path, [1, 1]), (48, 64)), 255, 32) == [
        "no training image has a pixel of road"
    ]


def test_crops_larger_than_the_images(tmp_path: Path) -> None:
    data = open_data(folder(tmp_path, [0, 1, 255]), (48, 64))
    assert remarks_on(data, 255, 64) == []
    (text,) = remarks_on(data, 255, 128)
    assert text == "crops of 128 pixels of images of 48x64 are 81% padding: lower proxy.crop"
