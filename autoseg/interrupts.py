"""Holds Ctrl-C and its like back where an exception in the middle would leave something that can no longer end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

KINDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def held_back(insisted: Callable[[], None] | None = None) -> Iterator[None]:
    """Deliver a signal that arrives in this block after it, to whoever would have got it.

    In other threads than the main one, which get no signals, it does nothing.

    Args:
        insisted: called when a second one arrives; None: it is delivered at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    known = {kind: signal.getsignal(kind) for kind in KINDS}
    # None: not installed from Python, and left alone; ignored ones do not arrive.
    handlers = {kind: handler for kind, handler in known.items() if handler not in (None, signal.SIG_IGN)}

    def restore() -> None:
        for kind, handler in handlers.items():
            signal.signal(kind, handler)

    def keep(kind: int, _: object) -> None:
        arrived.append(kind)
        if len(arrived) > 1:
            if insisted is not None:
                insisted()
            restore()
            signal.raise_signal(arrived.pop())

    for kind in handlers:
        signal.signal(kind, keep)
    try:
        yield
    finally:
        restore()
        if arrived:
            signal.raise_signal(arrived[0])
