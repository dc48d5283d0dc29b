"""Every bad input of a folder data set: one InputError that names the file, and nothing left behind."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image

from autoseg.config import DataConfig
from autoseg.data import open_data
from autoseg.data.builtin import BuiltinSource
from autoseg.data.decode import read_image
from autoseg.data.folder import FileSource, folder_of, lone_masks, open_folder
from autoseg.data.masks import MaskCode
from autoseg.data.remarks import remarks_on_files
from autoseg.errors import InputError
from autoseg.losses import class_weights
from autoseg.losses.frequency import weights_of
from autoseg.retrain.loaders import class_counts

Make = Callable[..., DataConfig]


def refused(config: DataConfig, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        open_data(config, (12, 16))
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    cache = Path(str(config.cache_dir))
    assert not cache.exists() or all(path.suffix == ".lock" for path in cache.iterdir())


def data_file(config: DataConfig, *parts: str) -> Path:
    return Path(str(config.root)).joinpath(*parts)


def test_no_root(make_folder: Make) -> None:
    refused(replace(make_folder(), root=None), "data.root", "Set data.root=DIR")


def test_root_that_is_not_there(make_folder: Make) -> None:
    refused(replace(make_folder(), root="/nowhere/at/all"), "data.root", "/nowhere/at/all")


@pytest.mark.parametrize("root", [None, "/nowhere/at/all"])
def test_the_script_that_makes_data_is_named_for_what_it_makes(make_folder: Make, root: str | None) -> None:
    config = replace(make_folder(), root=root)
    for name in ("camvid", "folder"):
        with pytest.raises(InputError) as told:
            open_folder(replace(config, name=name))
        known = told.value.hint.endswith(f" python scripts/prepare_data.py {name} DIR makes one.")
        assert known == (name == "camvid") == ("prepare_data" in told.value.hint)


def test_an_image_is_not_named_as_its_own_mask(make_folder: Make) -> None:
    config = make_folder()
    for split in ("train", "val"):
        for path in data_file(config, "img_dir", split).iterdir():
            path.rename(path.with_suffix(".jpg"))
    refused(replace(config, ann_dir="img_dir"), "/img_dir/train/0.png, got none", "Add the mask or remove the image.")


def test_folders_in_which_the_split_comes_first(make_folder: Make) -> None:
    config = make_folder(("train", "val", "test"))
    plain = open_data(config, (12, 16))
    for split in ("train", "val", "test"):
        data_file(config, split).mkdir()
        data_file(config, "img_dir", split).rename(data_file(config, split, "images"))
        data_file(config, "ann_dir", split).rename(data_file(config, f"{split}_labels"))
    found = open_data(replace(config, img_dir="SPLIT/images", ann_dir="SPLIT_labels"), (12, 16))
    for split in ("train", "val", "test"):
        assert torch.equal(found.labels(split), plain.labels(split))
    assert lone_masks(replace(config, img_dir="SPLIT/images", ann_dir="SPLIT_labels")) == []
    assert open_folder(replace(config, img_dir="SPLIT/images", ann_dir="SPLIT_labels", val_split=None)).items["val"]
    assert folder_of(config, "SPLITS", "train").parts[-2:] == ("SPLITS", "train")  # a name of somebody's own
    with pytest.raises(InputError, match=r"data\.img_dir, data\.ann_dir, also as SPLIT/images, and data\.tr") as caught:
        open_folder(replace(config, img_dir="SPLIT/image"))
    assert ": ann_dir, img_dir, test, test_labels, train, train_labels, val, val_labels." in str(caught.value)


def test_of_images_without_a_split_some_are_held_out(make_folder: Make) -> None:
    config = make_folder(("train",), count=10)
    refused(config, "img_dir/val", "Splits in it: train;", "data.val_split=null holds out some of the training images")
    found = open_data(replace(config, val_split=None), (12, 16))
    assert found.names("train") + found.names("val") == ["0", "1", "2", "3", "5", "6", "7", "8", "4", "9"]
    assert lone_masks(replace(config, val_split=None)) == []
    flat = replace(config, val_split=None, train_split=".", img_dir="img_dir/train", ann_dir="ann_dir/train")
    assert torch.equal(open_data(flat, (12, 16)).labels("val"), found.labels("val"))
    grouped = open_data(replace(config, val_split=None, groups="[0246]|"), (12, 16))  # four of one image, one of six
    assert grouped.names("val") == ["2", "4"]


@pytest.mark.parametrize("role", ["val", "test"])
def test_images_that_are_trained_on_and_scored_are_remarked(make_folder: Make, role: str) -> None:
    """Not refused: a search never scores them, and a run that began so goes on."""
    config = make_folder(("train", "val", "test"))
    image = data_file(config, "img_dir", role, "0.png")

    def remarks(config: DataConfig) -> list[str]:
        return remarks_on_files(config, config.classes, [1, 1])

    assert remarks(config) == []
    image.unlink()
    image.symlink_to(data_file(config, "img_dir", "train", "0.png"))
    (text,) = remarks(config)
    assert text.startswith(f"1 {role} images are trained on, as {image}: ") and f"data.{role}_split=null" in text
    (text,) = remarks(
        replace(config, **{f"{role}_split": "train", "test_split" if role == "val" else "val_split": None})
    )
    assert text.startswith(f"3 {role} images are trained on")


def test_names_of_images_and_masks_that_end_differently(make_folder: Make) -> None:
    """Also side by side in one folder, as those of Cityscapes never are and those of DeepGlobe are."""
    config = make_folder(annotators=1)
    plain = open_data(config, (12, 16))
    root = Path(str(config.root))
    for split in ("train", "val"):
        for index in range(3):
            for folder, end in (("img_dir", "_sat.JPG"), ("ann_dir", "_mask.png"), ("rater0", "_mask.png")):
                (root / folder / split / f"{index}.png").rename(root / folder / split / f"{index}{end}")
    apart = replace(config, img_suffix="_sat.jpg", seg_map_suffix="_mask.png")
    found = open_data(apart, (12, 16))
    assert found.names("train") == ["0", "1", "2"] == plain.names("train")
    assert torch.equal(found.labels("train"), plain.labels("train"))
    assert torch.equal(found.raters("train"), plain.raters("train"))
    assert lone_masks(apart) == []
    for path in sorted(root.glob("ann_dir/*/*.png")):
        shutil.copy(path, root / "img_dir" / path.parent.name / path.name)
    together = replace(apart, ann_dir="img_dir", annotator_dirs=[])
    assert open_data(together, (12, 16)).names("train") == ["0", "1", "2"]
    (root / "img_dir/train/1_sat.JPG").unlink()
    assert lone_masks(together) == [root / "img_dir/train/1_mask.png"]
    with pytest.raises(InputError, match=r"at least one image, got none.*Images end in _rgb\.jpg\."):
        open_folder(replace(apart, img_suffix="_rgb.jpg"))
    with pytest.raises(InputError, match=r"data\.seg_map_suffix: expected an end of names"):
        open_folder(replace(apart, seg_map_suffix=""))
    with pytest.raises(InputError, match=r"data\.seg_map_suffix: expected masks as PNG, since JPEG changes the ids"):
        open_folder(replace(apart, seg_map_suffix="_mask.jpg", ids=[0, 40]))


@pytest.mark.parametrize("folder", ["img_dir/train", "img_dir/val", "ann_dir/train", "ann_dir/val"])
def test_missing_folder(make_folder: Make, folder: str) -> None:
    config = make_folder()
    shutil.rmtree(data_file(config, folder))
    refused(config, folder, "layout")


def test_missing_annotator(make_folder: Make) -> None:
    refused(replace(make_folder(), annotator_dirs=["rater7"]), "rater7")


def test_missing_test_split_is_no_error(make_folder: Make) -> None:
    assert open_data(make_folder(), (12, 16)).splits == ["train", "val"]


def test_a_test_split_without_labels_is_none(make_folder: Make) -> None:
    """As challenges give it: no command that does without one may stop at it."""
    config = make_folder(("train", "val", "test"))
    assert open_data(config, (12, 16)).splits == ["train", "val", "test"]
    shutil.rmtree(data_file(config, "ann_dir", "test"))
    assert open_data(config, (12, 16)).splits == ["train", "val"]


def test_empty_split(make_folder: Make) -> None:
    config = make_folder()
    for path in data_file(config, "img_dir", "val").iterdir():
        path.unlink()
    data_file(config, "img_dir", "val", "0.npy").write_bytes(b"")
    refused(config, "val", "at least one image", "Images end in .jpg, .jpeg, .png, .bmp, .tif")


def test_image_without_mask(make_folder: Make) -> None:
    config = make_folder()
    data_file(config, "ann_dir", "train", "1.png").unlink()
    data_file(config, "ann_dir", "train", "2.png").unlink()
    refused(config, "img_dir/train/1.png", "ann_dir/train/1.png", "1 more")


def test_an_image_that_is_a_link_to_nothing(make_folder: Make) -> None:
    config = make_folder()
    for name in ("1.png", "2.png"):
        image = data_file(config, "img_dir", "train", name)
        image.rename(image.with_name(f".{name}"))
        image.symlink_to("/nowhere/at/all.png")
    refused(config, "image ", "img_dir/train/1.png: expected a file, got a link to /nowhere/at/all.png", "1 more like")


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ("1.PNG", "There is 1.PNG: if all masks are named so, set data.seg_map_suffix=.PNG."),
        ("1.jpg", "as in data.ids=[0,255]. Then set data.seg_map_suffix=.jpg."),
        ("1_L.png", "There is 1_L.png: if all masks are named so, set data.seg_map_suffix=_L.png."),
    ],
)
def test_a_mask_of_another_name_is_named(make_folder: Make, there: str, words: str) -> None:
    config = make_folder()
    mask = data_file(config, "ann_dir", "train", "1.png")
    mask.rename(mask.with_name(there))
    refused(config, "img_dir/train/1.png", words)


def png(width: int, height: int, rows: bytes, *, bits: int, colour: int) -> bytes:
    """A PNG file of these rows, of a kind that Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    parts = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("kind", ["img_dir", "ann_dir"])
def test_an_image_too_large_is_to_be_cut(make_folder: Make, kind: str) -> None:
    """Pillow takes it for an attack, and it was told as a damaged file that should go."""
    config = make_folder()
    data_file(config, kind, "val", "1.png").write_bytes(png(14_000, 14_000, b"", bits=8, colour=0))
    refused(config, f"{kind}/val/1.png: expected at most 179 megapixels, got 196. Cut the image and its mask")
    with pytest.raises(InputError, match="tiles"):
        open_folder(config).check()


def test_a_large_image_is_read_without_a_warning(make_folder: Make) -> None:
    path = data_file(make_folder(), "img_dir", "val", "1.png")  # 192 pixels
    large = "from PIL import Image; from autoseg.data.decode import *; Image.MAX_IMAGE_PIXELS = 100"
    code = f"{large}; assert read_image(Path({str(path)!r}), upright=True).shape == (12, 16, 3)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_an_image_that_its_exif_tag_turns(make_folder: Make, orientation: int, suffix: str) -> None:
    config, exif = make_folder(), Image.Exif()
    exif[0x0112] = orientation
    path = data_file(config, "img_dir", "train", "1.png")
    image = Image.open(path)
    path.unlink()
    image.save(path.with_suffix(suffix), exif=exif)
    refused(config, f"1{suffix}", "stored upright", f"EXIF orientation {orientation}", "exif_transpose")
    with pytest.raises(InputError, match="stored upright"):
        class_counts(config)
    exif[0x0112] = 1
    image.save(path.with_suffix(suffix), exif=exif)
    open_data(config, (12, 16))


def test_a_colour_image_of_16_bits_is_refused_as_a_grey_one_is(make_folder: Make) -> None:
    """Pillow drops their lower halves without a word."""
    config = make_folder()
    path = data_file(config, "img_dir", "train", "1.png")
    with Image.open(path) as image:
        width, height = image.size
    rows = b"".join(b"\x00" + bytes(6 * width) for _ in range(height))
    path.write_bytes(png(width, height, rows, bits=16, colour=2))
    refused(config, "1.png", "8 bits per channel", "RGB;16B")
    with pytest.raises(InputError, match="8 bits per channel"):
        class_counts(config)


def test_pages_of_a_tiff_are_refused_since_only_the_first_would_be_read(make_folder: Make) -> None:
    """As writers store (8, H, W): it was trained on as the first band in grey."""
    config = make_folder()
    path = data_file(config, "img_dir", "train", "1.png")
    path.unlink()
    first, *others = [Image.new("L", (16, 12), band) for band in range(8)]
    first.save(path.with_suffix(".tif"), save_all=True, append_images=others)
    refused(config, "1.tif: expected one page, got 8 of 16x12.", "as one RGB image")
    with pytest.raises(InputError, match="expected one page"):
        class_counts(config)


def test_a_tiff_of_grey_bands_is_no_damaged_file(make_folder: Make) -> None:
    config = make_folder()
    path = data_file(config, "img_dir", "train", "1.png")
    path.unlink()
    Image.new("RGBA", (16, 12)).save(path.with_suffix(".tif"))
    content, rgb = path.with_suffix(".tif").read_bytes(), struct.pack("<HHIHH", 262, 3, 1, 2, 0)
    assert content.count(rgb) == 1
    path.with_suffix(".tif").write_bytes(content.replace(rgb, struct.pack("<HHIHH", 262, 3, 1, 1, 0)))
    refused(config, "1.tif: expected a readable image", "Images are RGB of 8 bits here; others", "train=…")


@pytest.mark.parametrize("photometric", [1, 4])  # the second says that it is a mask; Pillow does not know it
def test_a_tiff_with_smaller_copies_and_a_mask_is_read(tmp_path: Path, photometric: int) -> None:
    path = tmp_path / "map.tif"
    picture = Image.linear_gradient("L").resize((16, 12)).convert("RGB")
    mask = Image.new("1", picture.size)
    mask.encoderinfo = {"tiffinfo": {254: 4}}  # type: ignore[attr-defined]
    picture.save(path, save_all=True, append_images=[mask, picture.resize((8, 6))])
    content = bytearray(path.read_bytes())
    entry = struct.pack("<HHIHH", 262, 3, 1, 1, 0)  # the tag at the mask
    assert content.count(entry) == 1
    content[content.index(entry) + 8] = photometric
    path.write_bytes(content)
    assert (read_image(path, upright=True) == np.asarray(picture)).all()


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_of_a_film_the_first_image_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"film.{suffix}"
    images = [Image.new("RGB", (16, 12), (255, 255, 255)), Image.new("RGB", (16, 12))]
    images[0].save(path, save_all=True, append_images=images[1:], lossless=True)
    assert read_image(path, upright=True).min() == 255


def test_two_images_of_one_name(make_folder: Make) -> None:
    config = make_folder()
    shutil.copy(data_file(config, "img_dir", "train", "1.png"), data_file(config, "img_dir", "train", "1.jpg"))
    refused(config, "1.jpg", "1.png", "same mask")


def test_mask_with_ids_out_of_range(make_folder: Make) -> None:
    config = make_folder()
    mask = np.zeros((12, 16), dtype=np.uint8)
    mask[0, :3] = 7
    Image.fromarray(mask).save(data_file(config, "ann_dir", "val", "2.png"))
    refused(config, "ann_dir/val/2.png", "id 7 in 3 pixels", "0-1, 255", "data.classes")


def test_classes_that_begin_with_1_are_read_with_their_ids_named_or_with_0_as_a_class_that_is_ignored(
    make_folder: Make,
) -> None:
    config = replace(make_folder(), classes=["a", "b", "c", "d"])
    mask = np.array([[0, 1, 2, 3, 4, 0]] * 12, dtype=np.uint8).repeat([1, 3, 3, 3, 3, 3], axis=1)
    for path in data_file(config, "ann_dir").rglob("*.png"):
        Image.fromarray(mask).save(path)
    said = "If 0 is the background, name it first in data.classes. "
    said += "If it is unlabelled: data.ids=[1,2,3,…] data.ignored_ids=[0]."
    refused(config, "id 4 in 36 pixels", said)
    with pytest.raises(InputError) as caught:
        class_counts(replace(config, ignore_index=0))  # half of that
    assert said in str(caught.value)
    read = replace(config, ids=[1, 2, 3, 4], ignored_ids=[0])
    labels = np.where(mask == 0, 255, mask - 1)
    assert (open_data(read, (12, 16)).labels("train")[0].numpy() == labels).all()
    assert class_counts(read).pixels == [108, 108, 108, 108]
    read = replace(config, classes=["void", *config.classes], ignore_index=0)
    labels = np.where(mask == 0, 255, mask)
    assert (open_data(read, (12, 16)).labels("train")[0].numpy() == labels).all()
    assert class_counts(read).pixels == [0, 108, 108, 108, 108]


def test_a_second_id_for_void_is_to_be_named(make_folder: Make) -> None:
    """Told to set data.ignore_index, its user had set it, for the other id."""
    config = replace(make_folder(), ignore_index=0)
    refused(config, "ann_dir/train/0.png", "id 255 in ", "or the ids of unlabelled pixels in data.ignored_ids")
    with pytest.raises(InputError, match=r"data\.ignored_ids"):
        class_counts(config)


def test_mask_of_another_size(make_folder: Make) -> None:
    config = make_folder()
    Image.fromarray(np.zeros((16, 12), dtype=np.uint8)).save(data_file(config, "ann_dir", "train", "0.png"))
    refused(config, "ann_dir/train/0.png", "16x12", "12x16")


def test_mask_in_colours(make_folder: Make) -> None:
    config = make_folder()
    Image.fromarray(np.zeros((12, 16, 3), dtype=np.uint8)).save(data_file(config, "ann_dir", "train", "0.png"))
    refused(config, "ann_dir/train/0.png", "RGB")


@pytest.mark.parametrize(
    ("file", "picture", "words"),
    [
        ("ann_dir/train/0.png", Image.new("L", (12, 16)), ["ann_dir/train/0.png", "16x12", "12x16"]),
        ("ann_dir/val/1.png", Image.new("RGB", (16, 12)), ["ann_dir/val/1.png", "mode RGB"]),
        ("ann_dir/val/1.png", Image.new("L", (16, 12), 40), ["ann_dir/val/1.png", "id 40 in 192 pixels", "0-1, 255"]),
    ],
)
def test_a_look_says_what_does_not_fit(make_folder: Make, file: str, picture: Image.Image, words: list[str]) -> None:
    config = make_folder()
    class_counts(config)
    picture.save(data_file(config, file))
    with pytest.raises(InputError) as refusal:
        class_counts(config)
    assert all(word in str(refusal.value) for word in words)


def test_a_mask_of_one_bit_has_the_ids_0_and_1(make_folder: Make) -> None:
    config = make_folder()
    Image.new("1", (16, 12), 1).save(data_file(config, "ann_dir/train/0.png"))
    class_counts(config)
    assert open_folder(config).read("train", 0).masks.max() == 1
    Image.new("L", (16, 12), 255).save(data_file(config, "ann_dir/train/0.png"))
    class_counts(config)


def test_what_fitted_is_not_read_again_by_any_training(make_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config, read = make_folder(), []
    check = FileSource._check
    monkeypatch.setattr(FileSource, "_check", lambda self, item: read.append(item.name) or check(self, item))
    class_counts(config)
    assert len(read) == 6
    class_counts(config)
    assert len(read) == 6
    monkeypatch.setattr("autoseg.__version__", "another, which may look for more")
    class_counts(config)
    assert len(read) == 12
    Image.new("L", (16, 12), 1).save(data_file(config, "ann_dir/train/0.png"))
    class_counts(config)
    assert len(read) == 18
    class_counts(replace(config, classes=["a", "b", "c"]))
    assert len(read) == 24


def test_classes_are_counted_in_the_training_masks_once(make_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_folder()
    source = open_folder(config)
    masks = torch.stack([torch.from_numpy(source.read("train", i).masks[0]) for i in range(len(source.names["train"]))])
    counts = class_counts(config)
    assert sum(counts.pixels) == int((masks != 255).sum())
    for scheme in ("inverse", "median"):
        counted = weights_of(torch.tensor(counts.pixels), torch.tensor(counts.around), scheme)
        assert counted.tolist() == class_weights(masks, scheme, len(config.classes)).tolist()
    monkeypatch.setattr(FileSource, "check", Mock(side_effect=AssertionError("read again")))
    assert class_counts(config) == counts


def test_classes_of_built_in_images_are_counted() -> None:
    counts = class_counts(DataConfig(count=[2, 1, 0]))
    drawn = BuiltinSource.from_config(DataConfig(count=[2, 1, 0]))
    shown = [drawn.read("train", i).masks[0] for i in range(2)]
    assert counts.pixels == [sum(int((mask == label).sum()) for mask in shown) for label in range(7)]
    assert counts.around[0] == sum(int((mask != 255).sum()) for mask in shown if (mask == 0).any())


@pytest.mark.parametrize("place", ["/proc/nowhere/run", "a file", None])
def test_files_are_checked_where_nothing_can_be_remembered(
    make_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str | None
) -> None:
    (tmp_path / "a file").write_text("", encoding="utf-8")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", Mock(side_effect=RuntimeError))  # as of a user id that has no name
    config = replace(make_folder(), cache_dir=place and str(tmp_path / place))
    class_counts(config)
    Image.new("L", (16, 12), 40).save(data_file(config, "ann_dir/train/0.png"))
    with pytest.raises(InputError, match="id 40"):
        class_counts(config)


def test_mask_of_16_bits(make_folder: Make) -> None:
    config = make_folder()
    Image.fromarray(np.zeros((12, 16), dtype=np.uint16)).save(data_file(config, "ann_dir", "train", "0.png"))
    refused(config, "ann_dir/train/0.png", "Save it with 8 bits")


def test_a_split_that_is_not_there_names_those_that_are(make_folder: Make) -> None:
    refused(replace(make_folder(), train_split="trian"), "img_dir/trian", "Splits in it: train, val;")


@pytest.mark.parametrize("folder", ["img_dir", "ann_dir"])
def test_file_that_is_no_image(make_folder: Make, folder: str) -> None:
    config = make_folder()
    path = data_file(config, folder, "train", "0.png")
    path.write_bytes(path.read_bytes()[:60])
    refused(config, f"{folder}/train/0.png", "readable image")


def test_a_program_named_as_an_image_is_not_run(make_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would have Ghostscript run PostScript."""
    config = make_folder()
    path = data_file(config, "img_dir", "train", "0.png")
    Image.new("RGB", (16, 12)).save(path, format="EPS")
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("it was run"))
    refused(config, "img_dir/train/0.png", "readable image")


def test_image_of_16_bits(make_folder: Make) -> None:
    config = make_folder()
    deep = Image.fromarray(np.full((12, 16), 40_000, dtype=np.uint16))
    deep.save(data_file(config, "img_dir", "train", "0.png"))
    refused(config, "img_dir/train/0.png", "8 bits")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"classes": []}, "data.classes"),
        ({"classes": ["one"]}, "data.classes"),
        ({"classes": ["one", "one"]}, "one more than once"),
        ({"palette": [[0, 0, 0]]}, "data.palette"),
        ({"ignore_index": 300}, "data.ignore_index"),
        ({"kind": "foldr"}, "Did you mean folder?"),
    ],
)
def test_settings_that_do_not_fit(make_folder: Make, change: dict[str, object], word: str) -> None:
    refused(replace(make_folder(), **change), word)  # type: ignore[arg-type]


def test_palette_masks_and_another_ignore_index(make_folder: Make) -> None:
    config = make_folder()
    for path in data_file(config, "ann_dir").rglob("*.png"):
        ids = np.zeros((12, 16), dtype=np.uint8)
        ids[0], ids[1] = 1, 9
        mask = Image.fromarray(ids)
        mask.putpalette([0, 0, 0, 255, 0, 0] + [0] * 762)
        mask.save(path)
    labels = open_data(replace(config, ignore_index=9), (12, 16)).labels("train")
    assert labels[0, :3, 0].tolist() == [1, 255, 0]


def test_folders_inside_a_split(make_folder: Make) -> None:
    config = make_folder()
    for folder in ("img_dir", "ann_dir"):
        data_file(config, folder, "train", "city").mkdir()
        data_file(config, folder, "train", "1.png").rename(data_file(config, folder, "train", "city", "1.png"))
    assert open_data(config, (12, 16)).names("train") == ["0", "2", "city/1"]


def test_hidden_files_are_no_part_of_the_data(make_folder: Make) -> None:
    config = make_folder()
    for folder in ("img_dir", "ann_dir"):
        data_file(config, folder, "train", "._0.png").write_bytes(b"what macOS keeps beside a file on a foreign disk")
        data_file(config, folder, "train", ".trash").mkdir()
        shutil.copy(data_file(config, folder, "train", "0.png"), data_file(config, folder, "train", ".trash", "9.png"))
    assert open_data(config, (12, 16)).names("train") == ["0", "1", "2"]
    assert lone_masks(config) == []


def test_a_set_that_ignores_no_id_of_a_byte_is_checked_too(make_folder: Make) -> None:
    """mmsegmentation's `ignore_index=-100` leaves no byte that is ignored."""
    source = open_folder(make_folder())
    train = {role: items for role, items in source.items.items() if role == "train"}
    FileSource(MaskCode(source.classes, np.arange(256, dtype=np.int16) % 2), source.palette, train).check()
    with pytest.raises(InputError, match="at least two of the 2 classes, got pixels of a alone"):
        FileSource(MaskCode(source.classes, np.zeros(256, dtype=np.int16)), source.palette, train).check()
