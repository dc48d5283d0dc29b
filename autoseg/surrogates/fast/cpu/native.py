"""Native code for the CPU: the `.cpp` files of this package, built once for all curves, formulas and shapes."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch

from autoseg import native
from autoseg.errors import InputError

HERE = Path(__file__).parent
SOURCES = (HERE / "pointwise.cpp", HERE / "channels.cpp")
HEADERS = (native.THREADS, HERE / "curve.h", HERE / "windows.h")
MAX_PIECES = 8  # most pieces of a curve, as in curve.h
_TYPES = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "d": ctypes.c_int}
SIGNATURES = {  # types of the functions' arguments, a letter each; the last is the number of threads
    "pointwise_forward": "piiipippd",
    "pointwise_backward": "piiipipppd",
    "channels_forward": "ppppd",
    "channels_backward": "pppppd",
}


def call(name: str, *arguments: object) -> None:
    """Run a function of the library on torch's number of threads.

    Args:
        name: one of `SIGNATURES`.
        arguments: all but the number of threads; a tensor is passed as its address and must have no gaps.

    Raises:
        InputError: there is no C++ compiler.
        MemoryError: there is not enough memory.
    """
    given = (x.data_ptr() if isinstance(x, torch.Tensor) else x for x in arguments)
    if getattr(library(), name)(*given, torch.get_num_threads()):
        raise MemoryError(f"not enough memory for {name}")


def plain(logits: torch.Tensor) -> torch.Tensor:
    """Return (N, C, P) float32 without gaps for (N, C, H, W)."""
    return logits.detach().float().contiguous().flatten(2)


@cache
def library() -> ctypes.CDLL:
    """Return the library of this package's functions.

    Raises:
        InputError: there is no C++ compiler, or it cannot build.
    """
    try:
        found = native.library(*SOURCES, headers=HEADERS)
    except native.NotCompiled as error:
        hint = "Install g++ or clang++ (CXX names another), or do without: compile=False, proxy.compile=off."
        raise InputError("compile", "a C++ compiler", str(error), hint) from error
    for name, letters in SIGNATURES.items():
        function = getattr(found, name)
        function.argtypes = [_TYPES[letter] for letter in letters]
    return found
