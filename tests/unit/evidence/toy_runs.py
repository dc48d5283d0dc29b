"""Runs to report, made in a second: real folders, ledgers and cards around a training that only adds up numbers."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

import autoseg
from autoseg.config import CompareConfig, DataConfig, SpaceConfig
from autoseg.data import open_data
from autoseg.errors import Diverged
from autoseg.evidence.comparison import made_with
from autoseg.evidence.comparison.compare import ComparisonTask, parse_seeds, run_comparison
from autoseg.evidence.comparison.contenders import Recipe, contenders, keep_cards
from autoseg.execution import InlineExecutor
from autoseg.losses import save_loss
from autoseg.proxy import predictions
from autoseg.search.observer import Observer
from autoseg.store.run_folder import RunFolder
from autoseg.surrogates import SurrogateLoss

EVIL = "<script>alert(1)</script>"
CLASSES = ("road", EVIL, "a & b")
RECIPE = Recipe(num_classes=3, options={"tolerance": 3, "drop_background": False})
SIZE = (48, 64)
LEVEL = {"CrossEntropy": 0.4, "Lovasz": 0.5, "SurrogateLoss": 0.55}


def scores(loss: nn.Module, seed: int) -> dict[str, float]:
    """What a training of this loss and seed comes to."""
    theta = getattr(loss, "theta", np.zeros(1))
    own = LEVEL[type(loss).__name__] + 0.05 * float(theta.mean()) + math.sin(37.0 * seed + 9 * theta.sum()) / 100
    miou = own + math.sin(seed) / 20
    return {"miou": miou, "biou": miou - 0.1, **{f"miou/{name}": miou for name in CLASSES}}


def train(loss: nn.Module, seed: int, device: str) -> dict[str, float]:
    return {name: value for name, value in scores(loss, seed).items() if "/" not in name}


class Fragile:
    """Diverges at its second training; interrupted before its `last`."""

    def __init__(self, last: int | None = None) -> None:
        self.count, self.last = 0, last

    def __call__(self, loss: nn.Module, seed: int, device: str) -> dict[str, float]:
        self.count += 1
        if self.count == self.last:
            raise KeyboardInterrupt
        if self.count == 2:
            raise Diverged(f"nan of {EVIL}")
        return train(loss, seed, device)


def search(path: Path, task: Any = None, **changes: Any) -> None:
    """A search of two rounds with a confirmation, in this process."""
    options = {"rounds": 2, "candidates": 3, "confirm_seeds": 2, "confirm_top": 1, "tolerance": 3}
    options |= {"rivals": ["identity", "ce", "lovasz"], **changes}
    if task is None:
        task = train
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as that a rival is better
        autoseg.search("miou", train=task, num_classes=3, run_dir=path, inline=True, **options)


def compare(path: Path, seeds: int = 5, last: int | None = None, predictions: bool = True) -> None:
    """A comparison of three losses on builtin data, with made-up scores and predictions."""
    count = 0

    def toy(loss: nn.Module, seed: int, device: str) -> dict[str, float]:
        nonlocal count
        count += 1
        if count == last:
            raise KeyboardInterrupt
        return scores(loss, seed)

    path.mkdir()
    card = path.with_suffix(".json")
    save_loss(SurrogateLoss.from_theta("miou", [0.3] * SurrogateLoss("miou", 3).space.dim, 3), card)
    among = contenders(["ce", "lovasz", str(card)], ["miou"])
    data = DataConfig(count=[6, 3, 4], cache_dir=str(path.parent / "cache"))
    config = CompareConfig([c.kept for c in among], ["miou", "biou"], seeds, data=data, space=SpaceConfig("default"))
    config.proxy.size = list(SIZE)
    opened = open_data(data, SIZE)
    fixed = {"data": opened.fingerprint, "split": "test", "tolerance": 3, "drop_background": False, "proxy.iters": 3}
    with RunFolder.create(path, asdict(config), fixed) as folder:
        made_with.note(folder, fixed, {})
        executor = InlineExecutor(ComparisonTask(keep_cards(among, path), RECIPE, toy))
        run_comparison(folder, among, parse_seeds(seeds), "miou", executor, Observer())
    if predictions:
        leave_predictions(path, [c.name for c in among], parse_seeds(seeds)[0], opened.labels("test").numpy())


def leave_predictions(path: Path, names: list[str], seed: int, truth: np.ndarray) -> None:
    """Each loss is right but for a square, at another place for each."""
    for place, name in enumerate(names):
        maps = {}
        for row in range(2):
            classes = np.where(truth[row] == 255, 0, truth[row]).astype(np.uint8)
            classes[4 + 8 * place : 14 + 8 * place, 6:20] = 2
            maps[row] = classes
        predictions.save_predictions(maps, "test", predictions.predictions_folder(path, {"loss": name, "seed": seed}))
