"""Ctrl-C while a command imports."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

IMPORTING = """
import time
from autoseg.cli.prestart import _end_at_once
from autoseg.interrupts import held_back
with held_back(_end_at_once):
    print("importing", flush=True)
    end = time.monotonic() + {seconds}
    while time.monotonic() < end:
        pass
"""


def stopped(times: int, seconds: float) -> tuple[int, str, float]:
    """Exit status, standard error and seconds until the end of a process that is interrupted while it imports."""
    code = [sys.executable, "-c", IMPORTING.format(seconds=seconds)]
    process = subprocess.Popen(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    begun = time.monotonic()
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    errors = process.communicate(timeout=60)[1]
    return process.returncode, errors, time.monotonic() - begun


def test_once_waits_for_the_end_of_the_import() -> None:
    status, errors, seconds = stopped(1, 1.0)
    assert status != 0 and errors.endswith("KeyboardInterrupt\n") and seconds > 0.7


def test_twice_waits_for_nothing() -> None:
    status, errors, _ = stopped(2, 3600.0)
    assert (status, errors) == (130, "autoseg: interrupted\n")
