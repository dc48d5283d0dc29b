"""The presets of configs/data fit their schema, and those of the real data open it where it is at hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from autoseg.config import DataConfig
from autoseg.data import open_data, vote_shares

PRESETS = sorted((Path(__file__).resolve().parents[3] / "configs" / "data").glob("*.yaml"))


def load(path: Path, **changes: object) -> DataConfig:
    merged = OmegaConf.merge(OmegaConf.structured(DataConfig), OmegaConf.load(path), changes)
    config = OmegaConf.to_object(merged)
    assert isinstance(config, DataConfig)
    return config


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_preset_fits_the_schema(path: Path) -> None:
    config = load(path)
    assert config.name == path.stem
    assert len(config.palette) in (0, len(config.classes))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "counts", "classes"),
    [("camvid", [367, 101, 233], 11), ("crackforest", [94, 24], 2), ("bsds500", [66, 34], 2)],
)
def test_real_data_opens(shared_data: Path, tmp_path: Path, name: str, counts: list[int], classes: int) -> None:
    folder = shared_data / ("bsds500_boundary" if name == "bsds500" else name)
    path = next(path for path in PRESETS if path.stem == name)
    data = open_data(load(path, root=str(folder), cache_dir=str(tmp_path)), (45, 60))
    assert [len(data.images(split)) for split in data.splits] == counts
    assert data.num_classes == classes
    assert set(data.labels("train").unique().tolist()) <= {*range(classes), 255}
    if name == "bsds500":
        soft = vote_shares(data.raters("val"), classes)
        assert set((soft[:, 1].unique() * 5).round().int().tolist()) == {0, 1, 2, 3, 4, 5}
        torch.testing.assert_close(soft.sum(1), (data.labels("val") != 255).float())
