"""Writes files completely or not at all, and turns disk errors into errors for the user."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from autoseg.errors import InputError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNREACHABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)  # the last two of network file systems
GB = 1e9  # bytes, as disks are sold
UNWRITABLE = ("run folder", "a folder that can be written")


def cache_folder() -> Path:
    """Return the folder for files that can be made again: `$XDG_CACHE_HOME/autoseg`, or `~/.cache/autoseg`.

    It may not exist yet.

    Raises:
        RuntimeError: there is no home folder, for a user id that the machine has no name for, as in some containers.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autoseg"


def shipped_folder(folder: str) -> Path:
    """Return the folder `configs` or `search_spaces`: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    return package / folder if (package / folder).is_dir() else package.parent / folder


def existing(place: Path) -> Path:
    """Return the folder itself, or its nearest parent that exists, which is on the same disk."""
    return next(parent for parent in [place.absolute(), *place.absolute().parents] if parent.is_dir())


@contextlib.contextmanager
def replacing(path: Path, draft: Path | None = None) -> Iterator[Path]:
    """Yield a draft to write, which replaces the file if the block ends without an error.

    A reader, also after a crash or on a full disk, finds the old file or the new one. After the block the new one is on
    the disk, its name too. The folder is created if missing.

    Args:
        path: the file.
        draft: the draft's path; None: one that no other process writes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft or path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)  # writing through a link would change another file
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        with contextlib.suppress(OSError):  # the error before says more
            draft.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # some network file systems do not support it
        _sync_folder(path.parent)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace a file, see `replacing`.

    Raises:
        InputError: no space on the disk, or it cannot be written any more.
    """
    with no_space(path), replacing(path) as draft:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def no_space(path: Path) -> Iterator[None]:
    """Turn "no space left on device", and a file that can no longer be written, into errors for the user."""
    try:
        yield
    except OSError as error:
        if error.errno in UNREACHABLE:
            raise unwritable(path.parent, error.strerror) from error
        if error.errno not in NO_SPACE:
            raise
        raise no_space_error(path) from error


def unwritable(path: Path, why: object) -> InputError:
    """Return the error for a run's folder that can no longer be written."""
    hint = "All results so far are kept: resume the run when it can be."
    return InputError(*UNWRITABLE, f"{path}: {why}", hint)


def no_space_error(path: Path) -> InputError:
    """Return the error for a full disk."""
    hint = "All results so far are kept: make room and resume the run."
    return InputError("disk", f"space for {path.name}", f"no space left in {path.parent}", hint)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
