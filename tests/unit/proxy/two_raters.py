"""A proxy task on a folder of images that two people have labelled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from tiny_network import TINY

from autoseg.config import DataConfig, ModelConfig, ProxyConfig
from autoseg.proxy.task import ProxyTask

PROXY = ProxyConfig(iters=3, batch_size=2, crop=32, size=[32, 48])
METRICS = ("miou", "ece", "sce", "f1", "miou_i_q10")


def two_raters(root: Path) -> ProxyTask:
    """Two classes, two annotators who disagree at the right border of a square."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for i in range(count):
            name, mask = f"{i}.png", np.zeros((32, 48), np.uint8)
            mask[8:24, 8 + i : 24 + i] = 1
            wider = mask.copy()
            wider[8:24, 24 + i : 28 + i] = 1
            image = (60 + 120 * mask[..., None] + rng.integers(0, 40, (32, 48, 3))).astype(np.uint8)
            for folder, pixels in (("img_dir", image), ("ann_dir", mask), ("one", mask), ("two", wider)):
                (root / folder / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / folder / split / name)
    data = DataConfig(
        kind="folder", root=str(root), classes=["ground", "square"], annotator_dirs=["one", "two"],
        test_split=None, holdout=0.34, cache_dir=str(root / "cache"),
    )  # fmt: skip
    return ProxyTask(data, ModelConfig(overrides=TINY), PROXY, METRICS, tolerance=2)
