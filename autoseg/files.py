"""Files that are either old or new but never half, and what the user is told when the disk is full."""

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
    """Where what can be made again is kept: `$XDG_CACHE_HOME/autoseg`, or `~/.cache/autoseg`; it may not exist yet.

    Raises:
        RuntimeError: there is no home folder, of a user id that the machine has no name for, as in some containers.
    """
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autoseg"


def shipped_folder(folder: str) -> Path:
    """`configs` or `search_spaces`: in the package where autoseg is installed, beside it in a checkout."""
    package = Path(__file__).parent
    return package / folder if (package / folder).is_dir() else package.parent / folder


def existing(place: Path) -> Path:
    """The folder itself, or the nearest above it that exists: on the disk where it will be made."""
    return next(parent for parent in [place.absolute(), *place.absolute().parents] if parent.is_dir())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A draft to be written, which takes the file's place once the block has ended well.

    A reader, also after a crash or on a full disk, has the old file or the new one. After the block the new one is on
    the disk, its name too. The folder is made if missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)  # a link to what is not ours would be written through
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        with contextlib.suppress(OSError):  # the error before says more
            draft.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # some network file systems have no such thing
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
    """Turn "no space left on device" into the one message for it; also of one that can no longer be written."""
    try:
        yield
    except OSError as error:
        if error.errno in UNREACHABLE:
            raise unwritable(path.parent, error.strerror) from error
        if error.errno not in NO_SPACE:
            raise
        raise no_space_error(path) from error


def unwritable(path: Path, why: object) -> InputError:
    """What the user is told when a run's folder can no longer be written."""
    hint = "All results so far are kept: resume the run when it can be."
    return InputError(*UNWRITABLE, f"{path}: {why}", hint)


def no_space_error(path: Path) -> InputError:
    """What the user is told when the disk is full."""
    hint = "All results so far are kept: make room and resume the run."
    return InputError("disk", f"space for {path.name}", f"no space left in {path.parent}", hint)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
