"""Commands and scripts as processes of their own, which begin where their imports end.

They are forked from one process that imports what they all import, and share nothing else with it or with each other.
What depends on these imports, such as what a file of the user's has to import itself, needs a fresh interpreter.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.imported"])  # found by PYTHONPATH, which conftest.py sets


@dataclass(frozen=True)
class Done:
    """What a process has left: its exit status, negative where a signal killed it, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


class Started:
    """A process that runs a function of this checkout as a program would.

    Args:
        function: called with the arguments; what it returns is the exit status.
        arguments: its arguments, and those of `sys.argv`.
        folder: its working directory.
    """

    def __init__(self, function: Callable[..., int | None], arguments: tuple[str, ...], folder: Path) -> None:
        self._said = tempfile.TemporaryDirectory()
        self._out, self._err = Path(self._said.name, "out"), Path(self._said.name, "err")
        self._out.touch()
        given = (function, arguments, str(folder), dict(os.environ), str(self._out), str(self._err))
        self._process = SERVER.Process(target=_run, args=given)
        self._process.start()
        atexit.register(self._process.kill)  # Python would wait for one that a failed test has left
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._out.read_text()

    def wait_for(self, text: str, seconds: float = 120) -> None:
        """Wait until it has printed a text."""
        end = time.monotonic() + seconds
        while True:
            goes_on = self._process.is_alive() and time.monotonic() < end
            if text in self.stdout:
                return
            assert goes_on, f"no {text!r}: {self.stdout}{self._err.read_text()}"
            time.sleep(0.02)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = 300) -> Done:
        """Wait for its end; one that goes on for longer is killed."""
        self._process.join(seconds)
        late = self._process.exitcode is None
        if late:
            self._process.kill()
            self._process.join()
        done = Done(self._process.exitcode or 0, self.stdout, self._err.read_text())
        assert not late, f"it goes on after {seconds} s: {done}"
        self._said.cleanup()
        return done


def start(folder: Path, *arguments: str) -> Started:
    """Type `autoseg ARGUMENTS` in a folder."""
    return Started(_autoseg, arguments, folder)


def autoseg(folder: Path, *arguments: str) -> Done:
    """Type `autoseg ARGUMENTS` in a folder, and wait for its end."""
    return start(folder, *arguments).wait()


def _autoseg(*arguments: str) -> int:
    from autoseg.cli import main

    return main(arguments)


def _run(
    function: Callable[..., Any],
    arguments: tuple[str, ...],
    folder: str,
    environment: dict[str, str],
    out: str,
    err: str,
) -> None:
    assert "tests.imported" in sys.modules, "the server could not import it: python -m tests.imported says why"
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for number, path in ((0, os.devnull), (1, out), (2, err)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
    sys.argv = ["autoseg", *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal
    status = function(*arguments)
    atexit._run_exitfuncs()  # which a forked process leaves out
    sys.exit(status)
