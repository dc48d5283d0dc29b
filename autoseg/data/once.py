"""Files that many processes need and one of them makes, and the header of a safetensors file written in one pass."""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from autoseg.files import replacing

SAID_AFTER_S = 60.0
BYTES = {"U8": 1, "BF16": 2, "F16": 2, "F32": 4, "I32": 4}  # bytes per element, by the format's name of the type

log = logging.getLogger(__name__)


def made_once(path: Path, make: Callable[[Path], None]) -> Path:
    """Return the file, made now if it does not exist yet; the first process makes it, the others wait.

    It is made under a lock, in a temporary file that is renamed when it is complete and on the disk: no reader
    ever sees half a file, and no two processes ever see different ones.

    Args:
        path: the finished file; its folder is created if missing.
        make: writes the file whose path it is given.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        if not path.is_file():  # another process may have made it while we waited
            draft = path.with_suffix(".tmp")  # one name, so that killed processes leave one file at most
            with replacing(path, draft):
                make(draft)
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file. Some shared file systems keep that of a machine that is gone: a long wait is said."""
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=SAID_AFTER_S)
    except Timeout:
        text = "waiting for another process that makes %s; if none does, delete %s"
        log.warning(text, path, lock.lock_file)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def head(tensors: Mapping[str, tuple[str, Sequence[int]]], about: Any) -> bytes:
    """Return the first bytes of a safetensors file, after which the tensors are written one after the other.

    Args:
        tensors: name to (type as in `BYTES`, shape), in the order in which they will be written.
        about: plain data, stored as JSON under "autoseg".
    """
    header: dict[str, Any] = {"__metadata__": {"autoseg": json.dumps(about)}}
    end = 0
    for name, (kind, shape) in tensors.items():
        start, end = end, end + prod(shape) * BYTES[kind]
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
