"""Compiles C++ of ours on the machine where it runs: once per source, compiler and processor, cached in the user's
folder.

A library has plain functions on addresses, called through ctypes: it compiles in seconds and needs no headers of torch.
Whether there is a compiler depends on the machine, never on timing, so that all workers of a search compute the same.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path

from filelock import FileLock

from autoseg.errors import AutosegError, InputError
from autoseg.files import cache_folder, replacing, write_atomic

# No -ffast-math: it would treat NaN as a number. No code reads errno after mathematical functions.
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-Wno-psabi")
VARIANTS = (("-march=native", "-fopenmp"), ("-march=native",), ("-fopenmp",), ())  # the first that works
THREADS = Path(__file__).with_name("native.h")  # what our C++ includes
COMPILERS = ("c++", "g++", "clang++")  # unless CXX names one


class NotCompiled(AutosegError):
    """There is no C++ compiler, or it failed; the message says which."""


@cache
def library(*sources: Path, headers: tuple[Path, ...] = ()) -> ctypes.CDLL:
    """Return the functions of C++ files, from the cache if they have been built before.

    Args:
        sources: the files.
        headers: files of ours that they include, besides the standard library.

    Raises:
        NotCompiled: there is no C++ compiler, or it failed.
    """
    compiler = _compiler()
    try:
        folder = cache_folder() / "native"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / f"{sources[0].stem}-{_fingerprint(compiler, *sources, *headers)}.so"
        if not _whole(path):  # a folder that only others can write may have it: no lock then
            with FileLock(path.with_suffix(".lock")):  # workers of a search start together
                if not _whole(path):
                    _build(compiler, sources, path)
        return ctypes.CDLL(str(path))
    except (OSError, RuntimeError, InputError, subprocess.SubprocessError) as error:  # RuntimeError: no home folder
        remedy = " (XDG_CACHE_HOME=DIR names another folder)" if isinstance(error, OSError) else ""
        raise NotCompiled(f"{shlex.join(compiler)}, which failed: {_reason(error)}{remedy}") from error


def _compiler() -> tuple[str, ...]:
    """Return the command: CXX may have words after the program, as in "ccache g++" and "g++ -m64"."""
    named = os.environ.get("CXX", "").strip()
    try:
        commands = [shlex.split(named)] if named else [[name] for name in COMPILERS]
    except ValueError as error:  # a quotation mark without another
        raise NotCompiled(f"CXX={named}, which is no command: {error}") from error
    for program, *words in commands:
        if (found := shutil.which(program)) is not None:
            return found, *words
    raise NotCompiled(f"none of {named or ', '.join(COMPILERS)}")


def _reason(error: Exception) -> str:
    """Return the line that says why: a compiler's last may say no more than that it stops."""
    lines = str(getattr(error, "stderr", None) or error).strip().splitlines() or [str(error)]
    return next((line for line in lines if "error" in line or "cannot find" in line), lines[-1])


def _fingerprint(compiler: tuple[str, ...], *files: Path) -> str:
    """Return a digest of sources, compiler and processor; the macros include its version and instruction sets."""
    given = hashlib.sha256(b"".join(file.read_bytes() for file in files) + repr((compiler, FLAGS, VARIANTS)).encode())
    for extra in (["-march=native"], []):
        command = [*compiler, *extra, "-dM", "-E", "-x", "c++", os.devnull]
        asked = subprocess.run(command, capture_output=True, timeout=60)
        if asked.returncode == 0:
            given.update(asked.stdout)
            break
    return given.hexdigest()[:24]


def _whole(path: Path) -> bool:
    """Whether the library is as it was built: half of one, as a crash may leave it, would kill who loads it."""
    try:
        return _digest_file(path).read_text(encoding="utf-8") == hashlib.sha256(path.read_bytes()).hexdigest()
    except (FileNotFoundError, ValueError):
        return False


def _digest_file(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _build(compiler: tuple[str, ...], sources: tuple[Path, ...], path: Path) -> None:
    for draft in path.parent.glob(f".{path.stem}.*"):  # of one that was killed: nobody else has the lock
        draft.unlink(missing_ok=True)
    with replacing(path) as draft:
        for variant in VARIANTS:
            command = [*compiler, *FLAGS, *variant, *map(str, sources), "-o", str(draft)]
            try:
                subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=300, check=True)
                ctypes.CDLL(str(draft))  # a library that it needs may be missing, as clang's for OpenMP often is
            except (subprocess.CalledProcessError, OSError):
                if variant == VARIANTS[-1]:
                    raise
            else:
                break
        digest = hashlib.sha256(draft.read_bytes()).hexdigest()
    write_atomic(_digest_file(path), digest)
