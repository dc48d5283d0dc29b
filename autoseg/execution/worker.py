"""The worker's side: one process, one device, one task, one job at a time over a pipe.

Started by `process.py` as a plain interpreter in a session of its own: Ctrl-C in the terminal does not reach
it, and it can be killed together with its children. A thread listens on the pipe while the task computes:
when the search process is gone (the pipe ends), the worker and its children go too.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import threading
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

from autoseg.execution.job import Attempt, Task, attempt

GRACE_S = 2.0  # an idle worker leaves by itself in this time; a busy one is killed


def main(handle: int, device: str) -> None:
    """Serve jobs from the pipe `handle` until it ends.

    Receives the pickled task, then payloads; sends None once the task is unpickled, then an `Attempt` per
    payload. A task that cannot be unpickled is answered with its traceback as text.
    """
    os.set_inheritable(handle, False)  # a child holding the pipe open would hide this process's death
    pipe: Connection[Any, Any] = Connection(handle)
    try:
        task: Task = pickle.loads(pipe.recv_bytes())  # from the process that started this one
    except EOFError:
        return
    except Exception:
        pipe.send(traceback.format_exc())
        return
    pipe.send(None)
    inbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, inbox), daemon=True).start()
    while (payload := inbox.get()) is not None:
        _answer(pipe, attempt(task, payload, device))


def _answer(pipe: Connection[Any, Any], result: Attempt) -> None:
    try:
        pipe.send(result)
    except OSError:  # nobody is left to hear it; the listener ends this process
        time.sleep(GRACE_S)


def _listen(pipe: Connection[Any, Any], inbox: queue.SimpleQueue[dict[str, Any] | None]) -> None:
    try:
        while True:
            inbox.put(pipe.recv())
    except (EOFError, OSError):
        inbox.put(None)
    time.sleep(GRACE_S)
    os.killpg(os.getpgid(0), signal.SIGKILL)
