from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from autoseg.config import ProxyConfig, SoftLabelConfig
from autoseg.errors import InputError
from autoseg.files import write_atomic
from autoseg.store import run_folder
from autoseg.store.ledger import Ledger
from autoseg.store.run_files import read_config, read_fingerprint
from autoseg.store.run_folder import RunFolder, new_run_path, slug
from autoseg.surrogates import build_space
from autoseg.tracking.status import read_status

FIXED = {"metric": "biou", "seed": 0, "size": (180, 240)}


def test_create_then_open(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunFolder.create(path, {"metric": "biou"}, FIXED) as folder:
        assert folder.last_checkpoint() is None
        folder.save_checkpoint(0, {"mean": [0.1 + 0.2]})
        folder.save_checkpoint(10, {"mean": [1 / 3]})
    with RunFolder.open(path, FIXED) as folder:
        assert folder.last_checkpoint() == (10, {"mean": [1 / 3]})
        folder.write_config({"metric": "biou", "rounds": 9})
    assert read_config(path) == {"metric": "biou", "rounds": 9}
    assert yaml.safe_load((path / "config.yaml").read_text())["schema"] == 1


def test_drafts_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", {}, FIXED) as folder:
        folder.save_checkpoint(0, {"a": 1})
    drafts = [tmp_path / "run" / name for name in (".config.yaml.4729", "controller/.round_0001.json.39")]
    others = [tmp_path / "run" / name for name in (".notes.2", "controller/.mine", ".lock")]
    for path in (*drafts, *others):
        path.touch()
    RunFolder.open(tmp_path / "run", FIXED).close()
    assert not any(path.exists() for path in drafts) and all(path.exists() for path in others)


def test_names_are_slugs(tmp_path: Path) -> None:
    assert slug("miou+0.5*bf1") == "miou-0.5-bf1"
    assert slug("~/Ünï code=(x)") == "n-code-x"
    assert slug("***") == "x"
    path = new_run_path(tmp_path, "miou+0.5*bf1", "camvid")
    assert re.fullmatch(r"miou-0\.5-bf1-camvid-\d{8}-\d{6}-[0-9a-f]{4}", path.name)
    assert path != new_run_path(tmp_path, "miou+0.5*bf1", "camvid")


def test_a_folder_with_something_in_it_is_not_taken(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", {}, FIXED):
        pass
    with pytest.raises(InputError, match="resume="):
        RunFolder.create(tmp_path / "run", {}, FIXED)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(InputError, match="a new or empty folder"):
        RunFolder.create(tmp_path / "photos", {}, FIXED)
    assert [file.name for file in (tmp_path / "photos").iterdir()] == ["a.jpg"]


@pytest.mark.parametrize("killed_at", ["fingerprint.json", "config.yaml"])
def test_a_process_killed_before_there_was_a_run_leaves_an_empty_folder(
    tmp_path: Path, killed_at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run"

    def killed(file: Path, text: str) -> None:
        write_atomic(file, text)
        if file.name == killed_at:
            file.rename(file.with_name(f".{killed_at}.4729"))  # its draft is all that there is of it
            os._exit(9)

    if (child := os.fork()) == 0:
        try:
            monkeypatch.setattr(run_folder, "write_atomic", killed)
            RunFolder.create(path, {"a": 1}, {"b": 2})
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    RunFolder.create_or_open(path, {"a": 1}, FIXED).close()
    assert read_fingerprint(path)["seed"] == 0 and not list(path.glob(".*.4729"))


def test_a_fingerprint_of_anybody_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "fingerprint.json").touch()
    with pytest.raises(InputError, match="a new or empty folder"):
        RunFolder.create(tmp_path, {}, FIXED)


def test_nesting_without_end_is_no_configuration(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, {}, FIXED).close()
    for name in ("fingerprint.json", "config.yaml"):
        (tmp_path / name).write_text("[" * 100_000)
        with pytest.raises(InputError, match="readable"):
            RunFolder.open(tmp_path, FIXED)


BOMB = "x0: &x0 [l,l,l,l,l,l,l,l,l]\n" + "".join(
    f"x{i}: &x{i} [{','.join([f'*x{i - 1}'] * 9)}]\n" for i in range(1, 99)
)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (BOMB, "more than 100,000 values"),
        ("overrides: {r: &r [*r]}", "more than 100,000 values"),
        ("seed: " + "1" * 5000, r"readable config\.yaml"),
        ("seed: 0x" + "f" * 5000, "more than 64 bits"),
        ("seed: 9223372036854775808", "more than 64 bits"),
        ("seed: 1" + ":00" * 100_000, "more than 64 bits"),
        ("seed: 1" + ":00" * 300 + ".5", r"readable config\.yaml"),
        *((f"seed: {text}", r"readable config\.yaml") for text in ("!!bool x", "!!int ''", "!!timestamp x")),
        ("metric: 2001-13-45", "month must be"),
        ("overrides: " + "[" * 150 + "]" * 150, "nested deeper"),
    ],
)
def test_what_is_no_configuration_is_one_message(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "config.yaml").write_text(f"schema: 1\n{line}")
    with pytest.raises(InputError, match=f"^run folder: .*{said}"):
        read_config(tmp_path)


def test_an_alias_that_does_no_harm_is_read(tmp_path: Path) -> None:
    """PyYAML writes one where the same list stands twice."""
    twice = [0.1, 0.2]
    RunFolder.create(tmp_path, {"mean": twice, "std": twice}, FIXED).close()
    assert "*" in (tmp_path / "config.yaml").read_text()
    assert read_config(tmp_path) == {"mean": twice, "std": twice}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such thing as a named pipe")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, {}, FIXED).close()
    for name in ("fingerprint.json", "trials.db", "config.yaml"):
        (tmp_path / name).unlink(missing_ok=True)
        os.mkfifo(tmp_path / name)
    (tmp_path / "loss.yaml").symlink_to("/dev/zero")
    for read in (
        lambda: read_config(tmp_path),
        lambda: read_status(tmp_path),
        lambda: read_fingerprint(tmp_path),
        lambda: Ledger(tmp_path / "trials.db", (), read_only=True),
        lambda: build_space(str(tmp_path / "loss.yaml"), metric="miou"),
    ):
        with pytest.raises(InputError, match="file"):
            read()
    RunFolder.create(tmp_path / "run", {}, FIXED).close()
    os.mkfifo(tmp_path / "run" / "log.txt")
    with pytest.raises(InputError, match=r"log\.txt, which is no file"):
        RunFolder.open(tmp_path / "run", FIXED)


def test_links_out_of_a_run_are_not_written_through(tmp_path: Path) -> None:
    precious, elsewhere = tmp_path / "precious", tmp_path / "elsewhere"
    precious.write_text("mine")
    elsewhere.mkdir()
    for number, (name, target) in enumerate([("log.txt", precious), (".lock", precious), ("figures", elsewhere)]):
        path = tmp_path / f"run{number}"
        RunFolder.create(path, {}, FIXED).close()
        (path / "trials.db").symlink_to("log.txt")  # within it they do no harm
        RunFolder.open(path, FIXED).close()
        (path / name).unlink(missing_ok=True)
        (path / name).symlink_to(target)
        with pytest.raises(InputError, match=f"own files, got .*{name}, a link to {target}"):
            RunFolder.open(path, FIXED)
        assert precious.read_text() == "mine"


def test_another_version_or_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a readable config\.yaml|a folder with a config\.yaml"):
        RunFolder.open(tmp_path, FIXED)
    (tmp_path / "config.yaml").write_text("schema: 99\nmetric: biou\n")
    with pytest.raises(InputError, match="expected version 1, got version 99"):
        RunFolder.open(tmp_path, FIXED)
    (tmp_path / "config.yaml").write_text("- a list")
    with pytest.raises(InputError, match="version None"):
        RunFolder.open(tmp_path, FIXED)
    (tmp_path / "config.yaml").write_text("schema: !!python/object/apply:os.system [touch pwned]")
    with pytest.raises(InputError):
        RunFolder.open(tmp_path, FIXED)


@pytest.mark.parametrize("change", [{"seed": 1}, {"size": (90, 120)}, {"extra": 1}])
def test_what_would_change_the_search_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with RunFolder.create(tmp_path / "run", {}, FIXED):
        pass
    with pytest.raises(InputError, match=f"{next(iter(change))}: expected .*as when the run began"):
        RunFolder.open(tmp_path / "run", {**FIXED, **change})
    RunFolder.open(tmp_path / "run", FIXED).close()  # not left locked


def test_a_key_of_another_version_is_named(tmp_path: Path) -> None:
    one, other = {"proxy": {"iters": 9, "teleport": 3}}, {"proxy": {"iters": 9}}
    RunFolder.create(tmp_path / "one", {}, one).close()
    RunFolder.create(tmp_path / "other", {}, other).close()
    RunFolder.create(tmp_path / "flat", {}, {"model.name": "r18"}).close()  # as a comparison has it
    with pytest.raises(InputError, match=r"model\.resolved: expected no such key"):
        RunFolder.open(tmp_path / "flat", {"model.name": "r18", "model.resolved": "a1b2"})
    with pytest.raises(InputError, match=r"proxy\.teleport: expected 3, as when .* got no such key\. .* another"):
        RunFolder.open(tmp_path / "one", other)
    with pytest.raises(InputError, match=r"proxy\.teleport: expected no such key, as when .* got 3\. .* another"):
        RunFolder.open(tmp_path / "other", one)


def test_a_run_of_an_earlier_version_had_the_defaults_of_later_keys(tmp_path: Path) -> None:
    now = {"proxy": asdict(ProxyConfig(iters=9)), "pruner": "none", "search.pruner": "none", "holdout": 0.2}
    now |= {"rungs": [0.25, 0.5], "pruner_options": {}, "model": {"name": "tiny", "resolved": None}}
    then = {"proxy": {key: value for key, value in now["proxy"].items() if key not in ("soft", "flip")}, "holdout": 0.2}
    then |= {"model": {"name": "tiny"}, "confirm": {"rivals": ["identity", "ce"], "seeds": 2, "top": 1}}
    RunFolder.create(tmp_path / "run", {}, then).close()
    RunFolder.open(tmp_path / "run", now).close()
    for changed in (ProxyConfig(iters=9, flip=False), ProxyConfig(iters=9, soft=SoftLabelConfig(width=5))):
        with pytest.raises(InputError, match=r"proxy\.(flip|soft): expected no such key"):
            RunFolder.open(tmp_path / "run", {**now, "proxy": asdict(changed)})


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    code = (
        "import sys; from pathlib import Path; from autoseg.store.run_folder import RunFolder\n"
        f"RunFolder.open(Path({str(path)!r}), {FIXED!r})"
    )
    with RunFolder.create(path, {}, FIXED):
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    message = second.stderr.strip().splitlines()[-1]
    assert second.returncode == 1 and f"got process {os.getpid()} on {socket.gethostname()} working in" in message
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # free again


def test_a_folder_that_cannot_be_written_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/run")):
        with pytest.raises(InputError, match="run folder: expected a folder that can be written"):
            RunFolder.create(path, {}, FIXED)
    RunFolder.create(tmp_path / "run", {}, FIXED).close()

    def read_only(lock: FileLock, timeout: float) -> None:  # permissions do not stop root, who may run this
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(FileLock, "acquire", read_only)
    with pytest.raises(InputError, match=r"run: Read-only file system"):
        RunFolder.open(tmp_path / "run", FIXED)


@pytest.mark.parametrize("full", ["fingerprint.json", "config.yaml"])
def test_a_folder_that_could_not_be_begun_may_be_tried_again(
    full: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by the process that failed, which a notebook's is."""

    def write(path: Path, text: str) -> None:
        if path.name == full:
            raise OSError(errno.ENOSPC, "no space")
        write_atomic(path, text)

    with monkeypatch.context() as patched, pytest.raises(OSError, match="no space"):
        patched.setattr("autoseg.store.run_folder.write_atomic", write)
        RunFolder.create(tmp_path / "run", {"metric": "biou"}, FIXED)
    RunFolder.create(tmp_path / "run", {"metric": "biou"}, FIXED).close()


def test_the_last_checkpoint_is_that_of_the_latest_round_however_many(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", {}, FIXED) as folder:
        for round in (9_999, 10_000):
            folder.save_checkpoint(round, {})
        assert folder.last_checkpoint() == (10_000, {})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1, "round": 3}', '{"schema": 2, "round": 3, "state": {}}'])
def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path, text: str) -> None:
    with RunFolder.create(tmp_path / "run", {}, FIXED) as folder:
        folder.save_checkpoint(3, {})
        (folder.path / "controller" / "round_0003.json").write_text(text)
        with pytest.raises(InputError, match=r"Delete round_0003\.json and resume"):
            folder.last_checkpoint()


def test_a_folder_that_another_run_took_is_left_to_it(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunFolder.create(path, {}, FIXED):
        shutil.rmtree(path)
        path.mkdir()
        (path / "owner.json").write_text('{"pid": 1, "host": "another"}')
    assert json.loads((path / "owner.json").read_text()) == {"pid": 1, "host": "another"}


def test_a_folder_that_another_start_took_meanwhile_is_left_to_it(tmp_path: Path, monkeypatch: Any) -> None:
    def late(path: Path) -> FileLock:
        (path / "config.yaml").write_text("theirs")
        return lock(path)

    lock = run_folder.locked
    monkeypatch.setattr(run_folder, "locked", late)
    with pytest.raises(InputError, match="resume="):
        RunFolder.create(tmp_path / "run", {}, FIXED)
    assert (tmp_path / "run" / "config.yaml").read_text() == "theirs"


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_refused(tmp_path: Path, error: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(InputError, match=f"a disk with file locks, got .*{os.strerror(error)}.*on another disk"):
        RunFolder.create(tmp_path / "run", {}, FIXED)
