"""Files of torch and mmengine, read without executing anything that is in them."""

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
    """Stands for `getattr` in a checkpoint: mmengine's curves name their statistics by it, and nothing else may."""
    from mmengine.logging import HistoryBuffer

    if owner is HistoryBuffer and name in STATISTICS:
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f"it asks for {name!r} of {owner!r}")


@cache
def _harmless() -> list[Any]:
    """Beside tensors and plain data, what mmengine itself puts into a checkpoint: its curves, as numpy arrays.

    None of these runs code of the file's choosing.
    """
    from mmengine.logging import HistoryBuffer  # here, since mmengine takes long to import
    from numpy._core.multiarray import _reconstruct, scalar

    return [
        HistoryBuffer, (_statistic, "builtins.getattr"), slice, np.ndarray, np.dtype, _reconstruct, scalar,
        (_reconstruct, "numpy.core.multiarray._reconstruct"), (scalar, "numpy.core.multiarray.scalar"),
        *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "uint32", "uint8", "bool")),
    ]  # fmt: skip


def read_pth(path: str | Path, field: str, map_location: Any = "cpu") -> Any:
    """The content of a file that torch or mmengine saved: weights alone, or a checkpoint with all that goes with it.

    Args:
        path: a `.pth` file.
        field: where the user named it.
        map_location: as in `torch.load`.

    Raises:
        InputError: no such file, or one that holds anything but weights and plain data.
    """
    check_file(path, field)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in packed.infolist()):
                hint = "It could become larger than the memory: unpack it, or save it anew."
                raise InputError(field, "a file as torch.save writes it", f"{path}, which is compressed", hint)
    try:
        with torch.serialization.safe_globals(_harmless()), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of torch, about the pickle's protocol
            return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # bytes that are no pickle end in anything: KeyError, IndexError, struct.error
        if isinstance(error, torch.OutOfMemoryError):
            raise
        hint = "It was not opened further: such a file could run code. Save the weights alone with torch.save."
        raise InputError(field, "weights and plain data", f"{path} ({_reason(error)})", hint) from error


def read_checkpoint(path: str | Path, field: str = "checkpoint", map_location: Any = "cpu") -> dict[str, Any]:
    """The content of a checkpoint that mmengine saved, see `read_pth`: weights, optimiser, schedule, logged curves."""
    content = read_pth(path, field, map_location)
    if not isinstance(content, Mapping):
        raise InputError(field, "a checkpoint", f"{path}, which holds something else")
    return dict(content)


@cache
def guard() -> None:
    """Have mmengine read files as we do, in this process from now on, wherever a config names one.

    It reads weights safely and, where that fails, unpickles whatever the file holds; it unpickles `.pkl`, and takes
    tags of YAML that call functions. And it downloads what has an address.
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
    """Mmengine calls it, and names the part after `load_from_` in its log."""
    path = Path(filename).expanduser()
    content = read_checkpoint(path, map_location=map_location)
    if isinstance(meta := content.get("meta"), dict):
        meta.pop("config", None)  # mmengine, which does not write it, runs it as Python
    hub = content.get("message_hub")
    if isinstance(known := hub.get("runtime_info") if isinstance(hub, dict) else None, dict):
        # Names of older checkpoints, which it removes in time: of no other folder's.
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
    """Refuse what is no file.

    Raises:
        InputError: there is nothing of that name, or a folder.
    """
    if not Path(path).is_file():
        why = "is a folder" if Path(path).is_dir() else "does not exist"
        raise InputError(field, "a file of weights", f"{path}, which {why}")


def _reason(error: Exception) -> str:
    """Why a file was refused, without torch's advice to open it all the same."""
    if isinstance(error, KeyError | IndexError | EOFError):
        return "no file of torch.save"
    said, first = str(error), first_line(error)
    if first.startswith("PytorchStreamReader"):
        return "damaged or not complete"
    never = "Trying to load "  # of a module that torch never takes
    blocked = [line.removeprefix(never).rstrip(".") for line in said.splitlines() if line.startswith(never)]
    found = said.partition("WeightsUnpickler error: ")[2].strip().splitlines() or blocked
    return found[0].partition(" by default")[0] if found else first.partition(". In PyTorch")[0]


def last_checkpoint(work_dir: Path, field: str = "resume") -> Path:
    """The newest checkpoint of a work dir of mmengine's, by the note it keeps there.

    Raises:
        InputError: it has none.
    """
    note = work_dir / "last_checkpoint"
    named = Path(note.read_text(encoding="utf-8").strip()).name if note.is_file() else ""
    if not named or not (work_dir / named).is_file():
        hint = "The first is written after train.val_interval iterations."
        raise InputError(field, "a work dir with a checkpoint", f"{work_dir}, which has none", hint)
    return work_dir / named
