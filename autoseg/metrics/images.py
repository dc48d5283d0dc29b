"""The contribution of each image to a score, stored so that statistics can be taken over images as well as over
seeds.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import torch

from autoseg.errors import InputError
from autoseg.files import GB, replacing
from autoseg.metrics.base import Sums

INDEX = "index"
# Bytes in a file of counts: 12,000 images of 900 classes have 1.7 GB. A small file can inflate to any size.
LARGEST = 2 * GB
UNREADABLE = (  # errors from a file that is not one of ours
    OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, MemoryError, RuntimeError, zipfile.BadZipFile,
)  # fmt: skip
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the methods we use; others are fully inflated before reading


def save_parts(path: Path, parts: Mapping[str, Sums]) -> None:
    """Write parts by metric to a compressed .npz, completely or not at all.

    Arrays that several metrics share are written once.

    Args:
        path: the file; its folder is created.
        parts: {metric: {total: (N, ...)}}.
    """
    arrays: dict[str, np.ndarray] = {}
    index: dict[str, dict[str, str]] = {}
    known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
    for metric, sums in parts.items():
        index[metric] = {}
        for name, part in sums.items():
            array = part.numpy()
            key = known.setdefault((str(array.dtype), array.shape, array.tobytes()), f"a{len(known)}")
            arrays[key] = array
            index[metric][name] = key
    arrays[INDEX] = np.frombuffer(json.dumps(index).encode(), dtype=np.uint8)
    with replacing(path) as draft, open(draft, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load_parts(path: Path, only: Collection[str] | None = None) -> dict[str, Sums]:
    """Read a file of `save_parts`, only the metrics in `only` if given; no code in the file is executed.

    Raises:
        InputError: no such file, another one, or one that inflates to more than `LARGEST`.
    """
    try:
        _check_size(path)
        with np.load(path, allow_pickle=False) as file:
            index = json.loads(file[INDEX].tobytes())
            return {
                metric: {name: torch.from_numpy(file[key]) for name, key in keys.items()}
                for metric, keys in index.items()
                if only is None or metric in only
            }
    except UNREADABLE as error:
        raise InputError("counts by image", "a file that a comparison wrote", f"{path} ({error})") from error


def _check_size(path: Path) -> None:
    """Raise if a path is not a file, or inflates to more than counts take.

    Raises:
        OSError: not a file.
        ValueError: it is too large.
    """
    if path.exists() and not path.is_file():
        raise OSError("not a file")
    with zipfile.ZipFile(path) as file:
        parts = file.infolist()
    if (size := sum(part.file_size for part in parts)) > LARGEST:
        raise ValueError(f"{size / GB:.1f} GB once inflated, of at most {LARGEST / GB:.0f}")
    if any(part.compress_type not in PACKED for part in parts):
        raise ValueError("compressed in another way")
