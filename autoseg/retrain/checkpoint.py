"""mmengine's checkpoints, read without executing anything that is in them.

mmengine reads weights safely and, where that fails, unpickles whatever the file holds. `install` takes its
reader's place, for every local file that is loaded in this process.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.runner import CheckpointLoader

from autoseg.errors import InputError
from autoseg.training.checkpoint import read_pth

REMOTE = ("http://", "https://", "modelzoo://", "torchvision://", "open-mmlab://", "openmmlab://", "mmcls://", "s3://")


def read_checkpoint(path: str | Path, field: str = "checkpoint", map_location: Any = "cpu") -> dict[str, Any]:
    """The content of a checkpoint that mmengine saved, see `read_pth`: weights, optimiser, schedule, logged curves."""
    content = read_pth(path, field, map_location)
    if not isinstance(content, Mapping):
        raise InputError(field, "a checkpoint", f"{path}, which holds something else")
    return dict(content)


def install() -> None:
    """Make `read_checkpoint` mmengine's reader of local files, and refuse addresses: nothing is downloaded."""
    CheckpointLoader.register_scheme("", loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(REMOTE, loader=_refuse, force=True)


def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Mmengine calls it, and names the part after `load_from_` in its log."""
    return read_checkpoint(Path(filename).expanduser(), map_location=map_location)


def _refuse(filename: str, map_location: Any = None) -> dict[str, Any]:
    del map_location
    raise InputError("checkpoint", "a local file", filename, "Nothing is downloaded here: fetch it first.")
