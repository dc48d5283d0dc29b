"""Trainings in the tables of an Optuna study: many written in one transaction, all read at once.

Optuna writes every attribute in a transaction of its own, each of which waits four times for the disk, counts all
trials to number the next one, and makes objects of each that cost eight times as much to read as their rows. What is
written here is what Optuna writes, and its own API reads it (`optuna.load_study`, the dashboard).
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from optuna.distributions import FloatDistribution, distribution_to_json
from optuna.trial import TrialState
from sqlalchemy import Connection, Engine, text

RUNNING = TrialState.RUNNING.name
UNIT = distribution_to_json(FloatDistribution(0.0, 1.0))
OF_STUDY = "WHERE trial_id IN (SELECT trial_id FROM trials WHERE study_id = :study)"


@dataclass
class Trial:
    """One row of `trials` and what hangs on it.

    Args:
        number: within its study.
        params: name to a value in [0, 1].
        attributes: name to plain data, Optuna's user attributes.
        id: its row; 0 before it is written.
        state: name of Optuna's state.
        ended: Unix time of its result; 0 before.
        value: of the objective; None if it has none.
        steps: intermediate values by step, ascending; NaN where they were not finite.
    """

    number: int
    params: dict[str, float] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    id: int = 0
    state: str = RUNNING
    ended: float = 0.0
    value: float | None = None
    steps: dict[int, float] = field(default_factory=dict)


def plan(engine: Engine, study: int, trials: Sequence[Trial]) -> list[int]:
    """Write trials that are to run, all or none; returns their rows. They are on the disk when this returns."""
    rows = []
    with engine.begin() as tables:
        for trial in trials:
            new = "INSERT INTO trials (number, study_id, state, datetime_start) VALUES (:number, :study, :state, :now)"
            values = {"number": trial.number, "study": study, "state": RUNNING, "now": _written(_now())}
            rows.append(int(tables.execute(text(new), values).lastrowid))
            param = "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) "
            _each(
                tables,
                param + "VALUES (:trial, :name, :value, :axis)",
                ({"trial": rows[-1], "name": n, "value": v, "axis": UNIT} for n, v in trial.params.items()),
            )
            _attributes(tables, rows[-1], trial.attributes)
    return rows


def finish(
    engine: Engine,
    row: int,
    state: TrialState,
    value: float | None,
    attributes: Mapping[str, Any],
    steps: Mapping[int, float],
) -> None:
    """Write the result of a trial that is running, all or nothing. It is on the disk when this returns.

    Raises:
        RuntimeError: it is not running.
    """
    with engine.begin() as tables:
        end = "UPDATE trials SET state = :state, datetime_complete = :now WHERE trial_id = :trial AND state = :running"
        values = {"state": state.name, "now": _written(_now()), "trial": row, "running": RUNNING}
        if tables.execute(text(end), values).rowcount != 1:
            raise RuntimeError(f"trial {row} has a result already")
        _attributes(tables, row, attributes)
        step = "INSERT OR REPLACE INTO trial_intermediate_values (trial_id, step, intermediate_value, "
        _each(
            tables,
            step + "intermediate_value_type) VALUES (:trial, :step, :value, :kind)",
            ({"trial": row, "step": s, "value": v if math.isfinite(v) else None, "kind": _kind(v)}
             for s, v in steps.items()),
        )  # fmt: skip
        objective = (
            "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (:trial, 0, :value, :kind)"
        )
        _each(tables, objective, () if value is None else [{"trial": row, "value": value, "kind": _kind(value)}])


def read(engine: Engine, study: int) -> list[Trial]:
    """All trials of a study, by number."""
    with engine.connect() as tables:

        def rows(columns: str, table: str) -> Iterable[Any]:
            return tables.execute(text(f"SELECT {columns} FROM {table} {OF_STUDY}"), {"study": study})

        params: dict[int, dict[str, float]] = defaultdict(dict)
        attributes: dict[int, dict[str, Any]] = defaultdict(dict)
        steps: dict[int, dict[int, float]] = defaultdict(dict)
        for trial, name, value in rows("trial_id, param_name, param_value", "trial_params"):
            params[trial][name] = value
        for trial, name, value in rows("trial_id, key, value_json", "trial_user_attributes"):
            attributes[trial][name] = json.loads(value)
        for trial, step, value in rows("trial_id, step, intermediate_value", "trial_intermediate_values"):
            steps[trial][step] = math.nan if value is None else value
        values = {trial: value for trial, value in rows("trial_id, value", "trial_values")}
        found = sorted(rows("number, trial_id, state, datetime_complete", "trials"))
    return [
        Trial(
            number, params[id], attributes[id], id, state, _read(ended), values.get(id), dict(sorted(steps[id].items()))
        )
        for number, id, state, ended in found
    ]


def _each(tables: Connection, statement: str, rows: Iterable[dict[str, Any]]) -> None:
    if listed := list(rows):
        tables.execute(text(statement), listed)


def _attributes(tables: Connection, row: int, attributes: Mapping[str, Any]) -> None:
    """OR REPLACE: an earlier version, killed between two of them, has left some."""
    insert = "INSERT OR REPLACE INTO trial_user_attributes (trial_id, key, value_json) VALUES (:trial, :key, :value)"
    _each(tables, insert, ({"trial": row, "key": k, "value": json.dumps(v)} for k, v in attributes.items()))


def _kind(value: float) -> str:
    if math.isfinite(value):
        return "FINITE"
    return "NAN" if math.isnan(value) else "INF_POS" if value > 0 else "INF_NEG"


def _now() -> datetime:
    return datetime.now(UTC)


def _written(when: datetime) -> str:
    """As Optuna 5 keeps times: UTC, without saying so."""
    return when.replace(tzinfo=None).isoformat(" ", "microseconds")


def _read(when: str | None) -> float:
    return datetime.fromisoformat(when).replace(tzinfo=UTC).timestamp() if when else 0.0
