from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from autoseg.config import DataConfig
from autoseg.data import open_data

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "scripts"))
import prepare_data


def camvid_clone(root: Path) -> Path:
    for split in ("train", "val", "test"):
        for folder, shape in ((split, (6, 8, 3)), (f"{split}annot", (6, 8))):
            (root / "CamVid" / folder).mkdir(parents=True)
            Image.fromarray(np.full(shape, 11, dtype=np.uint8)).save(root / "CamVid" / folder / "f_1.png")
    return root


def crackforest_clone(root: Path) -> Path:
    (root / "image").mkdir(parents=True)
    (root / "groundTruth").mkdir()
    for i in range(1, 9):
        Image.fromarray(np.full((6, 8, 3), i, dtype=np.uint8)).save(root / "image" / f"{i:03d}.jpg")
        if i < 8:  # the last image has no ground truth
            regions = np.ones((6, 8), dtype=np.uint16)
            regions[0, :3] = [2, 3, 4]
            truth = {"Segmentation": regions, "Boundaries": regions == 2}
            savemat(root / "groundTruth" / f"{i:03d}.mat", {"groundTruth": truth})
    return root


def test_camvid(tmp_path: Path) -> None:
    clone = camvid_clone(tmp_path / "clone")
    assert prepare_data.main(["camvid", str(tmp_path / "out"), "--source", str(clone)]) == 0
    config = DataConfig(kind="folder", root=str(tmp_path / "out"), classes=["a", "b"], cache_dir=str(tmp_path))
    data = open_data(config, (6, 8))
    assert data.splits == ["train", "val", "test"]
    assert (data.labels("test") == 255).all()
    assert (data.images("test") == 11).all()


def test_crackforest(tmp_path: Path) -> None:
    clone = crackforest_clone(tmp_path / "clone")
    out = tmp_path / "out"
    assert prepare_data.main(["crackforest", str(out), "--source", str(clone)]) == 0
    assert sorted(path.stem for path in (out / "img_dir" / "val").iterdir()) == ["001", "006"]
    assert len(list((out / "img_dir" / "train").iterdir())) == 5
    mask = np.asarray(Image.open(out / "ann_dir" / "train" / "002.png"))
    assert mask[0, :4].tolist() == [1, 0, 1, 0]
    assert (out / "img_dir/val/001.jpg").read_bytes() == (clone / "image/001.jpg").read_bytes()


@pytest.mark.parametrize("name", ["camvid", "crackforest"])
def test_incomplete_clone_leaves_nothing(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    clone = tmp_path / "clone"
    camvid_clone(clone)
    crackforest_clone(clone)
    (clone / "CamVid" / "valannot" / "f_1.png").unlink()
    (clone / "image" / "003.jpg").unlink()
    assert prepare_data.main([name, str(tmp_path / "out"), "--source", str(clone)]) == 2
    assert "Clone the repository again" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["clone"]


def test_existing_folder_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clone = camvid_clone(tmp_path / "clone")
    assert prepare_data.main(["camvid", str(clone), "--source", str(clone)]) == 2
    assert "does not exist yet" in capsys.readouterr().err


def test_split_rule_gives_the_prepared_copy(shared_data: Path, tmp_path: Path) -> None:
    prepared = shared_data / "crackforest" / "img_dir"
    (tmp_path / "groundTruth").mkdir()
    (tmp_path / "image").mkdir()
    for path in prepared.glob("*/*.jpg"):
        (tmp_path / "image" / path.name).symlink_to(path.resolve())
        truth = {"Segmentation": np.ones((2, 2), dtype=np.uint16)}
        savemat(tmp_path / "groundTruth" / f"{path.stem}.mat", {"groundTruth": truth})
    made = {(pair.split, pair.image.name) for pair in prepare_data.crackforest(tmp_path)}
    assert made == {(path.parent.name, path.name) for path in prepared.glob("*/*.jpg")}
