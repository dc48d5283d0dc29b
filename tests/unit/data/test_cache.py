from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from autoseg.config import DataConfig
from autoseg.data import SegData, cache, open_data, progress, vote_shares
from autoseg.data.cache import fit, prepared_bytes
from autoseg.data.folder import open_folder
from autoseg.data.source import Sample
from autoseg.errors import InputError

Make = Callable[..., DataConfig]


def test_pixels_come_back_as_they_were(make_folder: Make) -> None:
    config = make_folder(splits=("train", "val", "test"))
    data = open_data(config, (12, 16))
    assert (data.splits, data.classes, data.num_classes) == (["train", "val", "test"], ["a", "b"], 2)
    root = Path(str(config.root))
    for i, name in enumerate(data.names("test")):
        image = np.asarray(Image.open(root / "img_dir" / "test" / f"{name}.png"))
        mask = np.asarray(Image.open(root / "ann_dir" / "test" / f"{name}.png"))
        np.testing.assert_array_equal(data.images("test")[i].permute(1, 2, 0).numpy(), image)
        np.testing.assert_array_equal(data.labels("test")[i].numpy(), mask)


def test_what_is_image_and_what_is_padding_is_kept(make_folder: Make) -> None:
    config = make_folder(splits=("train", "val", "test"))
    root = Path(str(config.root))
    for kind, shape in (("img_dir", (12, 8, 3)), ("ann_dir", (12, 8))):
        Image.fromarray(np.zeros(shape, dtype=np.uint8)).save(root / kind / "val" / "1.png")
    data = open_data(config, (12, 16))
    assert data.sizes("train").tolist() == [[12, 16]] * 3
    assert data.sizes("val").tolist() == [[12, 16], [12, 8], [12, 16]]
    assert (data.labels("val")[1, :, 8:] == 255).all() and (data.labels("val")[1, :, :8] == 0).all()


def test_second_time_nothing_is_decoded(make_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_folder()
    first = open_data(config, (12, 16))
    monkeypatch.setattr(cache, "fit", None)
    assert open_data(config, (12, 16)).fingerprint == first.fingerprint


def test_preparing_or_checking_that_takes_long_says_how_far_it_is(
    make_folder: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_folder()
    open_data(config, (12, 16))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "QUIET_S", 0.0)
    open_data(config, (6, 8))
    assert capsys.readouterr().err.splitlines()[-1] == "Preparing images, once for this size: 6 of 6"
    open_folder(config).check()
    assert capsys.readouterr().err.splitlines() == [f"Checking images and masks: {i} of 6" for i in range(1, 7)]


def test_interrupted_preparing_ends_at_once_and_leaves_nothing(
    make_folder: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, read = make_folder(count=400), []

    def stop(sample: Sample, size: tuple[int, int]) -> object:
        read.append(sample)
        if len(read) == 5:
            raise KeyboardInterrupt
        return fit(sample, size)

    monkeypatch.setattr(cache, "fit", stop)
    with pytest.raises(KeyboardInterrupt):
        cache.cache_file(open_folder(config), "small", (12, 16), config.cache_dir)
    assert len(read) < 100
    assert [path.suffix for path in Path(str(config.cache_dir)).iterdir()] in ([], [".lock"])


def test_without_a_home_folder_the_key_is_named(make_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")  # of a user id that the system does not know

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(cache.Path, "home", nobody)
    with pytest.raises(InputError, match=r"data\.cache_dir"):
        open_data(replace(make_folder(), cache_dir=None), (12, 16))


def test_changed_file_makes_a_new_cache_and_fingerprint(make_folder: Make) -> None:
    config = make_folder()
    first = open_data(config, (12, 16))
    path = Path(str(config.root)) / "ann_dir" / "train" / "0.png"
    Image.fromarray(np.ones((12, 16), dtype=np.uint8)).save(path)
    second = open_data(config, (12, 16))
    assert second.path != first.path
    assert second.fingerprint != first.fingerprint


def test_fingerprint_is_of_the_content_alone(make_folder: Make) -> None:
    config = make_folder()
    first = open_data(config, (12, 16))
    os.utime(Path(str(config.root)) / "img_dir" / "train" / "0.png", (1, 1))
    second = open_data(config, (12, 16))
    assert second.path != first.path
    assert second.fingerprint == first.fingerprint
    assert open_data(config, (6, 8)).fingerprint != first.fingerprint
    assert open_data(replace(config, classes=["a", "c"]), (12, 16)).fingerprint != first.fingerprint


@pytest.mark.parametrize("change", [{"ignore_index": 1}, {"palette": [[0, 0, 0], [9, 9, 9]]}])
def test_what_ids_mean_and_look_like_is_part_of_a_cache(make_folder: Make, change: dict[str, Any]) -> None:
    """Its labels are read already: with another void id they would be the old ones."""
    config = make_folder()
    sources = (open_folder(config), open_folder(replace(config, **change)))
    assert len({cache.cache_path(source, "small", (12, 16), None) for source in sources}) == 2


def test_what_is_padding_is_part_of_the_fingerprint(make_folder: Make) -> None:
    config, prints = make_folder(), set()
    for width in (8, 16):  # to the same pixels
        pictures = {
            "img_dir": Image.new("RGB", (width, 12), cache.PAD_RGB),
            "ann_dir": Image.new("L", (width, 12), 255),
        }
        for kind, picture in pictures.items():
            picture.save(Path(str(config.root)) / kind / "val" / "1.png")
        prints.add(open_data(config, (12, 16)).fingerprint)
    assert len(prints) == 2


def test_openers_at_the_same_time_share_one_file(make_folder: Make) -> None:
    config = make_folder(count=8)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: open_data(config, (12, 16)).fingerprint, range(4)))
    assert len(set(found)) == 1
    assert len(list(Path(str(config.cache_dir)).glob("*.safetensors"))) == 1


def test_tensors_are_mapped_and_the_file_is_never_changed(make_folder: Make) -> None:
    data = open_data(make_folder(), (12, 16))
    before = data.path.read_bytes()
    data.images("train").zero_()  # a private copy of the pages, not the file
    assert data.path.read_bytes() == before


def test_data_crosses_processes_as_a_path(make_folder: Make) -> None:
    data = open_data(make_folder(), (12, 16))
    payload = pickle.dumps(data)
    assert len(payload) < 400
    copy = pickle.loads(payload)
    assert isinstance(copy, SegData)
    assert torch.equal(copy.images("val"), data.images("val"))


def test_damaged_cache_is_made_again(make_folder: Make) -> None:
    config = make_folder()
    path = open_data(config, (12, 16)).path
    damaged = [path.read_bytes()[:100]]
    for said in (None, {"other": ""}, {"autoseg": "no JSON"}, {"autoseg": "[]"}, {"autoseg": "{}"}):
        save_file({"train.images": torch.zeros(1)}, path, said)
        damaged.append(path.read_bytes())
    for content in damaged:
        path.unlink()
        path.write_bytes(content)
        assert open_data(config, (12, 16)).images("train").shape == (3, 3, 12, 16)


def test_full_disk_is_said_before_decoding(make_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_folder()
    usage = type("Usage", (), {"free": 10**11})
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"images, 240\.0 GB for 6 images at 100000x100000, got 100\.0 GB free"):
        open_data(config, (100_000, 100_000))


def test_what_prepared_images_take_is_known_beforehand(make_folder: Make) -> None:
    config = make_folder(annotators=2)
    path = open_data(config, (12, 16)).path
    pixels = 6 * 12 * 16
    assert prepared_bytes(open_folder(config), (12, 16)) == pixels * (3 + 1 + 2) + 6 * 2 * 4
    assert 0 < path.stat().st_size - prepared_bytes(open_folder(config), (12, 16)) < 10_000  # names and classes


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a file on a full disk")
def test_disk_that_fills_up_leaves_nothing(make_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_folder()
    path = open_data(config, (12, 16)).path
    path.unlink()
    opened = Path.open

    def full_disk(file: Path, mode: str = "r", *options: Any, **more: Any) -> Any:
        if file.suffix == ".tmp" and mode == "wb":
            file.symlink_to("/dev/full")
        return opened(file, mode, *options, **more)

    monkeypatch.setattr(Path, "open", full_disk)
    full = r"prepared images, 0\.0 GB for 6 images at 16x12, got '.*' and .* GB free\. .*data\.cache_dir"
    with pytest.raises(InputError, match=full):
        open_data(config, (12, 16))
    assert {left.suffix for left in path.parent.iterdir()} == {".lock"}


def test_cache_folder_that_cannot_be_made(make_folder: Make, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="a folder that can be written"):
        open_data(replace(make_folder(), cache_dir=str(tmp_path / "file")), (12, 16))


def test_default_folder_follows_xdg(make_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    data = open_data(replace(make_folder(), cache_dir=None, name="a/b c"), (12, 16))
    assert data.path.parent == tmp_path / "xdg" / "autoseg"
    assert data.path.name.startswith("a-b-c-12x16-")


@pytest.mark.parametrize("size", [(0, 16), (16,), (16, 16, 16)])
def test_size_is_a_positive_height_and_width(make_folder: Make, size: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"proxy\.size"):
        open_data(make_folder(), size)


def test_unknown_split_names_the_known_ones(make_folder: Make) -> None:
    data = open_data(make_folder(), (12, 16))
    with pytest.raises(InputError, match=r"Did you mean train\?"):
        data.labels("trian")
    with pytest.raises(InputError, match="one label per image"):
        data.raters("train")


def test_fit_keeps_the_aspect_and_pads_with_ignore() -> None:
    sample = Sample(np.full((20, 10, 3), 200, dtype=np.uint8), np.ones((1, 20, 10), dtype=np.uint8))
    image, masks, inner = fit(sample, (10, 12))
    assert image.shape == (3, 10, 12) and inner == (10, 5)
    assert (image[:, :, :5] == 200).all()
    assert image[:, 0, 5:].T.tolist() == [list(cache.PAD_RGB)] * 7
    assert (masks[0, :, :5] == 1).all()
    assert (masks[0, :, 5:] == 255).all()


@pytest.mark.parametrize("size", [(1, 400), (400, 1)])
def test_fit_leaves_a_line_of_pixels_one_wide(size: tuple[int, int]) -> None:
    line = Sample(np.zeros((*size, 3), dtype=np.uint8), np.zeros((1, *size), dtype=np.uint8))
    assert fit(line, (10, 10))[2] == (min(size[0], 10), min(size[1], 10))


def test_fit_averages_colours_instead_of_picking_some() -> None:
    stripes = np.zeros((20, 20, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    image, _, _ = fit(Sample(stripes, np.zeros((1, 20, 20), dtype=np.uint8)), (10, 10))
    assert abs(image[:, :, 1:-1].astype(int) - 100).max() <= 1


def test_fit_never_mixes_ids() -> None:
    mask = np.random.default_rng(0).choice(np.array([0, 6, 255], dtype=np.uint8), (1, 33, 47))
    _, masks, _ = fit(Sample(np.zeros((33, 47, 3), dtype=np.uint8), mask), (20, 30))
    assert set(np.unique(masks)) == {0, 6, 255}


def test_annotators_become_a_soft_label(make_folder: Make) -> None:
    data = open_data(make_folder(annotators=3), (12, 16))
    raters = data.raters("train")
    assert raters.shape == (3, 3, 12, 16)
    soft = vote_shares(raters, data.num_classes)
    counted = (raters != 255).any(1)
    torch.testing.assert_close(soft.sum(1), counted.float())
    torch.testing.assert_close(vote_shares(raters[2:], data.num_classes), soft[2:])


def test_soft_label_by_hand() -> None:
    raters = torch.tensor([0, 1, 1, 255, 255], dtype=torch.uint8).view(1, 5, 1, 1)
    torch.testing.assert_close(vote_shares(raters, 2).flatten(), torch.tensor([1 / 3, 2 / 3]))
    assert vote_shares(torch.full((1, 5, 1, 1), 255, dtype=torch.uint8), 2).sum() == 0
