"""The fused pass on a CPU as native code: `pointwise.cpp`, built by the machine's own C++ compiler on first use.

The build takes some seconds, once for all curves, formulas and shapes; a folder of the user's keeps it for every
process after that. Both passes make softmax again from the logits and its normalizer: nothing else is saved.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor
from torch.autograd.function import once_differentiable

from autoseg.errors import InputError
from autoseg.surrogates.fused import Pass
from autoseg.surrogates.pieces import table

HERE = Path(__file__).parent
SOURCE, HEADER = HERE / "pointwise.cpp", HERE / "curve.h"
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi")
VARIANTS = (("-march=native", "-fopenmp"), ("-march=native",), ("-fopenmp",), ())  # the first that works
MAX_PIECES = 8  # of a curve, as in curve.h
_POINTER, _INT = ctypes.c_void_p, ctypes.c_int64


class _Term(ctypes.Structure):
    """`Term` of pointwise.cpp."""

    _fields_ = (("pieces", _POINTER), ("count", _INT), ("mask", _POINTER), ("classes", _POINTER))


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
    sizes = [_POINTER, _INT, _INT, _INT, _POINTER, _INT, _POINTER, _POINTER]
    found.pointwise_forward.argtypes = [*sizes, ctypes.c_int]
    found.pointwise_backward.argtypes = [*sizes, _POINTER, ctypes.c_int]
    found.pointwise_forward.restype = found.pointwise_backward.restype = None
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
    given = hashlib.sha256(SOURCE.read_bytes() + HEADER.read_bytes() + repr((command, FLAGS, VARIANTS)).encode())
    for extra in (["-march=native"], []):
        asked = subprocess.run([command, *extra, "-dM", "-E", "-x", "c++", os.devnull], capture_output=True)
        if asked.returncode == 0:
            given.update(asked.stdout)
            break
    return given.hexdigest()[:24]


def _build(command: str, file: Path) -> None:
    unfinished = file.with_suffix(f".{os.getpid()}")
    for variant in VARIANTS:
        line = [command, *FLAGS, *variant, str(SOURCE), "-o", str(unfinished)]
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode == 0:
            unfinished.replace(file)
            return
    raise _refused(f"{command}, which failed: {done.stderr.strip().splitlines()[-1:]}")


# ------------------------------------------------------------------------------------------------ the pass


def takes(logits: Tensor, work: Pass) -> bool:
    """Whether this pass computes in float32 and has code for every curve."""
    curves = [each.curve for each in work.everywhere] + [curve for own in work.own for curve, _ in own.curves]
    return logits.dtype != torch.float64 and all(len(curve) <= MAX_PIECES for curve in curves)


def totals(logits: Tensor, work: Pass) -> Tensor:
    """As `fused.totals`, of logits that `takes` accepts.

    Raises:
        InputError: there is no C++ compiler.
    """
    return _Totals.apply(logits, work)


class _Totals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, work: Pass) -> Tensor:
        x, terms = _Terms.plain(logits), _Terms(work)
        n, c, pixels = x.shape
        normalizer = x.new_empty(n, pixels)
        sums = x.new_empty(len(work), n, c, dtype=torch.float64)
        library().pointwise_forward(*terms.arguments(x), normalizer.data_ptr(), sums.data_ptr(), _threads())
        ctx.terms = terms
        ctx.save_for_backward(logits, normalizer)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, normalizer = ctx.saved_tensors
        x, weights = _Terms.plain(logits), grad.float().contiguous()
        out = torch.empty(logits.shape)
        library().pointwise_backward(
            *ctx.terms.arguments(x), normalizer.data_ptr(), weights.data_ptr(), out.data_ptr(), _threads()
        )
        return out.to(logits.dtype), None


class _Terms:
    """A pass's totals in order, and the tensors that they point to."""

    def __init__(self, work: Pass) -> None:
        self._kept: list[Tensor] = []
        self._array = (_Term * len(work))()
        for each in work.everywhere:
            self._array[each.at] = self._term(each.curve, each.mask, None)
        for own in work.own:
            for curve, at in own.curves:
                self._array[at] = self._term(curve, None, own.classes)

    @staticmethod
    def plain(logits: Tensor) -> Tensor:
        """(N, C, P) float32 without gaps."""
        return logits.detach().float().contiguous().flatten(2)

    def arguments(self, x: Tensor) -> Iterator[Any]:
        """What both functions take first."""
        return iter((x.data_ptr(), *x.shape, self._array, len(self._array)))

    def _term(self, curve: Tensor, mask: Tensor | None, classes: Tensor | None) -> _Term:
        rows = table(curve, torch.float32)
        return _Term(self._keep(rows), len(rows), *(None if t is None else self._keep(t) for t in (mask, classes)))

    def _keep(self, tensor: Tensor) -> int:
        tensor = tensor.contiguous()
        self._kept.append(tensor)
        return tensor.data_ptr()


def _threads() -> int:
    return torch.get_num_threads()
