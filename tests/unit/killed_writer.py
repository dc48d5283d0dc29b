"""A run folder as a process leaves it that is killed in the middle of a write."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path


def torn(run: Path, to: Path) -> Path:
    """A copy of a run in which all trainings have half become failures, with the journal that takes that back."""
    with contextlib.closing(sqlite3.connect(run / "trials.db")) as writer:
        writer.execute("PRAGMA cache_size=1")  # what does not fit is written before the transaction is whole
        writer.execute("UPDATE trials SET state='FAIL'")
        writer.execute("CREATE TABLE big AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 9000) "
                       "SELECT i, hex(randomblob(40)) AS x FROM n")  # fmt: skip
        shutil.copytree(run, to)
    assert (to / "trials.db-journal").stat().st_size > 0
    return to


def content(run: Path) -> dict[Path, bytes]:
    """Every byte of it, to see that nothing was changed."""
    return {file: file.read_bytes() for file in sorted(run.rglob("*")) if file.is_file()}
