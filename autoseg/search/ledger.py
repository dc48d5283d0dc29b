"""The ledger: every training is written before it runs, and its result before the next step acts on it.

An Optuna study per phase, in one SQLite file that `optuna-dashboard` opens. One process writes (the run
folder's lock sees to that); it reads the file once, when it opens it: a round costs the same after any history.

What was written survives the process, killed at any point, and the machine too, as far as its disk keeps what it says
it has: SQLite's rollback journal with synchronous=FULL. Its write-ahead log would wait for the disk less often, but
cannot be read over a network file system, from where runs are watched, and is three files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import optuna
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from autoseg.errors import InputError
from autoseg.execution import Outcome
from autoseg.search import tables
from autoseg.search.records import COMPLETE, PRUNED, TrialRecord
from autoseg.search.run_folder import no_space_error

STUDIES = ("search", "confirm", "floor")
PREFIX = "theta."
PLAN = ("round", "index", "kind", "name", "seed")
BUSY_S = 60.0  # how long a write waits for a dashboard that is reading

FINAL = {COMPLETE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED}  # states with a reward, and Optuna's for them

optuna.logging.set_verbosity(optuna.logging.ERROR)


class Ledger:
    """The trainings of a run, by study: "search", "confirm", and "floor" (the rival a floor refers to).

    Args:
        path: `trials.db`; made if missing.
        names: of the coordinates of θ, in order; a trial's parameters are called "theta.<name>".
        read_only: for those who look at a run from outside: never writes, needs no lock.
        studies: which there are; others than a search's for runs that are no search.

    Raises:
        InputError: the file is not such a ledger, or the disk is full (from every method that writes).
    """

    def __init__(
        self, path: Path, names: Sequence[str], *, read_only: bool = False, studies: Sequence[str] = STUDIES
    ) -> None:
        self._path, self.studies = path, tuple(studies)
        self._params = [PREFIX + name for name in names]
        if read_only and not path.exists():
            raise InputError("trials.db", "a file", f"nothing at {path}")
        self._rows: dict[tuple[str, int], int] = {}
        url = f"sqlite:///file:{path}?mode=ro&uri=true" if read_only else f"sqlite:///{path}"
        with self._faults():
            self._storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": BUSY_S}})
            known = {study.study_name for study in self._storage.get_all_studies()}
            for study in () if read_only else [name for name in studies if name not in known]:
                self._storage.create_new_study([StudyDirection.MAXIMIZE], study)
            there = [study for study in studies if not read_only or study in known]
            self._ids = {study: self._storage.get_study_id_from_name(study) for study in there}
            self._records = {study: self._read(study) for study in studies}

    def records(self, study: str) -> list[TrialRecord]:
        """All trainings of a study, in the order in which they were recorded; none of a study it lacks."""
        return list(self._records.get(study, {}).values())

    def find(self, study: str, key: tuple[str, int]) -> TrialRecord | None:
        """The training with this key (see `TrialRecord.key`)."""
        return self._records[study].get(key)

    def add(self, study: str, planned: Sequence[TrialRecord]) -> list[TrialRecord]:
        """Write planned trainings, all or none; returns them with their numbers. Then they are on the disk."""
        first = len(self._records[study])
        records = [dataclasses.replace(record, number=first + i) for i, record in enumerate(planned)]
        with self._faults():
            rows = tables.plan(self._storage.engine, self._ids[study], [self._trial(record) for record in records])
        self._rows.update(((study, record.number), row) for record, row in zip(records, rows, strict=True))
        self._records[study].update((record.key, record) for record in records)
        return records

    def _trial(self, record: TrialRecord) -> tables.Trial:
        theta = dict(zip(self._params, record.theta, strict=True)) if record.theta is not None else {}
        return tables.Trial(record.number, theta, {name: getattr(record, name) for name in PLAN})

    def finish(self, study: str, record: TrialRecord, outcome: Outcome, reward: float) -> TrialRecord:
        """Write the result of a training, whole or not at all; one with a reward that is not finite has diverged.

        Scores at the rungs become Optuna's intermediate values.
        """
        judged = outcome.state in FINAL
        state = "diverged" if judged and not math.isfinite(reward) else outcome.state
        done = state in FINAL
        finished = dataclasses.replace(
            record,
            state=state,
            scores=dict(outcome.scores),
            reward=reward if done else math.nan,
            seconds=outcome.seconds,
            attempts=outcome.attempts,
            error=outcome.error or _reason(state, outcome),
            ended=time.time(),
            rungs=dict(outcome.rungs),
        )
        attributes = {
            "scores": {name: score if math.isfinite(score) else None for name, score in finished.scores.items()},
            "outcome": {
                "state": state,
                "seconds": outcome.seconds,
                "attempts": outcome.attempts,
                "device": outcome.device,
                "error": finished.error,
            },
        }
        row, final = self._rows[study, record.number], FINAL.get(state, TrialState.FAIL)
        with self._faults():
            tables.finish(self._storage.engine, row, final, reward if done else None, attributes, outcome.rungs)
        self._records[study][record.key] = finished
        return finished

    def close(self) -> None:
        """Give the file back."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _read(self, study: str) -> dict[tuple[str, int], TrialRecord]:
        if study not in self._ids:
            return {}
        records = {}
        for trial in tables.read(self._storage.engine, self._ids[study]):
            self._rows[study, trial.number] = trial.id
            record = self._record(trial)
            records[record.key] = record
        return records

    def _record(self, trial: tables.Trial) -> TrialRecord:
        plan: dict[str, Any] = {name: trial.attributes[name] for name in PLAN}
        theta = tuple(trial.params[name] for name in self._params) if trial.params else None
        record = TrialRecord(**plan, theta=theta, number=trial.number)
        return record if trial.state == tables.RUNNING else _finished(record, trial)

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """Turn what the database throws into what the user is told."""
        try:
            yield
        except (SQLAlchemyError, optuna.exceptions.OptunaError, KeyError, RuntimeError) as error:
            said = f"{error} {error.__cause__ or ''}"
            if "disk is full" in said:
                raise no_space_error(self._path) from error
            hint = "It is damaged, in use, or from another version."
            raise InputError(str(self._path), "a readable ledger of this search", said[:300], hint) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _reason(state: str, outcome: Outcome) -> str:
    """Why a training is not complete, where nothing was raised."""
    if state == COMPLETE:
        return ""
    if state == PRUNED:
        iteration, score = list(outcome.rungs.items())[-1]
        return f"stopped after {iteration} iterations, with a score of {score:.4f}"
    return "the score is not finite"


def _finished(record: TrialRecord, trial: tables.Trial) -> TrialRecord:
    outcome = trial.attributes["outcome"]
    return dataclasses.replace(
        record,
        state=outcome["state"],
        scores={k: math.nan if v is None else v for k, v in trial.attributes["scores"].items()},
        reward=trial.value if trial.value is not None else math.nan,
        seconds=outcome["seconds"],
        attempts=outcome["attempts"],
        error=outcome["error"],
        ended=trial.ended,
        rungs=trial.steps,
    )
