"""Class maps of a few images that a training saves, so that a report can show what a loss does.

They are pictures, not results: no score depends on them, a run without them is complete, and a full disk only loses
them. `RUN/predictions/seed-<n>/<loss>/<split>-<row>.png` is an 8-bit mask, the pixel's value is its predicted class.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.files import replacing
from autoseg.store.run_folder import slug

FOLDER = "predictions"
IMAGES = 6  # evenly spaced among those that were scored
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeepPredictions:
    """Selects the trainings that save predictions: those with one seed, so that losses can be compared side by side."""

    run: str  # the run folder
    seed: int  # the seed of these trainings

    def changes(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return what makes a payload's training save its predictions in the run folder; empty for other seeds."""
        kept = payload["seed"] == self.seed
        return {"predictions": str(predictions_folder(Path(self.run), payload))} if kept else {}


def predictions_folder(run: Path, payload: Mapping[str, Any]) -> Path:
    """Return the folder of one training's predictions; `payload` is that of its record."""
    what = payload["loss"] if "loss" in payload else payload["theta"]
    digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:8]
    name = slug(what)[:60] if isinstance(what, str) else "theta"
    return run / FOLDER / f"seed-{payload['seed']}" / f"{name}-{digest}"


def save_predictions(maps: Mapping[int, Any], split: str, folder: Path) -> None:
    """Write class maps; if the disk refuses them, only the log says so.

    Args:
        maps: from the row in the split to its (H, W) uint8 array of classes.
        split: "train", "val" or "test".
        folder: created if missing.
    """
    from PIL import Image

    try:
        for row, classes in maps.items():
            with replacing(folder / f"{split}-{row:06d}.png") as draft:
                Image.fromarray(classes, mode="L").save(draft, format="png")
    except OSError as error:
        logger.warning("predictions were not kept in %s: %s", folder, error)


def saved_predictions(folder: Path) -> dict[tuple[str, int], Path]:
    """Return the file of every prediction in a folder by (split, row), sorted; empty if there is none."""
    found = {}
    for path in sorted(folder.glob("*-*.png")):
        split, _, row = path.stem.rpartition("-")
        if row.isdigit() and not split.startswith("."):
            found[split, int(row)] = path
    return found
