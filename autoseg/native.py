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
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

# No -ffast-math: it would let NaN pass for a number. Errors of mathematical functions are looked at by nobody.
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
THREADS = "-fopenmp"  # torch brings the library that it needs


@cache
def load(source: Path) -> ctypes.CDLL | None:
    """The functions of a C++ file; None where it cannot be compiled, which is logged.

    Args:
        source: the file; it may include nothing but the standard library.
    """
    compiler = _compiler()
    if compiler is None:
        log.info("no C++ compiler found: %s is not used, training on the CPU is slower", source.name)
        return None
    text = source.read_bytes()
    key = hashlib.sha256(b"\0".join([text, *map(str.encode, (*FLAGS, THREADS, _identity(compiler)))])).hexdigest()[:16]
    try:
        path = _folder() / f"{source.stem}-{key}.so"
        if not path.is_file():
            _build(compiler, source, path)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or error
        log.warning("%s could not be compiled with %s and is not used: %s", source.name, compiler, detail)
        return None


def _compiler() -> str | None:
    chosen = os.environ.get("CXX")
    return chosen if chosen is not None else next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)


def _identity(compiler: str) -> str:
    """What the result depends on beside the source: the compiler's version and the processor's instructions."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return "\n".join([version, platform.machine(), flags])


def _build(compiler: str, source: Path, path: Path) -> None:
    """Compile to a name of its own, then rename: several workers may do so at the same time."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        result = Path(scratch) / path.name
        command = [compiler, *FLAGS, THREADS, str(source), "-o", str(result)]
        subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        result.replace(path)


def _folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "autoseg" / "native"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
