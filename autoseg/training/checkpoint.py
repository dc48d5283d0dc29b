"""Reads files of torch and mmengine without executing any code in them."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from autoseg.errors import InputError, first_line

STATISTICS = ("min", "max", "mean", "current")


def _statistic(owner: Any, name: Any) -> Any:
    """Replace `getattr` in a checkpoint: mmengine's curves name their statistics by it; every other use is refused."""
    from mmengine.logging import HistoryBuffer

    if owner is HistoryBuffer and name in STATISTICS:
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f"it asks for {name!r} of {owner!r}")


@cache
def _harmless() -> list[Any]:
    """Return the types that mmengine stores in a checkpoint besides tensors and plain data: its curves, as numpy
    arrays.

    None of these runs code that the file chooses.
    """
    from mmengine.logging import HistoryBuffer  # here, since mmengine takes long to import
    from numpy._core.multiarray import _reconstruct, scalar

    return [
        HistoryBuffer, (_statistic, "builtins.getattr"), slice, np.ndarray, np.dtype, _reconstruct, scalar,
        (_reconstruct, "numpy.core.multiarray._reconstruct"), (scalar, "numpy.core.multiarray.scalar"),
        *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "uint32", "uint8", "bool")),
    ]  # fmt: skip


def read_pth(path: str | Path, field: str, map_location: Any = "cpu") -> Any:
    """Return the content of a file that torch or mmengine saved: weights alone, or a whole checkpoint.

    Args:
        path: a `.pth` file.
        field: the argument in which the user named it.
        map_location: as in `torch.load`.

    Raises:
        InputError: no such file, or one that holds anything but weights and plain data.
    """
    check_file(path, field)
    try:
        if _compressed(path):
            hint = "It could become larger than the memory: unpack it, or save it anew."
            raise InputError(field, "a file as torch.save writes it", f"{path}, which is compressed", hint)
        with torch.serialization.safe_globals(_harmless()), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's warning about the pickle's protocol
            return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # bytes that are no pickle end in anything: KeyError, IndexError, struct.error
        if isinstance(error, torch.OutOfMemoryError | InputError):
            raise
        hint = "It was not opened further: such a file could run code. Save the weights alone with torch.save."
        raise InputError(field, "weights and plain data", f"{path} ({_reason(error)})", hint) from error


def _compressed(path: str | Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as packed:
        return any(entry.compress_type != zipfile.ZIP_STORED for entry in packed.infolist())


def read_checkpoint(path: str | Path, field: str = "checkpoint", map_location: Any = "cpu") -> dict[str, Any]:
    """Return the content of a checkpoint that mmengine saved: weights, optimiser, schedule, logged curves.

    See `read_pth`.
    """
    content = read_pth(path, field, map_location)
    if not isinstance(content, Mapping):
        raise InputError(field, "a checkpoint", f"{path}, which holds something else")
    return dict(content)


@cache
def guard() -> None:
    """Make mmengine read every file that a config names as safely as this module does, from now on in this process.

    By itself, mmengine reads weights safely but, if that fails, unpickles any content; it unpickles `.pkl`, takes
    tags of YAML that call functions, and downloads what has an address.
    """
    from mmengine.fileio import BaseStorageBackend, register_backend
    from mmengine.fileio.handlers import PickleHandler, YamlHandler, register_handler
    from mmengine.runner import CheckpointLoader

    class Remote(BaseStorageBackend):
        def get(self, filepath: str) -> bytes:
            raise _not_here(filepath)

        get_text = get

    class Pickles(PickleHandler):
        def load_from_fileobj(self, file: Any, **options: Any) -> Any:
            del file, options
            hint = "It was not opened: such a file could run code. Save it as JSON."
            raise InputError("a file that a config names", "plain data", "a pickle", hint)

    class Yaml(YamlHandler):
        def load_from_fileobj(self, file: Any, **options: Any) -> Any:
            return super().load_from_fileobj(file, **{**options, "Loader": yaml.SafeLoader})

    register_backend("http", Remote, prefixes=["http", "https"], force=True)
    register_backend("petrel", Remote, prefixes=["petrel", "s3"], force=True)
    register_handler(["pkl", "pickle"])(Pickles)
    register_handler(["yaml", "yml"])(Yaml)
    addresses = [scheme for scheme in CheckpointLoader._schemes if scheme]
    CheckpointLoader.register_scheme("", loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(addresses, loader=_refuse, force=True)


def load_from_local(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Read a checkpoint for mmengine, which calls this and shows the part of the name after `load_from_` in its log."""
    path = Path(filename).expanduser()
    content = read_checkpoint(path, map_location=map_location)
    if isinstance(meta := content.get("meta"), dict):
        meta.pop("config", None)  # mmengine, which does not write it, runs it as Python
    hub = content.get("message_hub")
    if isinstance(known := hub.get("runtime_info") if isinstance(hub, dict) else None, dict):
        # Names of older checkpoints, which mmengine removes in time: none of another folder may be among them.
        steps = known.get("keep_ckpt_ids")
        known["keep_ckpt_ids"] = [step for step in steps if isinstance(step, int)] if isinstance(steps, list) else []
        for name in [name for name in known if str(name).startswith("best_ckpt")]:
            best = Path(str(known[name])).name
            ours = best.startswith("best_") and best.endswith(".pth")
            known[name] = str(path.parent / best) if ours else None
    return content


def _refuse(filename: str, map_location: Any = None) -> dict[str, Any]:
    del map_location
    raise _not_here(filename)


def _not_here(address: str) -> InputError:
    return InputError("a file that a config names", "a local file", address, "Nothing is downloaded here: fetch it.")


def check_file(path: str | Path, field: str) -> None:
    """Raise if a path is not a file.

    Raises:
        InputError: there is nothing of that name, or a folder.
    """
    if not Path(path).is_file():
        why = "is a folder" if Path(path).is_dir() else "does not exist"
        raise InputError(field, "a file of weights", f"{path}, which {why}")


def _reason(error: Exception) -> str:
    """Return why a file was refused, without torch's advice to open it all the same."""
    if isinstance(error, KeyError | IndexError | EOFError):
        return "no file of torch.save"
    said, first = str(error), first_line(error)
    if first.startswith("PytorchStreamReader") or isinstance(error, zipfile.BadZipFile):
        return "damaged or not complete"
    never = "Trying to load "  # begins torch's message about a module it never loads
    blocked = [line.removeprefix(never).rstrip(".") for line in said.splitlines() if line.startswith(never)]
    found = said.partition("WeightsUnpickler error: ")[2].strip().splitlines() or blocked
    return found[0].partition(" by default")[0] if found else first.partition(". In PyTorch")[0]


def last_checkpoint(work_dir: Path, field: str = "resume") -> Path:
    """Return the newest checkpoint of an mmengine work dir, which a file in it names.

    Raises:
        InputError: it has none.
    """
    note = work_dir / "last_checkpoint"
    named = Path(note.read_text(encoding="utf-8").strip()).name if note.is_file() else ""
    if not named or not (work_dir / named).is_file():
        hint = "The first is written after train.val_interval iterations."
        raise InputError(field, "a work dir with a checkpoint", f"{work_dir}, which has none", hint)
    return work_dir / named
