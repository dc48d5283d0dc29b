"""Reads the state of a run from its folder, without a lock and without writing to it."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

from autoseg.search.observer import Amount, RoundSummary
from autoseg.search.reward import scored_by
from autoseg.search.stages import stages_of
from autoseg.store.ledger import STUDIES, Ledger
from autoseg.store.records import COMPLETE, RUNNING, TrialRecord
from autoseg.store.run_files import RESULTS, all_settings, kind_of, read_config, read_file
from autoseg.store.run_folder import OWNER, began
from autoseg.tracking.terminal import round_text

WAITING, GOING, FINISHED, DEAD = "waiting", "running", "finished", "dead"
SILENT_S, SILENT_TIMES = 600.0, 5.0  # a run on another machine may be dead after this long, or this many trainings
RECENT = 20  # number of trainings from which the number of workers is estimated
ERRORS = ("ece", "sce")  # metrics of which less is better; asking the metrics themselves would import torch

_OWN = {"search": STUDIES, "compare": ("compare",), "trust": ("trust",)}  # study names of each kind of run


@dataclass(frozen=True)
class Status:
    """A run as it is now."""

    kind: str  # "search", "compare" or "trust"
    config: Mapping[str, Any]  # its configuration, plain data
    state: str  # "waiting" (nothing planned yet), "running", "finished" or "dead" (no process works in it)
    studies: Mapping[str, tuple[TrialRecord, ...]]  # all trainings by study, except those of an earlier confirmation
    amount: Amount  # all trainings, those to come included as far as known
    since: float  # Unix time of the last event
    silent: bool = False  # it runs on another machine and has been quiet for longer than a run should be
    owner: str = "its process"  # process and machine that last worked in it, in words

    @property
    def total(self) -> int:
        """The number of trainings, those to come included."""
        return self.amount.total

    @property
    def records(self) -> list[TrialRecord]:
        """The trainings of all studies."""
        return [record for records in self.studies.values() for record in records]

    @property
    def done(self) -> list[TrialRecord]:
        """The trainings with a result, in the order in which they ended."""
        return sorted((r for r in self.records if r.state != RUNNING), key=lambda r: r.ended)

    @property
    def rounds(self) -> int:
        """The number of rounds of a search; 0 for other runs."""
        return int(self.config["search"]["rounds"]) if self.kind == "search" else 0

    @property
    def workers(self) -> int:
        """The number of trainings that ran at the same time lately; 1 before any ended."""
        spans = [(r.ended - r.seconds, r.ended) for r in self.done[-RECENT:]]
        return max((sum(a <= begin < b for a, b in spans) for begin, _ in spans), default=1)

    @property
    def at_work(self) -> list[TrialRecord]:
        """The trainings that probably run now: the first ones without a result, as many as there are workers."""
        return [r for r in self.records if r.state == RUNNING][: self.workers]

    @property
    def best(self) -> TrialRecord | None:
        """The training with the best score so far; in a search, the best candidate."""
        known = self.studies.get(self.kind, ()) if self.kind != "trust" else ()  # trust mixes budgets
        sign = -1 if self.kind == "compare" and self.config["metrics"][0] in ERRORS else 1
        return max((r for r in known if r.state == COMPLETE), key=lambda r: sign * r.reward, default=None)

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds for the rest; None before any training ended."""
        done = self.done
        return self.amount.seconds_left(len(done), sum(r.seconds for r in done), self.workers)


def read_status(path: Path) -> Status | None:
    """Return the state of a run; None if its folder has no configuration yet.

    Raises:
        InputError: the folder cannot be read, is of another version, or of a kind that has no ledger.
    """
    if not (path / "config.yaml").exists():
        return None
    config = read_config(path)
    kind = kind_of(config, path, _OWN)
    studies = _studies(path / "trials.db", _OWN[kind], tuple(_times(path)))
    amount = Amount(sum(len(records) for records in studies.values()))
    if kind == "search":
        with all_settings(path):
            there = stages_of(config, studies)
        studies, amount = {**studies, "confirm": tuple(there.confirmation)}, there.amount
    if kind == "compare":  # its first metric may have changed since they were trained
        studies = {
            study: tuple(scored_by(r, config["metrics"][0]) for r in records) for study, records in studies.items()
        }
    since = max(_times(path))
    records = [record for records in studies.values() for record in records]
    done = sum(record.state != RUNNING for record in records)
    owner, alive = _owner(path)
    state, silent = GOING if records else WAITING, False
    if records and done >= amount.total and (kind == "search" or (path / RESULTS[kind]).is_file()):
        state = FINISHED
    elif alive is False:
        state = DEAD
    elif alive is None:
        longest = max((record.seconds for record in records), default=0.0)
        silent = time.time() - since > max(SILENT_S, SILENT_TIMES * longest)
    return Status(kind, config, state, studies, amount, since, silent, owner)


def _times(path: Path) -> list[float]:
    found = [0.0]
    for name in ("config.yaml", "trials.db", "trials.db-journal", "trials.db-wal", "log.txt", OWNER):
        with contextlib.suppress(OSError):
            found.append((path / name).stat().st_mtime)
    return found


@lru_cache(maxsize=1)
def _studies(database: Path, names: tuple[str, ...], times: tuple[float, ...]) -> Mapping[str, tuple[TrialRecord, ...]]:
    """Return all trainings; they are read again only if a file has changed (`times`)."""
    del times
    if not database.is_file() or not database.stat().st_size:
        return {}
    with Ledger(database, (), read_only=True, studies=names) as ledger:
        return {name: tuple(ledger.records(name)) for name in names}


def _owner(path: Path) -> tuple[str, bool | None]:
    """Return the process that last worked in the folder, and whether it may still run.

    None means that it is on another machine, or unknown.
    """
    file = path / OWNER
    try:
        who, taken = json.loads(read_file(file)), file.stat().st_mtime
        pid, host = int(who["pid"]), str(who["host"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "its process", None
    words = f"process {pid} on {host}"
    if who.get("left"):
        return words, False
    if host != socket.gethostname():
        return words, None
    try:
        process = psutil.Process(pid)
        same = who["began"] == began(pid) if who.get("began") else process.create_time() <= taken + 1
        alive = same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        alive = False
    except psutil.AccessDenied:
        return words, None
    return words, alive


def round_line(status: Status, number: int) -> str | None:
    """Describe a finished round in a line; None if it is not finished."""
    records = [r for r in status.studies.get("search", ()) if r.round == number]
    if len(records) < int(status.config["search"]["candidates"]) or any(r.state == RUNNING for r in records):
        return None
    return round_text(RoundSummary.of(number, records), status.rounds)
