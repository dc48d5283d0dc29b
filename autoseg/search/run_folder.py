"""The folder of one run: its layout and its lock."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import secrets
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Self

import yaml
from filelock import FileLock, Timeout

from autoseg.config import SearchConfig
from autoseg.errors import InputError
from autoseg.files import UNWRITABLE, no_space, write_atomic
from autoseg.search.own import RESOLVED, changed_config

SCHEMA = 1
KINDS = {"search": "a search", "compare": "a comparison", "trust": "a trust run", "retrain": "a training by retrain"}
OWNER = "owner.json"  # which process works in the folder, or did last
VALUES, DEPTH = 100_000, 100  # more of them, or nested deeper, no configuration has; classes and colours are thousands
NO_ACCESS = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EEXIST)


class RunFolder:
    """A run folder, locked against other processes until `close`.

    `config.yaml` (plain data with the schema's version), `fingerprint.json` (what may not change between a run
    and its continuation), `trials.db`, `controller/round_NNNN.json` (the state before that round asks), `log.txt`.
    Use `create` or `open`.
    """

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> Self:
        """Make a new run folder.

        Args:
            path: must not exist, or be empty.
            config: the resolved configuration, plain data.
            fingerprint: flat, plain data: all that must be the same when the run is resumed.

        Raises:
            InputError: the folder is in use, has files in it, or cannot be written.
        """
        with no_space(path), writable(path):
            path.mkdir(parents=True, exist_ok=True)
        with writable(path):
            _refuse_used(path)  # before anything is written into what may be no run's folder
        folder, fixed = cls(path, _locked(path)), path / "fingerprint.json"
        try:
            _refuse_used(path)
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
            rounds: how many a search is to have; None: it is none.

        Raises:
            InputError: not a run folder, of another version, in use, not writable, or `fingerprint` is not what it was;
                fewer rounds than were begun, or the last checkpoint is damaged.
        """
        read_config(path)
        folder = cls(path, _locked(path))
        try:
            _compare(read_fingerprint(path), json.loads(json.dumps(fingerprint)))  # as a file gives it back
            if rounds is not None:
                folder._check_rounds(rounds)
            _sweep(path)
        except BaseException:
            folder.close()
            raise
        return folder

    @classmethod
    def create_or_open(
        cls, path: Path, config: Mapping[str, Any], fingerprint: Mapping[str, Any], rounds: int | None = None
    ) -> Self:
        """Make a new run folder, or go on with the run that is in it; arguments and errors as in these two."""
        if not (path / "config.yaml").is_file():
            return cls.create(path, config, fingerprint)
        folder = cls.open(path, fingerprint, rounds)
        folder.write_config(config)
        return folder

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write `config.yaml`; again when a resumed run has more rounds, other workers or another device."""
        text = yaml.safe_dump({"schema": SCHEMA, **config}, sort_keys=False, allow_unicode=True)
        write_atomic(self.path / "config.yaml", text)

    @property
    def log(self) -> Path:
        """`log.txt`: messages of the run and all output of its workers."""
        return self.path / "log.txt"

    @property
    def trials(self) -> Path:
        """`trials.db`."""
        return self.path / "trials.db"

    def save_checkpoint(self, round: int, state: Mapping[str, Any]) -> None:
        """Keep the controller's state as it is before `round` asks."""
        text = json.dumps({"schema": SCHEMA, "round": round, "state": state}, allow_nan=False)
        write_atomic(self.path / "controller" / f"round_{round:04d}.json", text)

    def last_checkpoint(self) -> tuple[int, dict[str, Any]] | None:
        """`(round, state)` of the latest checkpoint, or None before the first.

        Raises:
            InputError: the file is damaged. Without it, the rounds since the one before are replayed.
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
        begun = 0 if saved is None else saved[0]  # that round may be under way, which the ledger knows
        if self.trials.is_file():
            from autoseg.search.ledger import Ledger

            with Ledger(self.trials, ()) as ledger:
                begun = max([begun, *(record.round + 1 for record in ledger.records("search"))])
        if begun > rounds:
            hint = "A resumed run may have more rounds, and of those to come fewer."
            raise InputError("search.rounds", f"at least {begun}, which were begun", rounds, hint)

    def close(self) -> None:
        """Unlock it, and say that this process has left it: it may live on, as a notebook's does."""
        try:
            if self._lock.is_locked:
                with contextlib.suppress(OSError, InputError):  # a full disk, or a folder that is not wanted any more
                    if read_json(self.path / OWNER).get("pid") == os.getpid():  # not of another run, made in its place
                        _own(self.path, left=True)
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def new_run_path(root: Path, metric: str, data: str) -> Path:
    """`root/<metric>-<data>-<time>-<id>`; a name that no shell or config grammar trips over."""
    words = (slug(metric), slug(data), time.strftime("%Y%m%d-%H%M%S"), secrets.token_hex(2))
    return root / "-".join(words)


def slug(text: str) -> str:
    """The text in a-z, 0-9, dot, underscore and hyphen: "miou+0.5*bf1" becomes "miou-0.5-bf1"."""
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-.") or "x"


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of a run, without its schema version. Takes no lock: for those who only look.

    Raises:
        InputError: not a run folder, or one of another version.
    """
    file = path / "config.yaml"
    try:
        text = read_file(file)
    except FileNotFoundError as error:
        got = f"{path}, which has none" if path.is_dir() else f"{path}, which does not exist"
        raise InputError("run folder", "a folder with a config.yaml, as a run has it", got) from error
    except (OSError, ValueError) as error:
        raise InputError("run folder", "a folder with a readable config.yaml", f"{path} ({error})") from error
    try:
        content = yaml.load(text, Loader=_Bounded)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: the 45th of a month, 5000 digits
        said = " ".join(str(error).split())
        raise InputError("run folder", "a folder with a readable config.yaml", f"{path} ({said})") from error
    schema = content.pop("schema", None) if isinstance(content, dict) else None
    if schema != SCHEMA:
        hint = "It was written by another version of autoseg; use that one."
        raise InputError("run folder", f"version {SCHEMA}", f"version {schema} in {path}", hint)
    return dict(content)


class _Bounded(yaml.SafeLoader):
    """Reads plain data of which no more comes out than a configuration has: of a few lines, aliases make billions."""

    def get_single_node(self) -> Any:
        """The whole text, composed.

        Raises:
            YAMLError: it is too much, or has a list in itself.
        """
        node = super().get_single_node()
        values, depth = _measured(node, {})
        if values > VALUES or depth > DEPTH:
            raise yaml.YAMLError(f"more than {VALUES:,} values, or nested deeper than {DEPTH}, aliases filled in")
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """A whole number of 64 bits, as all that count something are.

        Raises:
            YAMLError: it is larger.
        """
        value: int = super().construct_yaml_int(node)
        if abs(value) >= 2**63:
            raise yaml.YAMLError("a whole number of more than 64 bits")
        return value


_Bounded.add_constructor("tag:yaml.org,2002:int", _Bounded.construct_yaml_int)


def _measured(node: yaml.Node | None, known: dict[int, tuple[float, float]]) -> tuple[float, float]:
    """How many values are in a node and how deep it is, with each alias counted as what it stands for."""
    if id(node) not in known:
        known[id(node)] = (math.inf, math.inf)  # what is in itself has no end
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [one for pair in parts for one in pair] if isinstance(node, yaml.MappingNode) else parts
        found = [_measured(part, known) for part in parts]
        known[id(node)] = 1.0 + sum(n for n, _ in found), 1 + max((deep for _, deep in found), default=0)
    return known[id(node)]


@contextlib.contextmanager
def all_settings(path: Path) -> Iterator[None]:
    """Turn a setting that is missing or wrong in a run's files into what the user is told; an `InputError` passes."""
    try:
        yield
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
        hint = "It was changed, or written by another version of autoseg."
        got = f"{path}, in which {error!r} is missing or wrong"
        raise InputError("run folder", "one with all its settings", got, hint) from error


def kind_of(config: Mapping[str, Any], path: Path, among: Collection[str], field: str = "RUN") -> str:
    """Which command's run it is that has this configuration: one of `KINDS`.

    Args:
        config: as `read_config` gives it.
        path: of the run.
        among: the kinds that will do.
        field: where the user named the run.

    Raises:
        InputError: it is of another kind.
    """
    marks = {"compare": {"losses"}, "trust": {"run"}, "retrain": {"train", "loss"}}
    kind = next((kind for kind, keys in marks.items() if keys <= config.keys()), "search")
    if kind not in among:
        expected = " or ".join(KINDS[one] for one in among)
        raise InputError(field, f"the folder of {expected}", f"{path}, which is of {KINDS[kind]}")
    return kind


def read_fingerprint(path: Path) -> dict[str, Any]:
    """What may not change between a run and its continuation. Takes no lock.

    Raises:
        InputError: the file is missing or damaged.
    """
    return read_json(path / "fingerprint.json")


def only_own_files(path: Path) -> None:
    """Refuse a folder with links to what lies outside, or with pipes: whoever goes on with a run writes to its files.

    Raises:
        InputError: there is one.
    """
    home = path.resolve()
    for folder, folders, files in os.walk(path):
        for entry in (Path(folder, name) for name in (*folders, *files)):
            if entry.exists() and not (entry.is_file() or entry.is_dir()):
                raise InputError("run folder", "a folder of its own files", f"{entry}, which is no file")
            if entry.is_symlink() and not entry.resolve().is_relative_to(home):
                hint = "It would be written to: put a copy in the place of the link, if you mean it."
                raise InputError(
                    "run folder", "a folder of its own files", f"{entry}, a link to {entry.readlink()}", hint
                )


def _sweep(path: Path) -> None:
    """Remove drafts of files (see `files.replacing`) that a killed process left; nobody else writes here now."""
    for folder in (path, path / "controller"):
        for draft in folder.glob(".*.*"):
            if re.fullmatch(r"\..+\.(json|yaml)\.\d+", draft.name):
                draft.unlink(missing_ok=True)


def _refuse_used(path: Path) -> None:
    if any(entry.name not in (".lock", OWNER) for entry in path.iterdir()):
        hint = "To go on with the run in it, type resume= instead." if (path / "config.yaml").exists() else ""
        raise InputError("run_dir", "a new or empty folder", str(path), hint)


def _locked(path: Path) -> FileLock:
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
    _own(path)
    return lock


def _own(path: Path, left: bool = False) -> None:
    """Say that this process works in the folder, or that it did and has `left`."""
    who = {"pid": os.getpid(), "host": socket.gethostname(), "began": began(os.getpid()), "left": left}
    write_atomic(path / OWNER, json.dumps(who))


def began(pid: int) -> int | None:
    """When a process began, in ticks since its machine did: what no setting of a clock changes. None: not known."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return int(text.rpartition(")")[2].split()[19])  # the name before may have anything in it
    except (OSError, ValueError, IndexError):
        return None


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """Turn what the system says of a folder that cannot be made or written into what the user is told."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ACCESS:
            raise
        raise InputError(*UNWRITABLE, f"{path}: {error.strerror}") from error


def differences(then: Mapping[str, Any], now: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted key and both values, wherever two fingerprints differ; `...` where one has no such key."""
    for key in [*now, *sorted(then.keys() - now.keys())]:
        one, other = then.get(key, ...), now.get(key, ...)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from differences(one, other, f"{at}{key}.")
        elif one != other:
            yield at + key, one, other


def _compare(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse another fingerprint than the run's, by the first key that differs."""
    for key, old, new in differences(then, now):
        if old is ... and new == _default(key):  # a key of a later version, whose default is what was done before
            continue
        if key == f"model.{RESOLVED}" and ... not in (old, new):  # of the same model.config, which stands before it
            raise changed_config("model.config", now["model"]["config"], "Take back the change, or start a new run.")
        was, given = ("no such key" if value is ... else repr(value) for value in (old, new))
        hint = "It would be another search: give the old value, or start a new run."
        if ... in (old, new):
            hint = "The run is of another version of autoseg, or it would be another search: start a new one."
        raise InputError(key, f"{was}, as when the run began", given, hint)


def _default(key: str) -> Any:
    """Of a dotted key of the configuration; `...` if there is no such key."""
    value: Any = SearchConfig()
    for part in key.split("."):
        value = getattr(value, part, ...)
    return asdict(value) if is_dataclass(value) else value  # type: ignore[arg-type]


def read_file(path: Path) -> str:
    """The text of a file; an `OSError` of what is no file: a pipe or a device in a run folder would never end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a file", str(path))
    return path.read_text(encoding="utf-8")


def read_json(path: Path, hint: str = "") -> dict[str, Any]:
    """The JSON object in a file; an `InputError` that names the file if there is none."""
    try:
        content = json.loads(read_file(path))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(str(path), "a readable JSON file", str(error), hint) from error
    if not isinstance(content, dict):
        raise InputError(str(path), "a JSON object", type(content).__name__, hint)
    return content
