"""The worker's side of the pipe: one process that runs one task on one device, one job at a time.

Started by `processes.py` as a plain interpreter in a session of its own: Ctrl-C in the terminal does not reach
it, and it can be killed together with its children. A thread listens on the pipe from the first moment, also while
the task is imported or computes: when the search process is gone (the pipe ends), the worker and its children go too.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from autoseg.errors import InputError
from autoseg.execution.job import Attempt, Outcome, Task, attempt

GRACE_S = 2.0  # from the end of the pipe: an idle worker ends by itself before, one that is left then is killed


def main(handle: int, device: str) -> None:
    """Run the jobs received from the pipe `handle` until it ends.

    Receives a function to call before there is a task, or None; then the task with the file for all further output, or
    None; then payloads. Sends None once the task is unpickled, then an `Attempt` per payload. If the task cannot be
    unpickled, it sends the traceback as text.
    """
    os.set_inheritable(handle, False)  # a child holding the pipe open would hide this process's death
    pipe: Connection[Any, Any] = Connection(handle)
    inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, inbox), daemon=True).start()
    messages: Iterator[Any] = map(pickle.loads, iter(inbox.get, None))  # from the process that started this one
    prepare: bytes | None = next(messages, None)
    if prepare is not None:
        with contextlib.suppress(Exception):  # the task will meet the same, and can say so
            pickle.loads(prepare)()
    given: tuple[bytes, Path | None] | None = next(messages, None)
    if given is not None:
        loaded = load(*given)
        del given  # a user's data may be in it: once is enough
        _serve(loaded, messages, pipe, device)


def _serve(loaded: Task | Attempt | str, payloads: Iterator[Any], pipe: Connection[Any, Any], device: str) -> None:
    if isinstance(loaded, str | Attempt):
        pipe.send(loaded)
        return
    pipe.send(None)
    for payload in payloads:
        _answer(pipe, attempt(loaded, payload, device))


def load(task: bytes, log: Path | None) -> Task | Attempt | str:
    """Send all further output to `log` and unpickle the task; return the traceback if that fails.

    An `InputError` that this raises is returned as that of an attempt.
    """
    try:
        _write_to(log)
        loaded: Task = pickle.loads(task)
        return loaded
    except InputError as error:
        return Attempt(Outcome("failed"), wrong_input=error.in_words())
    except Exception:
        return traceback.format_exc()


def _write_to(log: Path | None) -> None:
    """Redirect standard output and error to the end of a file, or drop them."""
    with open(log or os.devnull, "ab") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)


def _answer(pipe: Connection[Any, Any], result: Attempt) -> None:
    try:
        pipe.send(result)
    except OSError:  # the search process is gone; the listener ends this process
        time.sleep(GRACE_S)


def _listen(pipe: Connection[Any, Any], inbox: queue.SimpleQueue[bytes | None]) -> None:
    try:
        while True:
            inbox.put(pipe.recv_bytes())
    except (EOFError, OSError):
        inbox.put(None)
    time.sleep(GRACE_S)
    os.killpg(os.getpgid(0), signal.SIGKILL)
