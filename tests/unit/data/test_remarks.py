"""What is odd about data is said, what is right is not."""

from __future__ import annotations

import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autoseg.config import DataConfig, TrainConfig
from autoseg.data import open_data, remarks_on
from autoseg.data.folder import open_folder
from autoseg.data.remarks import remarks_on_scaled_crops
from autoseg.errors import InputError


def folder(root: Path, ids: list[int], size: tuple[int, int] = (48, 64)) -> DataConfig:
    """Two splits of one image whose mask has stripes of these ids; classes road, crack."""
    mask = np.repeat(np.array(ids, dtype=np.uint8), size[0] // len(ids))[:, None].repeat(size[1], 1)
    for split in ("train", "val"):
        for kind, picture in (("img_dir", np.zeros((*size, 3), np.uint8)), ("ann_dir", mask)):
            (root / kind / split).mkdir(parents=True)
            Image.fromarray(picture).save(root / kind / split / "a.png")
    return DataConfig(name="x", kind="folder", root=str(root), classes=["road", "crack"], cache_dir=str(root / "cache"))


def remarks(config: DataConfig, crop: int = 32, scored: str = "val") -> list[str]:
    return remarks_on(open_data(config, (48, 64)), config, crop, scored)


@pytest.mark.parametrize(("ids", "got"), [([0, 255], "pixels of road alone"), ([255, 255], "every pixel is ignored")])
def test_masks_of_0_and_255_are_the_usual_mistake(tmp_path: Path, ids: list[int], got: str) -> None:
    config = folder(tmp_path, ids)
    for look in (lambda: remarks(config), lambda: open_folder(config).check()):  # before a search, before a retrain
        with pytest.raises(
            InputError, match=f"at least two of the 2 classes, got .*{got}.* 255 is ignored: if it is a class"
        ):
            look()


def test_a_class_that_never_occurs(tmp_path: Path) -> None:
    config = replace(folder(tmp_path, [0, 1]), classes=["road", "crack", "car"])
    assert remarks(config) == ["no training image has a pixel of car"]


def test_a_class_that_is_trained_on_and_cannot_be_scored(tmp_path: Path) -> None:
    config = folder(tmp_path, [0, 1])
    for name, ids in (("b", [0, 0]), ("c", [0, 0]), ("d", [0, 2]), ("e", [0, 2])):
        for kind in ("img_dir", "ann_dir"):
            shutil.copy(tmp_path / kind / "train/a.png", tmp_path / kind / f"train/{name}.png")
        mask = np.repeat(np.array(ids, dtype=np.uint8), 24)[:, None].repeat(64, 1)
        Image.fromarray(mask).save(tmp_path / f"ann_dir/train/{name}.png")
    config = replace(config, classes=["road", "crack", "car"])
    (text,) = remarks(config, scored="train")  # the last of five is held out
    assert text.startswith(
        "no held-out image has a pixel of crack: finding it earns nothing, and in a mean over classes "
    )
    assert text.endswith("is a class with score 0; data.holdout and data.groups hold out others")
    (text,) = remarks(config, scored="val")
    assert text.startswith("no val image has a pixel of car: ") and text.endswith("is a class with score 0")
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(tmp_path / "ann_dir/train/e.png")
    with pytest.raises(InputError, match=r"masks of the held-out images: .*two classes, got pixels of road alone"):
        remarks(config, scored="train")


def test_groups_are_named_so_that_their_author_sees_what_they_come_to(tmp_path: Path) -> None:
    config = replace(folder(tmp_path, [0, 1]), groups=r"p\d")
    for kind in ("img_dir", "ann_dir"):
        for name in ("p1_a", "p1_b", "p2_a", "p2_b"):
            shutil.copy(tmp_path / kind / "train/a.png", tmp_path / kind / f"train/{name}.png")
    with pytest.raises(InputError, match=r"data\.groups: expected .* a part of every name, got none in 'a'"):
        remarks(config, scored="train")
    for kind in ("img_dir", "ann_dir"):
        (tmp_path / kind / "train/a.png").unlink()
    (text,) = remarks(config, scored="train")
    assert text == "data.groups holds out 2 of 4 training images, all of p1"
    assert remarks(config, scored="val") == []


def test_masks_without_an_image_are_named(tmp_path: Path) -> None:
    config = folder(tmp_path, [0, 1])
    for name in ("val/c.png", "train/b.png"):
        shutil.copy(tmp_path / "ann_dir/train/a.png", tmp_path / "ann_dir" / name)
    (tmp_path / "img_dir/train/b.gif").write_bytes(b"")
    (text,) = remarks(config)
    assert text.startswith("masks without an image are left out: 2, as ") and "/b.png; images end in .jpg, " in text


def test_a_class_that_is_ignored_is_not_missed(tmp_path: Path) -> None:
    config = replace(folder(tmp_path, [0, 1, 2]), classes=["void", "road", "crack"], ignore_index=0)
    assert remarks(config) == []


def test_crops_larger_than_the_images(tmp_path: Path) -> None:
    config = folder(tmp_path, [0, 1, 255])
    assert remarks(config, 64) == []
    (text,) = remarks(config, 128)
    assert text == "crops of 128 pixels of images of 48x64 are 81% padding: lower proxy.crop"


def test_crops_of_a_full_training_larger_than_the_scaled_images(tmp_path: Path) -> None:
    config, crops = folder(tmp_path, [0, 1]), TrainConfig(crop=[96, 128], ratio=[1.0, 1.0])
    assert remarks_on_scaled_crops(config, crops) == [
        "crops of 96x128 pixels of images of 48x64, as a.png, scaled by 1 to 1 are 75% padding: lower train.crop"
    ]
    (text,) = remarks_on_scaled_crops(config, replace(crops, ratio=[1.0, 2.0]))
    assert "scaled by 1 to 2 are 42% padding" in text
    assert remarks_on_scaled_crops(config, replace(crops, crop=[48, 64])) == []
    assert remarks_on_scaled_crops(config, replace(crops, size=[96, 128])) == []
    (text,) = remarks_on_scaled_crops(config, replace(crops, size=[128, 48]))  # lying all the same, as mmcv has it
    assert "images of 48x64, as a.png, " in text
    (text,) = remarks_on_scaled_crops(DataConfig(), TrainConfig())
    assert text.startswith("crops of 512x512 pixels of images of 96x96 scaled by 0.5 to 2 are 9")
    assert remarks_on_scaled_crops(DataConfig(kind="mmseg"), TrainConfig()) == []


def test_images_that_the_default_size_shrinks(tmp_path: Path) -> None:
    config = folder(tmp_path, [0, 1], (256, 256))
    (text,) = remarks_on(open_data(config, (180, 240)), config, 32, "val")
    assert text == (
        "images of 256x256, as a.png, are trained on and scored at 180x180, where tolerance counts: "
        "proxy.size=[256,256] keeps their size"
    )
    assert not any("keeps their size" in text for text in remarks(config))  # a size that was chosen


def test_frames_that_no_image_fills(tmp_path: Path) -> None:
    config = folder(tmp_path, [0, 1], (48, 48))
    (text,) = remarks(config)
    assert text == (
        "images of 48x48 leave 25% of their frames of 48x64 as padding: proxy.size=[48,48] has none and is faster"
    )
    (text,) = remarks_on(open_data(config, (180, 240)), config, 32, "val")  # enlarged
    assert "images of 180x180 leave 25%" in text


def test_crops_of_which_much_is_padding_in_one_direction(tmp_path: Path) -> None:
    config = folder(tmp_path, [0, 1], (48, 12))
    assert "crops of 40 pixels of images of 48x12 are 70% padding: lower proxy.crop" in remarks(config, 40)


def test_built_in_images_that_the_default_size_enlarges(tmp_path: Path) -> None:
    config = DataConfig(count=[4, 2, 2], cache_dir=str(tmp_path))
    (text,) = [text for text in remarks_on(open_data(config, (180, 240)), config, 32, "val") if "pixel of" not in text]
    assert text == "images of 96x96 are enlarged to 180x180: proxy=builtin keeps their size, and is faster"


@pytest.mark.parametrize("size", [(180, 240), (190, 250), (90, 120)])
def test_images_that_keep_about_their_size(tmp_path: Path, size: tuple[int, int]) -> None:
    config = folder(tmp_path, [0, 1], size)
    assert remarks_on(open_data(config, (180, 240)), config, 32, "val") == []


def tiff(path: Path, bands: int, extra: list[int], size: tuple[int, int] = (48, 64)) -> None:
    """Write an uncompressed TIFF of zeros, of a kind that Pillow reads and does not write."""
    height, width = size
    pixels = bytes(height * width * bands)
    many = {258: [8] * bands, 338: extra}
    one = {
        256: width,
        257: height,
        259: 1,
        262: 2 if bands > 2 else 1,
        273: 8,
        277: bands,
        278: height,
        279: len(pixels),
    }
    tags = {**{tag: [value] for tag, value in one.items()}, **{tag: values for tag, values in many.items() if values}}
    where = 8 + len(pixels)
    after, entries = where + 6 + 12 * len(tags), b""
    tail = b""
    for tag, values in sorted(tags.items()):
        kind, form = (4, "I") if tag in (256, 257, 273, 278, 279) else (3, "H")
        data = struct.pack(f"<{len(values)}{form}", *values)
        place = data.ljust(4, b"\0")
        if len(data) > 4:
            place = struct.pack("<I", after + len(tail))
            tail += data
        entries += struct.pack("<HHI", tag, kind, len(values)) + place
    ifd = struct.pack("<H", len(tags)) + entries + bytes(4)
    path.write_bytes(b"II*\0" + struct.pack("<I", where) + pixels + ifd + tail)


@pytest.mark.parametrize(
    ("bands", "extra", "said"),
    [
        (5, [0, 0], "images of 5 bands, as a.tif: only the first three are trained on"),
        (4, [0], "images of 4 bands, as a.tif: only the first three are trained on"),
        (2, [0], "images of 2 bands, as a.tif: only the first is trained on"),
        (4, [1], ""),
        (4, [2], ""),
        (2, [2], ""),
        (3, [], ""),
        (1, [], ""),
    ],
)
def test_bands_that_cannot_be_trained_on(tmp_path: Path, bands: int, extra: list[int], said: str) -> None:
    config = folder(tmp_path, [0, 1])
    (tmp_path / "img_dir/train/a.png").unlink()
    tiff(tmp_path / "img_dir/train/a.tif", bands, extra)
    assert remarks(config) == ([said] if said else [])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_alpha_and_palettes_are_no_bands(tmp_path: Path, mode: str, suffix: str) -> None:
    config = folder(tmp_path, [0, 1])
    (tmp_path / "img_dir/train/a.png").unlink()
    Image.new(mode, (64, 48)).save(tmp_path / f"img_dir/train/a.{suffix}")
    assert remarks(config) == []


@pytest.mark.parametrize(
    ("mode", "said"), [("RGBA", "4 bands, as a.{}: only the first three are"), ("LA", "2 bands, ")]
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_an_alpha_band_that_varies_is_a_band(tmp_path: Path, mode: str, suffix: str, said: str) -> None:
    """Near infrared beside RGB, often written as RGBA."""
    config = folder(tmp_path, [0, 1])
    (tmp_path / "img_dir/train/a.png").unlink()
    picture = Image.new(mode, (64, 48))
    picture.putalpha(Image.linear_gradient("L").resize((64, 48)))
    picture.save(tmp_path / f"img_dir/train/a.{suffix}")
    (text,) = remarks(config)
    assert text.startswith(f"images of {said.format(suffix)}")
