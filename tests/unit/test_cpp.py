"""C++ is built once for all processes, and what cannot be built is said in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from autoseg import native

needs_compiler = pytest.mark.skipif(not any(map(shutil.which, native.COMPILERS)), reason="needs a C++ compiler")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "right.cpp").write_text('extern "C" int twice(int x) { return 2 * x; }')
    return tmp_path


@needs_compiler
def test_built_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.library(folder / "right.cpp").twice(21) == 42
    for name in ("_build", "FileLock"):  # a folder that only others can write has no place for a lock
        monkeypatch.setattr(native, name, None)  # would fail
    native.library.cache_clear()
    assert native.library(folder / "right.cpp").twice(2) == 4
    built = sorted(path.suffix for path in (folder / "autoseg" / "native").iterdir())
    assert built == [".lock", ".sha256", ".so"]


@needs_compiler
@pytest.mark.parametrize("left", [0, 1000, None])
def test_half_a_library_is_built_anew(folder: Path, left: int | None) -> None:
    """As a crash leaves it: whoever loads it would be killed, or do without it from then on."""
    native.library(folder / "right.cpp")
    (built,) = (folder / "autoseg" / "native").glob("*.so")
    content = built.read_bytes()
    built.unlink()  # this process has it loaded
    built.write_bytes(content[:left])
    if left is None:
        built.with_suffix(".sha256").write_text("")
    native.library.cache_clear()
    assert native.library(folder / "right.cpp").twice(21) == 42


@needs_compiler
def test_what_a_killed_build_left_is_removed(folder: Path) -> None:
    native.library(folder / "right.cpp")
    (built,) = (folder / "autoseg" / "native").glob("*.so")
    left = [built.with_name(f".{name}.4711") for name in (built.name, built.with_suffix(".sha256").name)]
    for each in left:
        each.write_text("half")
    built.unlink()
    native.library.cache_clear()
    native.library(folder / "right.cpp")
    assert not any(each.exists() for each in left)


@needs_compiler
def test_another_source_is_another_library(folder: Path) -> None:
    native.library(folder / "right.cpp")
    (folder / "right.cpp").write_text('extern "C" int twice(int x) { return x + x; }  // other text')
    native.library.cache_clear()
    native.library(folder / "right.cpp")
    assert len(list((folder / "autoseg" / "native").glob("*.so"))) == 2


@needs_compiler
def test_what_does_not_compile_is_said_and_leaves_nothing(folder: Path) -> None:
    (folder / "wrong.cpp").write_text("int f( {")
    with pytest.raises(native.NotCompiled, match="which failed: "):
        native.library(folder / "wrong.cpp")
    assert not list((folder / "autoseg" / "native").glob("*.so"))


@needs_compiler
def test_a_compiler_may_have_words_after_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(filter(shutil.which, native.COMPILERS))
    monkeypatch.setenv("CXX", f" env {name} '-DTWO=2' ")
    (folder / "right.cpp").write_text('extern "C" int twice(int x) { return TWO * x; }')
    assert native.library(folder / "right.cpp").twice(21) == 42
    monkeypatch.setenv("CXX", "g++ '-m64")
    native.library.cache_clear()
    with pytest.raises(native.NotCompiled, match="which is no command: No closing quotation"):
        native.library(folder / "right.cpp")


def scripted(folder: Path, script: str) -> str:
    """Return a compiler that does as the script says; $last is the name of what it is to write."""
    path = folder / "scripted-c++"
    path.write_text(f"#!/bin/sh\nfor last; do :; done\n{script}\n")
    path.chmod(0o755)
    return str(path)


@needs_compiler
def test_what_does_not_load_is_built_without_openmp(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clang links with a library for OpenMP that the machine may lack."""
    name = next(filter(shutil.which, native.COMPILERS))
    script = f'case "$*" in *-fopenmp*) echo no library > "$last";; *) exec {name} "$@";; esac'
    monkeypatch.setenv("CXX", scripted(folder, script))
    assert native.library(folder / "right.cpp").twice(21) == 42


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("x.cpp:1:10: fatal error: no.h: No such file\\ncompilation terminated.", "x.cpp:1:10: fatal error: no.h"),
        ("/usr/bin/ld: cannot find -lm\\ncollect2: error: ld returned 1 exit status", "/usr/bin/ld: cannot find -lm"),
        ("a remark\\nKilled", "Killed"),
        ("\\377\\376 error", "\ufffd\ufffd error"),  # a compiler may write in any encoding
    ],
)
def test_the_line_that_says_why(folder: Path, monkeypatch: pytest.MonkeyPatch, said: str, reason: str) -> None:
    monkeypatch.setenv("CXX", scripted(folder, f"printf '{said}' >&2; exit 1"))
    with pytest.raises(native.NotCompiled, match=f"which failed: {reason}"):
        native.library(folder / "right.cpp")


def test_without_a_compiler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(native.NotCompiled, match="none of no-such-compiler"):
        native.library(folder / "right.cpp")


@needs_compiler
def test_without_a_place_to_keep_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")  # of a user id that the system does not know

    monkeypatch.setattr(native.Path, "home", nobody)
    monkeypatch.delenv("XDG_CACHE_HOME")
    with pytest.raises(native.NotCompiled, match="home directory"):
        native.library(folder / "right.cpp")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "right.cpp"))
    with pytest.raises(native.NotCompiled, match=r"which failed: .*XDG_CACHE_HOME=DIR"):
        native.library(folder / "right.cpp")
