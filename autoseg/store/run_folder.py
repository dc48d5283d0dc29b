"""The folder of one run: its layout and its lock."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from filelock import FileLock, Timeout

from autoseg.config import SearchConfig
from autoseg.errors import InputError
from autoseg.files import UNWRITABLE, no_space, write_atomic
from autoseg.store.run_files import SCHEMA, changed_data, differences, read_config, read_fingerprint, read_json
from autoseg.store.user_code import FORMULA, RESOLVED, changed_config

OWNER = "owner.json"  # names the process that works in the folder, or worked there last
TRAINERS = "trainers.json"
FINGERPRINT = "fingerprint.json"
DRAFT = re.compile(r"\..+\.(json|yaml)\.\d+")  # of a file that is being written, see `files.replacing`
LOG_OF_WANDB = "wandb/*/logs/debug-core.log"
NO_ACCESS = (
    errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG
)  # fmt: skip
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # network file systems may have none


class RunFolder:
    """A run folder, locked against other processes until `close`.

    It holds `config.yaml` (plain data with the schema's version), `fingerprint.json` (what may not change between a run
    and its continuation), `trials.db`, `controller/round_NNNN.json` (the state before that round's candidates are
    proposed), `log.txt` and, of a search from Python, `trainers.json`. Use `create` or `open` to get one.
    """

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> Self:
        """Make a new run folder.

        Args:
            path: must not exist, or be empty but for what a process leaves that is killed in here.
            config: the resolved configuration, plain data.
            fingerprint: plain data: all that must be the same when the run is resumed.

        Raises:
            InputError: the folder is in use, has files in it, or cannot be written.
        """
        with no_space(path), writable(path):
            path.mkdir(parents=True, exist_ok=True)
        with writable(path):
            _refuse_used(path)  # before anything is written into what may be no run's folder
        folder, fixed = cls(path, locked(path)), path / FINGERPRINT
        try:
            _refuse_used(path)
            _remove_drafts(path)
            try:
                write_atomic(fixed, json.dumps(fingerprint, indent=1, sort_keys=True))
                folder.write_config(config)  # last: from here on this is a run
            except BaseException:  # a full disk: this process, a notebook's, may try again
                fixed.unlink(missing_ok=True)
                raise
        except BaseException:
            folder._lock.release()
            raise
        return folder

    @classmethod
    def open(cls, path: Path, fingerprint: Mapping[str, Any], rounds: int | None = None) -> Self:
        """Lock an existing run folder, to go on with the run. Nothing of the run has been changed when this returns.

        Args:
            path: the folder.
            fingerprint: as in `create`.
            rounds: the number of rounds that a search shall have; None: the run is no search.

        Raises:
            InputError: not a run folder, of another version, in use, not writable, or `fingerprint` differs from the
                run's; fewer rounds than were begun, or the last checkpoint is damaged.
        """
        read_config(path)
        folder = cls(path, locked(path))
        try:
            _compare(path, json.loads(json.dumps(fingerprint)))  # in the form that a file returns
            if rounds is not None:
                folder._check_rounds(rounds)
            _remove_drafts(path)
        except BaseException:
            folder.close()
            raise
        return folder

    @classmethod
    def create_or_open(
        cls, path: Path, config: Mapping[str, Any], fingerprint: Mapping[str, Any], rounds: int | None = None
    ) -> Self:
        """Create a new run folder, or go on with the run that is in it; arguments and errors as in these two."""
        if not (path / "config.yaml").is_file():
            return cls.create(path, config, fingerprint)
        folder = cls.open(path, fingerprint, rounds)
        folder.write_config(config)
        return folder

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write `config.yaml`; also called when a resumed run has more rounds, other workers or another device."""
        write_config(self.path, config)

    @property
    def log(self) -> Path:
        """Path of `log.txt`: messages of the run and all output of its workers."""
        return self.path / "log.txt"

    @property
    def trials(self) -> Path:
        """Path of `trials.db`."""
        return self.path / "trials.db"

    def trainers(self) -> list[dict[str, Any]]:
        """Which functions made the trainings of a search from Python: {"after": how many trainings, "code": digest}.

        Raises:
            InputError: the file is damaged.
        """
        file = self.path / TRAINERS
        if not file.exists():  # before the first training, or of an earlier version
            return []
        known = read_json(file).get("trainers")
        kinds = {"after": int, "code": str}
        if not isinstance(known, list) or not all(
            isinstance(one, dict) and all(isinstance(one.get(key), kind) for key, kind in kinds.items())
            for one in known
        ):
            hint = "Delete it: it is then not known which train() made the trainings so far."
            raise InputError(str(file), "a list of trainers", "another file", hint)
        return known

    def write_trainers(self, trainers: Sequence[Mapping[str, Any]]) -> None:
        """Keep them."""
        write_atomic(self.path / TRAINERS, json.dumps({"trainers": list(trainers)}, indent=1))

    def save_checkpoint(self, round: int, state: Mapping[str, Any]) -> None:
        """Save the controller's state from before the candidates of `round` are proposed."""
        text = json.dumps({"schema": SCHEMA, "round": round, "state": state}, allow_nan=False)
        write_atomic(self.path / "controller" / f"round_{round:04d}.json", text)

    def last_checkpoint(self) -> tuple[int, dict[str, Any]] | None:
        """Return `(round, state)` of the latest checkpoint, or None before the first.

        Raises:
            InputError: the file is damaged. After it is deleted, the rounds since the checkpoint before are replayed.
        """
        paths = sorted(self.path.glob("controller/round_*.json"), key=lambda path: (len(path.name), path.name))
        if not paths:
            return None
        hint = f"Delete {paths[-1].name} and resume: the ledger replays its round, what completed is not trained again."
        content = read_json(paths[-1], hint)
        round, state = content.get("round"), content.get("state")
        if content.get("schema") != SCHEMA or not isinstance(state, dict) or not isinstance(round, int):
            raise InputError(str(paths[-1]), f"a controller checkpoint, version {SCHEMA}", "another file", hint)
        return round, state

    def _check_rounds(self, rounds: int) -> None:
        saved = self.last_checkpoint()
        begun = 0 if saved is None else saved[0]  # that round may have begun, which the ledger shows
        if self.trials.is_file():
            from autoseg.store.ledger import Ledger

            with Ledger(self.trials, ()) as ledger:
                begun = max([begun, *(record.round + 1 for record in ledger.records("search"))])
        if begun > rounds:
            hint = "A resumed run may have more rounds, and of those to come fewer."
            raise InputError("search.rounds", f"at least {begun}, which were begun", rounds, hint)

    def close(self) -> None:
        """Unlock the folder and record that this process has left it: the process may live on, as a notebook's does."""
        try:
            if self._lock.is_locked:
                with contextlib.suppress(OSError, InputError):  # a full disk, or a folder that was deleted
                    if read_json(self.path / OWNER).get("pid") == os.getpid():  # not of another run, made in its place
                        _own(self.path, left=True)
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_config(path: Path, config: Mapping[str, Any]) -> None:
    """Write the `config.yaml` of a run: plain data, and the version of its layout."""
    text = yaml.safe_dump({"schema": SCHEMA, **config}, sort_keys=False, allow_unicode=True)
    write_atomic(path / "config.yaml", text)


def new_run_path(root: Path, metric: str, data: str) -> Path:
    """Return `root/<metric>-<data>-<time>-<id>`, a name that needs no quotes in a shell or in a configuration."""
    words = (slug(metric), slug(data), time.strftime("%Y%m%d-%H%M%S"), secrets.token_hex(2))
    return root / "-".join(words)


def slug(text: str) -> str:
    """Return the text in a-z, 0-9, dot, underscore and hyphen: "miou+0.5*bf1" becomes "miou-0.5-bf1"."""
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-.") or "x"


def only_own_files(path: Path) -> None:
    """Raise if a folder has links to files outside it, or pipes: a process that goes on with a run writes to its files.

    W&B links to a log of its own in each of its folders, and writes to none from before.

    Raises:
        InputError: there is one.
    """
    home = path.resolve()
    for folder, folders, files in os.walk(path):
        for entry in (Path(folder, name) for name in (*folders, *files)):
            if entry.exists() and not (entry.is_file() or entry.is_dir()):
                raise InputError("run folder", "a folder of its own files", f"{entry}, which is no file")
            if entry.is_symlink() and not entry.resolve().is_relative_to(home) and not entry.match(LOG_OF_WANDB):
                hint = "It would be written to: put a copy in the place of the link, if you mean it."
                raise InputError(
                    "run folder", "a folder of its own files", f"{entry}, a link to {entry.readlink()}", hint
                )


def _remove_drafts(path: Path) -> None:
    """Remove drafts of files (see `files.replacing`) that a killed process left; no other process writes here now."""
    for folder in (path, path / "controller"):
        for draft in folder.glob(".*.*"):
            if DRAFT.fullmatch(draft.name):
                draft.unlink(missing_ok=True)


def _refuse_used(path: Path) -> None:
    names = {entry.name for entry in path.iterdir()}
    unused = {".lock", OWNER, ".DS_Store", *filter(DRAFT.fullmatch, names)}
    if OWNER in names:  # a process that was killed before it wrote config.yaml left nothing to go on with
        unused.add(FINGERPRINT)
    if names - unused:
        hint = "To go on with the run in it, type resume= instead." if "config.yaml" in names else ""
        raise InputError("run_dir", "a new or empty folder", str(path), hint)


def locked(path: Path) -> FileLock:
    """Lock an existing folder for this process, until it is released or the process ends.

    Raises:
        InputError: another process has it, it cannot be written, or its disk has no locks.
    """
    only_own_files(path)
    lock = FileLock(path / ".lock")
    try:
        with writable(path):
            lock.acquire(timeout=0)
    except Timeout as error:
        owner = path / OWNER
        who = read_json(owner) if owner.exists() else {}
        got = f"process {who.get('pid', 'unknown')} on {who.get('host', 'an unknown host')} working in {path}"
        raise InputError("run folder", "one that no other process uses", got, "Wait for it, or stop it.") from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        hint = "So that two processes never write into one run: run_dir= on another disk."
        raise InputError("run folder", "a disk with file locks", f"{path}: {error.strerror}", hint) from error
    _own(path)
    return lock


def _own(path: Path, left: bool = False) -> None:
    """Record that this process works in the folder, or that it did and has `left`."""
    who = {"pid": os.getpid(), "host": socket.gethostname(), "began": began(os.getpid()), "left": left}
    write_atomic(path / OWNER, json.dumps(who))


def began(pid: int) -> int | None:
    """Return when a process began, in ticks since the machine started, which no change of the clock affects.

    None if it is not known.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text.rpartition(")")[2].split()[19])  # the name before may have anything in it
    except (OSError, ValueError, IndexError):
        return None


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn the system's errors about a folder that cannot be created or written into errors for the user."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ACCESS:
            raise
        raise InputError(*UNWRITABLE, f"{path}: {error.strerror}") from error


def _compare(path: Path, now: Mapping[str, Any]) -> None:
    """Raise if a fingerprint differs from that of the run in `path`, with the first key that differs."""
    for key, old, new in differences(read_fingerprint(path), now):
        if old is ... and new == _default(key):  # a key of a later version, whose default is what was done before
            continue
        if old is ... and key.startswith(FORMULA):  # searches from Python did not keep it
            continue
        if (key == "confirm" and new is ...) or (key == f"model.{RESOLVED}" and old is ... and new is None):
            continue  # as versions of November 2026 kept it
        if key == f"model.{RESOLVED}" and ... not in (old, new):  # model.config itself is the same
            raise changed_config("model.config", now["model"]["config"], "Take back the change, or start a new run.")
        if key == "data" and ... not in (old, new):
            raise changed_data(
                path, "They were changed, or are read otherwise here: put them back, or start a new run."
            )
        was, given = ("no such key" if value is ... else repr(value) for value in (old, new))
        hint = "It would be another search: give the old value, or start a new run."
        if ... in (old, new):
            hint = "The run is of another version of autoseg, or it would be another search: start a new one."
        raise InputError(key, f"{was}, as when the run began", given, hint)


def _default(key: str) -> Any:
    """Return the default of a dotted key of the configuration, or of its section `search`; `...` if there is none."""
    value: Any = SearchConfig()
    if hasattr(value.search, key):
        value = value.search
    for part in key.split("."):
        value = getattr(value, part, ...)
    return asdict(value) if is_dataclass(value) else value  # type: ignore[arg-type]
