"""What a command that trains does when its terminal goes away: it ends as after Ctrl-C, or goes on without it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

ENDINGS = (signal.SIGTERM, signal.SIGHUP)  # a cluster's scheduler stops the job; the ssh session is closed


@contextmanager
def outlasting() -> Iterator[None]:
    """End as after Ctrl-C when a signal says so, and let no training be lost because nobody reads what is printed.

    A signal that is ignored, as under `nohup`, stays ignored.
    """
    for kind in ENDINGS:
        if signal.getsignal(kind) is not signal.SIG_IGN:
            signal.signal(kind, signal.default_int_handler)
    before = sys.stdout
    sys.stdout = _Outlasting(before)
    try:
        yield
    finally:
        sys.stdout = before


class _Outlasting:
    """A stream that is left when it cannot be written: its reader has gone, or the disk of a log is full."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._or_leave():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._or_leave():
            self._stream.flush()

    @contextmanager
    def _or_leave(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            with suppress(OSError):  # what is still in its buffer goes there too
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if not isinstance(error, BrokenPipeError):  # of `| head`, who reads no more wants no more
                with suppress(OSError):
                    print(f"autoseg: standard output cannot be written, and is left: {error}", file=sys.stderr)
