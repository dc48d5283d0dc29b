"""The ledger: every training is written before it runs, and its result before the next step uses it.

It is an Optuna study per phase, in one SQLite file that `optuna-dashboard` opens. Only one process writes (the run
folder's lock ensures it), and it reads the file once, when it opens it, so that a round costs the same after any
history.

What was written survives a kill of the process at any point, and of the machine as far as its disk is honest about
what it has stored: SQLite's rollback journal with synchronous=FULL. SQLite's write-ahead log would wait for the disk
less often, but it cannot be read over a network file system, from where runs are watched, and takes three files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
import sqlite3
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import optuna
from optuna.distributions import FloatDistribution
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from autoseg.errors import InputError
from autoseg.execution import Outcome
from autoseg.files import no_space_error, unwritable
from autoseg.quiet import quiet_optuna
from autoseg.store.records import COMPLETE, PRUNED, RUNNING, TrialRecord, usable

STUDIES = ("search", "confirm", "floor")
PREFIX = "theta."
PLAN = ("round", "index", "kind", "name", "seed")  # fields of a record that are stored when it is planned
RESULT = ("state", "seconds", "attempts", "error", "ended")  # fields stored with the result, under "outcome"
BUSY_S = 5.0  # how long SQLite itself waits for a dashboard that is reading; Ctrl-C has no effect then
LOOK_S, WRITE_S = 60.0, 600.0  # how long a locked file is tried again: by readers, and before a run is given up

LOCKED = "database is locked"  # SQLite's message
DATABASE_ERRORS = (SQLAlchemyError, optuna.exceptions.StorageInternalError)  # Optuna wraps some of them

FINAL = {COMPLETE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED}  # states with a reward, and Optuna's for them

# Parts of a database that take no room in the file but may be endless when read. No ledger has them.
COMPUTED = (
    "SELECT type, name FROM sqlite_master WHERE type IN ('view', 'trigger') OR sql LIKE '%VIRTUAL TABLE%'",
    "SELECT 'computed column', x.name FROM sqlite_master m, pragma_table_xinfo(m.name) x WHERE x.hidden",
)

T = TypeVar("T")


class Ledger:
    """The trainings of a run, by study: "search", "confirm", and "floor" (the rival that a floor refers to).

    Args:
        path: `trials.db`; created if missing.
        names: names of the coordinates of θ, in order; a trial's parameters are called "theta.<name>". If empty, θ is
            read in an arbitrary order, the same for all trainings.
        read_only: for reading a run from another process: never writes and takes no lock. If the run was killed while
            it wrote, the last complete state is read.
        studies: names of the studies; others than a search's for runs that are no search.

    Raises:
        InputError: the file is not such a ledger, it cannot be written, the disk is full, or another program has locked
            it for ten minutes (from every method that writes).
    """

    def __init__(
        self, path: Path, names: Sequence[str], *, read_only: bool = False, studies: Sequence[str] = STUDIES
    ) -> None:
        self._path, self._read_only, self.studies = path, read_only, tuple(studies)
        self._params = [PREFIX + name for name in names]
        self._axis = dict.fromkeys(self._params, FloatDistribution(0.0, 1.0))
        if read_only and not path.is_file():
            raise InputError("trials.db", "a file", f"nothing at {path}")
        self._rows: dict[tuple[str, int], int] = {}
        self._planned = dict.fromkeys(self.studies, 0)  # see `planned`
        self._patience_s = LOOK_S if read_only else WRITE_S
        with self._faults():
            try:
                self._open(path, read_only)
            except DATABASE_ERRORS:
                if not read_only:
                    raise
                with _copied(path) as copy:  # read here once, completely
                    self._open(copy, read_only)

    def _open(self, path: Path, read_only: bool) -> None:
        """Connect to the file, which may be a copy of the run's, and read it."""
        place = f"file:{quote(str(path))}?mode={'ro' if read_only else 'rwc'}"  # not in a URL: a folder may be a#b
        wait = min(BUSY_S, self._patience_s)

        def connect() -> sqlite3.Connection:
            return sqlite3.dbapi2.connect(place, uri=True, timeout=wait, check_same_thread=False)

        self._tried(_only_tables, connect)
        self._storage = self._tried(lambda: RDBStorage(f"sqlite:///{path.name}", engine_kwargs={"creator": connect}))
        self._ids = self._tried(lambda: self._studies(read_only))
        try:
            self._records = {study: self._tried(self._read, study) for study in self.studies}
        except (ValueError, TypeError, AttributeError) as error:  # no JSON, or of another kind than we wrote
            raise RuntimeError(f"a row that cannot be read: {error!r}") from error

    def records(self, study: str) -> list[TrialRecord]:
        """Return all trainings of a study, in the order in which they were recorded; none if the study is missing."""
        return list(self._records.get(study, {}).values())

    def planned(self, study: str) -> int:
        """Return the number of rows: all trainings ever planned, including those that another has replaced."""
        return self._planned[study]

    def find(self, study: str, key: tuple[str, int]) -> TrialRecord | None:
        """Return the training with this key (see `TrialRecord.key`), or None."""
        return self._records[study].get(key)

    def add(self, study: str, record: TrialRecord) -> TrialRecord:
        """Write a planned training and return it with its number. It is on the disk when this returns.

        A training with the same key is replaced; its row stays in the file, where it can still be looked at.
        """
        record = dataclasses.replace(record, number=self._planned[study])
        theta = dict(zip(self._params, record.theta, strict=True)) if record.theta is not None else {}
        trial = create_trial(
            state=TrialState.RUNNING,
            params=theta,
            distributions={name: self._axis[name] for name in theta},
            user_attrs={name: getattr(record, name) for name in PLAN},
        )
        with self._faults():
            row = self._tried(self._storage.create_new_trial, self._ids[study], trial)
            self._rows[study, record.number] = row
        self._planned[study] += 1
        self._records[study][record.key] = record
        return record

    def finish(self, study: str, record: TrialRecord, outcome: Outcome, reward: float) -> TrialRecord:
        """Write the result of a training and return it; if its reward is not a usable number, it counts as diverged.

        Scores at the rungs become Optuna's intermediate values. The study's own state is written last: until then, the
        training counts as not done.
        """
        judged = outcome.state in FINAL
        state = "diverged" if judged and not usable(reward) else outcome.state
        done = state in FINAL
        finished = dataclasses.replace(
            record,
            state=state,
            scores={_writable(name): score if usable(score) else math.nan for name, score in outcome.scores.items()},
            reward=reward if done else math.nan,
            seconds=outcome.seconds,
            attempts=outcome.attempts,
            error=_writable(outcome.error) or _reason(state, outcome),
            ended=time.time(),
            rungs={iteration: score if usable(score) else math.nan for iteration, score in outcome.rungs.items()},
        )
        attributes = {
            "scores": {name: None if math.isnan(score) else score for name, score in finished.scores.items()},
            "outcome": {"device": outcome.device, **{name: getattr(finished, name) for name in RESULT}},
        }
        final = FINAL.get(state, TrialState.FAIL)
        with self._faults():
            row = self._rows[study, record.number]
            for iteration, score in finished.rungs.items():
                self._tried(self._storage.set_trial_intermediate_value, row, iteration, score)
            for name, value in attributes.items():
                self._tried(self._storage.set_trial_user_attr, row, name, value)
            self._tried(self._storage.set_trial_state_values, row, final, [reward] if done else None)
        self._records[study][record.key] = finished
        return finished

    def drop(self, study: str, record: TrialRecord) -> None:
        """Remove a planned training that is no longer needed; its row stays in the file, as a failed one."""
        self.finish(study, record, Outcome("failed", attempts=0, error="no longer asked for"), math.nan)
        del self._records[study][record.key]

    def close(self) -> None:
        """Close the file."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _studies(self, read_only: bool) -> dict[str, int]:
        """Return the id of every study; missing ones are created, unless the ledger is read only."""
        known = {study.study_name for study in self._storage.get_all_studies()}
        for study in () if read_only else [name for name in self.studies if name not in known]:
            with quiet_optuna():
                self._storage.create_new_study([StudyDirection.MAXIMIZE], study)
        there = [study for study in self.studies if not read_only or study in known]
        return {study: self._storage.get_study_id_from_name(study) for study in there}

    def _tried(self, step: Callable[..., T], *given: Any) -> T:
        """Run a step, again and again while another program has the file locked.

        A step that fails must leave nothing behind. SQLite waits for a lock only where it believes that this helps, and
        over a network file system often not at all.
        """
        deadline, pause = time.monotonic() + self._patience_s, 0.05
        while True:
            try:
                return step(*given)
            except DATABASE_ERRORS as error:
                if LOCKED not in _said(error) or time.monotonic() + pause > deadline:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    def _read(self, study: str) -> dict[tuple[str, int], TrialRecord]:
        """Return all trainings of a study, read table by table: an eighth of the time that Optuna's own trials take."""
        if study not in self._ids:
            return {}
        attributes: dict[int, dict[str, Any]] = defaultdict(dict)
        theta: dict[int, dict[str, float]] = defaultdict(dict)
        rungs: dict[int, dict[int, float]] = defaultdict(dict)
        with self._storage.engine.connect() as tables:

            def rows(columns: str, table: str) -> Iterator[Any]:
                where = "WHERE trial_id IN (SELECT trial_id FROM trials WHERE study_id = :study)"
                return iter(tables.execute(text(f"SELECT {columns} FROM {table} {where}"), {"study": self._ids[study]}))

            for trial, name, value in rows("trial_id, key, value_json", "trial_user_attributes"):
                attributes[trial][name] = json.loads(value)
            for trial, name, value in rows("trial_id, param_name, param_value", "trial_params"):
                theta[trial][name] = value
            for trial, step, value in rows("trial_id, step, intermediate_value", "trial_intermediate_values"):
                rungs[trial][step] = math.nan if value is None else value
            values = dict(tuple(row) for row in rows("trial_id, value", "trial_values"))
            trials = sorted(rows("number, trial_id, state", "trials"))
        records: dict[tuple[str, int], TrialRecord] = {}
        for number, trial, state in trials:
            self._rows[study, number], self._planned[study] = trial, number + 1
            running = state == TrialState.RUNNING.name
            if "round" not in attributes[trial] or not (running or "outcome" in attributes[trial]):
                continue  # added by another program, or ended by one: then it is planned again
            record = self._record(number, attributes[trial], theta[trial])
            if not running:
                record = _finished(record, attributes[trial], values.get(trial))
                record = dataclasses.replace(record, rungs=dict(sorted(rungs[trial].items())))
            _check_kinds(record)
            if record.state != RUNNING and not record.attempts:
                records.pop(record.key, None)  # see `drop`
            else:
                records[record.key] = record
        return records

    def _record(self, number: int, attributes: dict[str, Any], theta: dict[str, float]) -> TrialRecord:
        plan: dict[str, Any] = {name: attributes[name] for name in PLAN}
        raw = tuple(theta[name] for name in self._params or sorted(theta)) if theta else None
        return TrialRecord(**plan, theta=raw, number=number)

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """Turn errors of the database into errors for the user."""
        try:
            yield
        except (SQLAlchemyError, optuna.exceptions.OptunaError, KeyError, RuntimeError) as error:
            said = _said(error)
            if "disk is full" in said:
                raise no_space_error(self._path) from error
            lost = "readonly database" in said and not self._read_only
            if lost or "disk I/O error" in said:  # the latter of a quota too
                raise unwritable(self._path.parent, str(error.__cause__ or error).splitlines()[0]) from error
            hint = "It is damaged or from another version: the run cannot go on, but a loss.json beside it can be used."
            if LOCKED in said:
                hint = "Another program has it open: close that, and go on with the run. All results so far are kept."
            said = " ".join(said.split("[SQL:")[0].split())[:300]
            raise InputError(str(self._path), "a readable ledger of this search", said, hint) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _only_tables(connect: Callable[[], sqlite3.Connection]) -> None:
    """Raise if the file has parts that compute their content when they are read.

    Raises:
        RuntimeError: it has a view, a trigger or the like.
    """
    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
    with engine.connect() as tables:
        for query in COMPUTED:
            if (found := tables.execute(text(query)).first()) is not None:
                raise RuntimeError(f"the {found[0]} {found[1]}, which no ledger has")


@contextlib.contextmanager
def _copied(path: Path) -> Iterator[Path]:
    """Yield a copy of a file that cannot be read in place, without an unfinished write. The file itself is not changed.

    A process killed while it wrote leaves what only a writer may undo, and a network file system may refuse locks.
    """
    with tempfile.TemporaryDirectory(prefix="autoseg-") as folder:
        copy = Path(folder) / path.name
        for end in ("", "-journal", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(path.with_name(path.name + end), copy.with_name(copy.name + end))
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(copy)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()  # undoes the unfinished transaction
        yield copy


def _said(error: BaseException) -> str:
    """Return the message of the database with Optuna's, which has its own wording for every failure."""
    return f"{error} {error.__cause__ or ''}"


def _writable(text: str) -> str:
    """Return the text with lone surrogates escaped; Python makes them from file names that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _check_kinds(record: TrialRecord) -> None:
    """Raise if a value has another type than we write: a file from elsewhere, or an edited one, may contain anything.

    Raises:
        ValueError: there is such a value.
    """
    numbers = [*record.scores.values(), *(record.theta or ()), *record.rungs.values(), record.reward]
    kinds: list[tuple[type | UnionType, list[Any]]] = [
        (int, [record.round, record.index, record.seed, record.attempts, *record.rungs]),
        (str, [record.kind, record.name, record.state, record.error, *record.scores]),
        (int | float, [*numbers, record.seconds, record.ended]),
    ]
    for kind, values in kinds:
        for value in values:
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(f"{record.name!r} has {value!r}")
            if isinstance(value, str):
                value.encode()  # half a character cannot be written anywhere
    if not all(math.isnan(value) or usable(value) for value in numbers):
        raise ValueError(f"{record.name!r} has scores beyond all numbers")
    if not all(map(math.isfinite, (record.seconds, record.ended))):
        raise ValueError(f"{record.name!r} took {record.seconds} s")


def _reason(state: str, outcome: Outcome) -> str:
    """Return why a training is not complete, for those that raised nothing."""
    if state == COMPLETE:
        return ""
    if state == PRUNED:
        iteration, score = list(outcome.rungs.items())[-1]
        return f"stopped after {iteration} iterations, with a score of {score:.4f}"
    return "the score is not finite"


def _finished(record: TrialRecord, attributes: dict[str, Any], value: float | None) -> TrialRecord:
    """Return the record with its result."""
    return dataclasses.replace(
        record,
        **{name: attributes["outcome"][name] for name in RESULT},
        scores={k: math.nan if v is None else v for k, v in attributes["scores"].items()},
        reward=value if value is not None else math.nan,
    )
