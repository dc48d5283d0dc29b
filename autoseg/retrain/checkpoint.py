"""mmengine's checkpoints, read without executing anything that is in them.

mmengine reads weights safely and, where that fails, unpickles whatever the file holds. `install` takes its
reader's place, for every local file that is loaded in this process.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader
from numpy._core.multiarray import _reconstruct, scalar
from torch import Tensor, nn

from autoseg.errors import InputError
from autoseg.training.weights import read_tensors

STATISTICS = ("min", "max", "mean", "current")
REMOTE = ("http://", "https://", "modelzoo://", "torchvision://", "open-mmlab://", "openmmlab://", "mmcls://", "s3://")


def _statistic(owner: Any, name: Any) -> Any:
    """Stands for `getattr` in a checkpoint: mmengine's curves name their statistics by it, and nothing else may."""
    if owner is HistoryBuffer and name in STATISTICS:
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f"it asks for {name!r} of {owner!r}")


# Beside tensors and plain data, what mmengine itself puts into a checkpoint: the curves it logs, as numpy arrays.
# None of these runs code of the file's choosing.
HARMLESS: list[Any] = [
    HistoryBuffer, (_statistic, "builtins.getattr"), slice, np.ndarray, np.dtype, _reconstruct, scalar,
    (_reconstruct, "numpy.core.multiarray._reconstruct"), (scalar, "numpy.core.multiarray.scalar"),
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "uint32", "uint8", "bool")),
]  # fmt: skip


def read_checkpoint(path: str | Path, field: str = "checkpoint", map_location: Any = "cpu") -> dict[str, Any]:
    """The content of a checkpoint that mmengine saved: weights, optimiser, schedule, logged curves.

    Args:
        path: a `.pth` file.
        field: where the user named it.
        map_location: as in `torch.load`.

    Raises:
        InputError: no such file, or one that holds anything but weights and plain data.
    """
    if not Path(path).is_file():
        raise InputError(field, "a file of weights", f"{path}, which does not exist")
    try:
        with torch.serialization.safe_globals(HARMLESS):
            content = torch.load(path, map_location=map_location, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError, AttributeError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        hint = "It was not opened further: such a file could run code. Save the weights alone with torch.save."
        raise InputError(field, "a checkpoint of weights and plain data", f"{path} ({reason})", hint) from error
    if not isinstance(content, Mapping):
        raise InputError(field, "a checkpoint", f"{path}, which holds something else")
    return dict(content)


def network_weights(path: str, field: str) -> dict[str, Tensor]:
    """The weights of a whole network by name: a checkpoint of mmengine's, a state dict, or `.safetensors`.

    Raises:
        InputError: as `read_checkpoint`, or something else than tensors.
    """
    if path.endswith(".safetensors"):
        return read_tensors(path, field)
    content = read_checkpoint(path, field)
    state = content.get("state_dict", content)
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(field, "weights: tensors by name", f"{path}, which holds something else")
    return dict(state)


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


def last_checkpoint(work_dir: Path) -> Path:
    """The newest checkpoint of a work dir.

    Raises:
        InputError: it has none.
    """
    note = work_dir / "last_checkpoint"
    named = Path(note.read_text(encoding="utf-8").strip()).name if note.is_file() else ""
    if not named or not (work_dir / named).is_file():
        hint = "The first is written after train.val_interval iterations; start anew with another run_dir."
        raise InputError("resume", "a work dir with a checkpoint", f"{work_dir}, which has none", hint)
    return work_dir / named


def check_fit(network: nn.Module, state: Mapping[str, Tensor], path: str | Path, field: str) -> None:
    """Refuse weights that are not those of this network; mmengine itself would skip what does not fit.

    Raises:
        InputError: names are missing or left over, or shapes differ.
    """
    wanted = network.state_dict()
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    unknown = [key for key in state if key not in wanted]
    shapes = [key for key in state if key in wanted and state[key].shape != wanted[key].shape]
    problems = {"missing": missing, "not in the network": unknown, "of another shape": shapes}
    said = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', …' * (len(keys) > 3)})"
        for what, keys in problems.items()
        if keys
    ]
    if said:
        hint = "Check that the model and the number of classes are the same."
        raise InputError(field, "the weights of this network", f"{path} with {'; '.join(said)}", hint)
