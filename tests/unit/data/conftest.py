from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autoseg.config import DataConfig


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., DataConfig]:
    """Writes a small folder data set (12x16, classes a, b, ignore 255) and returns its configuration."""

    def make(splits: tuple[str, ...] = ("train", "val"), count: int = 3, annotators: int = 0) -> DataConfig:
        rng = np.random.default_rng(0)
        root = tmp_path / "data"
        folders = ["ann_dir", *(f"rater{i}" for i in range(annotators))]
        for split in splits:
            for folder in ["img_dir", *folders]:
                (root / folder / split).mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
                Image.fromarray(image).save(root / "img_dir" / split / f"{i}.png")
                for folder in folders:
                    mask = rng.choice(np.array([0, 1, 255], dtype=np.uint8), (12, 16))
                    Image.fromarray(mask).save(root / folder / split / f"{i}.png")
        return DataConfig(
            name="small",
            kind="folder",
            root=str(root),
            classes=["a", "b"],
            annotator_dirs=folders[1:],
            cache_dir=str(tmp_path / "cache"),
        )

    return make
