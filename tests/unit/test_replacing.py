"""Files are either old or new."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from autoseg.data.once import made_once
from autoseg.errors import InputError
from autoseg.files import write_atomic


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    path = tmp_path / "loss.json"
    write_atomic(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"disk: expected space for loss\.json"):
        write_atomic(path, "new")
    assert path.read_text() == "old" and [entry.name for entry in tmp_path.iterdir()] == ["loss.json"]


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM, errno.ESTALE])
def test_a_disk_that_became_read_only_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    path = tmp_path / "loss.json"
    write_atomic(path, "old")

    def read_only(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(InputError, match=rf"can be written, got .*: {os.strerror(code)}\. All results so far are"):
        write_atomic(path, "new")
    assert path.read_text() == "old"


def test_a_link_in_the_place_of_a_draft_is_not_written_through(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "x.json"
    victim.write_text("mine")
    (tmp_path / f".x.json.{os.getpid()}").symlink_to(victim)
    write_atomic(path, "{}")
    (tmp_path / "y.tmp").symlink_to(victim)
    made_once(tmp_path / "y.safetensors", lambda draft: draft.write_text("images") and None)
    assert victim.read_text() == "mine" and path.read_text() == "{}" and not path.is_symlink()


def test_other_faults_of_the_disk_are_not_called_no_space(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "file" / "x.json", "{}")
