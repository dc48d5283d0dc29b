"""Reports a failed command: one message, the right exit status, the traceback in a file."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from autoseg.errors import AutosegError, InputError, in_a_line, visible
from autoseg.files import NO_SPACE

_HEAD = "Traceback (most recent call last):"  # begins a worker's error; its last line says what happened
FAULT, INPUT, INTERRUPTED = 1, 2, 130
_LOG = "_log_of_its_run"  # attribute of an error


def report(error: BaseException) -> int:
    """Print the error to stderr and return the exit status, which tells an error in autoseg from a wrong input."""
    if isinstance(error, KeyboardInterrupt):
        print("autoseg: interrupted", file=sys.stderr)
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):  # `autoseg losses | head`: the reader has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, OSError) and not _stdout_works():  # `autoseg losses >FILE` on a full disk
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"autoseg: standard output cannot be written: {error}", file=sys.stderr)
        return INPUT
    if isinstance(error, InputError):
        print(f"autoseg: {visible(str(error))}", file=sys.stderr)
        return INPUT
    if full := [cause for cause in _causes(error) if _disk_is_full(cause)]:
        file = getattr(full[0], "filename", None)
        where = f" for {visible(str(file))}" if file else ""
        print(
            f"autoseg: no space is left on the disk{where}. Nothing finished is lost: make room and repeat the"
            " command (a search goes on with resume=RUN).",
            file=sys.stderr,
        )
        return INPUT
    if isinstance(error, AutosegError):
        first, *rest = str(error).splitlines()
        short = first if not rest else f"{first.removesuffix(_HEAD).strip()} {rest[-1].strip()}"
        print(f"autoseg: {visible(short)}" + (f"\nMore in {_keep_traceback(error)}" if rest else ""), file=sys.stderr)
        return FAULT
    place = _keep_traceback(error)
    print(
        f"autoseg: unexpected {visible(in_a_line(error))}\n"
        f"This is a fault of autoseg, not of your input. The traceback is in {place}",
        file=sys.stderr,
    )
    return FAULT


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and every error it was raised from."""
    current: BaseException | None = error
    seen: set[int] = set()
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _stdout_works() -> bool:
    try:
        sys.stdout.flush()  # what could not be written is still in its buffer
    except OSError:
        return False
    return True


def _disk_is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return True
    return "database or disk is full" in str(error)  # SQLite's message, which every wrapper preserves


def came_in(error: BaseException, log: Path) -> None:
    """Attach a run's log to an error, so that its traceback is appended to that log."""
    setattr(error, _LOG, log)


def _keep_traceback(error: BaseException) -> str:
    """Append the traceback to the log of its run, or write it to a new file if there is none.

    Return where it is; without a place it is printed.
    """
    text, log = "".join(traceback.format_exception(error)), getattr(error, _LOG, None)
    with contextlib.suppress(OSError):
        if log is not None and log.is_file():
            with log.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} ERROR   {text}")
            return str(log)
    try:
        descriptor, name = tempfile.mkstemp(prefix="autoseg-", suffix=".log", text=True)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:  # no folder for temporary files, or no space in it
        print(visible(text), file=sys.stderr)
        return "the lines above"
    return name
