"""Native code for the CPU: the `.cpp` files of this room, built by the machine's own C++ compiler on first use.

The build takes some seconds, once for all curves, formulas and shapes; a folder of the user's keeps it for every
process after that.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import torch
from filelock import FileLock

from autoseg.errors import InputError

HERE = Path(__file__).parent
SOURCES = (HERE / "pointwise.cpp", HERE / "channels.cpp")
HEADERS = (HERE / "curve.h", HERE / "windows.h")
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi")
VARIANTS = (("-march=native", "-fopenmp"), ("-march=native",), ("-fopenmp",), ())  # the first that works
MAX_PIECES = 8  # of a curve, as in curve.h
_TYPES = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "d": ctypes.c_int}
SIGNATURES = {  # of the functions, a letter an argument; the last is the number of threads
    "pointwise_forward": "piiipippd",
    "pointwise_backward": "piiipipppd",
    "channels_forward": "ppppd",
    "channels_backward": "pppppd",
}


def call(name: str, *arguments: object) -> None:
    """Runs a function of the library on torch's number of threads.

    Args:
        name: one of `SIGNATURES`.
        arguments: all but the number of threads; a tensor is passed as its address and must have no gaps.

    Raises:
        InputError: there is no C++ compiler.
    """
    given = (x.data_ptr() if isinstance(x, torch.Tensor) else x for x in arguments)
    getattr(library(), name)(*given, torch.get_num_threads())


def plain(logits: torch.Tensor) -> torch.Tensor:
    """(N, C, P) float32 without gaps, of (N, C, H, W)."""
    return logits.detach().float().contiguous().flatten(2)


# ------------------------------------------------------------------------------------------------ the library


@cache
def library() -> ctypes.CDLL:
    """The built code, from the cache where it has been built before.

    Raises:
        InputError: there is no C++ compiler, or it cannot build.
    """
    command = _compiler()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autoseg" / "native"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / f"{_fingerprint(command)}.so"
    with FileLock(file.with_suffix(".lock")):  # workers of a search start together
        if not file.exists():
            _build(command, file)
    found = ctypes.CDLL(str(file))
    for name, letters in SIGNATURES.items():
        function = getattr(found, name)
        function.argtypes, function.restype = [_TYPES[letter] for letter in letters], None
    return found


def _compiler() -> str:
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise _refused(f"none of {', '.join(names)}")
    return found


def _refused(got: str) -> InputError:
    hint = "Install g++ or clang++ (CXX names another), or leave the loss uncompiled: compile=False, proxy.compile=off."
    return InputError("compile", "a C++ compiler", got, hint)


def _fingerprint(command: str) -> str:
    """Of the sources, the compiler and the processor: its instruction sets are among the macros."""
    given = hashlib.sha256(repr((command, FLAGS, VARIANTS)).encode())
    for file in (*SOURCES, *HEADERS):
        given.update(file.read_bytes())
    for extra in (["-march=native"], []):
        asked = subprocess.run([command, *extra, "-dM", "-E", "-x", "c++", os.devnull], capture_output=True)
        if asked.returncode == 0:
            given.update(asked.stdout)
            break
    return given.hexdigest()[:24]


def _build(command: str, file: Path) -> None:
    unfinished = file.with_suffix(f".{os.getpid()}")
    for variant in VARIANTS:
        line = [command, *FLAGS, *variant, *map(str, SOURCES), "-o", str(unfinished)]
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode == 0:
            unfinished.replace(file)
            return
    raise _refused(f"{command}, which failed: {done.stderr.strip().splitlines()[-1:]}")
