"""C++ of ours, compiled where it runs: once per source, compiler and processor, kept in the cache folder.

A library of plain functions on addresses, called through ctypes: a second of the compiler, no headers of torch, no
import. Where there is no compiler, `load` returns None and callers take torch's own operations; that is a property of
the machine and never of timing, so that all workers of a search compute the same.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from filelock import FileLock

log = logging.getLogger(__name__)

# No -ffast-math: it would let NaN pass for a number. Errors of mathematical functions are looked at by nobody.
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi")
VARIANTS = (("-march=native", "-fopenmp"), ("-march=native",), ("-fopenmp",), ())  # the first that works


@cache
def load(source: Path, *headers: Path) -> ctypes.CDLL | None:
    """The functions of a C++ file; None where it cannot be compiled, which is logged.

    Args:
        source: the file.
        headers: files of ours that it includes, beside the standard library.
    """
    compiler = _compiler()
    if compiler is None:
        log.info("no C++ compiler found: %s is not used, training on the CPU is slower", source.name)
        return None
    try:
        folder = _folder()
        path = folder / f"{source.stem}-{_fingerprint(compiler, source, *headers)}.so"
        with FileLock(path.with_suffix(".lock")):  # workers of a search start together
            if not path.is_file():
                _build(compiler, source, path)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or error
        log.warning("%s could not be compiled with %s and is not used: %s", source.name, compiler, detail)
        return None


def _compiler() -> str | None:
    chosen = os.environ.get("CXX")
    names = ["c++", "g++", "clang++"] if chosen is None else [chosen]
    return next(filter(None, map(shutil.which, names)), None)


def _fingerprint(compiler: str, *files: Path) -> str:
    """Of sources, compiler and processor: its version and instruction sets are among the macros."""
    given = hashlib.sha256(b"".join(file.read_bytes() for file in files) + repr((compiler, FLAGS, VARIANTS)).encode())
    for extra in (["-march=native"], []):
        asked = subprocess.run([compiler, *extra, "-dM", "-E", "-x", "c++", os.devnull], capture_output=True)
        if asked.returncode == 0:
            given.update(asked.stdout)
            break
    return given.hexdigest()[:24]


def _build(compiler: str, source: Path, path: Path) -> None:
    unfinished = path.with_suffix(f".{os.getpid()}")
    for variant in VARIANTS:
        command = [compiler, *FLAGS, *variant, str(source), "-o", str(unfinished)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode == 0:
            unfinished.replace(path)
            return
    done.check_returncode()


def _folder() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autoseg" / "native"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder
