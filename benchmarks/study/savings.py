"""Less work per candidate: do the cheaper proxies rank candidates as the unabridged one does?

Of a finished random search, candidates spread over their scores (seed A) are trained again with a second seed (B):
unabridged and looked at on the way, with a third of the iterations as a common warm-up, and with a frozen backbone.
Everything is set against the unabridged scores of seed A, which no entrant has seen, as two seeds of the unabridged
proxy are against each other: an entrant is harmless if its tau is at least 0.9 of theirs and its winner is no worse
(`savings_table`). CPU seconds are those of a worker with one thread; files that all share are made by the first
training of their kind, and counted apart.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.cli import grid
from autoseg.cli.ahead import standby
from autoseg.cli.trust_source import Source, kept_entries, plain_entries
from autoseg.config import ProxyConfig, TrustConfig
from autoseg.evidence.tables import csv_text
from autoseg.evidence.trust import Entry, TrustTask, Variant, plan, train_all, training
from autoseg.execution import Watched
from autoseg.search.confirm import fresh_seeds
from autoseg.search.records import COMPLETE, TrialRecord
from autoseg.search.run_folder import RunFolder, write_atomic
from autoseg.search.rungs import Rungs

FIRST, SECOND, BARE = "unabridged, seed A", "unabridged, seed B", "unabridged, not looked at"
WARM, FROZEN = "warm-up of a third", "frozen backbone"
ENTRANTS = (SECOND, WARM, FROZEN)
BARES = 3  # trainings that are not looked at, to tell what a look takes
SHARES = (0.25, 0.5)  # rungs
CPU = "cpu seconds"
COLUMNS = ("candidate", "training", "seed", "score", "cpu_seconds", "wall_seconds", *(f"rung_{s}" for s in SHARES))


@dataclass(frozen=True)
class Timed:
    """What the workers run: a training, whose CPU time becomes one of its scores."""

    task: TrustTask

    def __call__(self, payload: dict[str, Any], device: str) -> dict[str, float]:
        """Scores of `{"loss": name of a training, "seed": n}`."""
        start = time.process_time()
        scores = self.task(payload, device)
        return Watched({**scores, CPU: time.process_time() - start}, getattr(scores, "rungs", {}))


def write(run: Path, folder: Path, count: int, workers: str, to: Path) -> None:
    """Train what `folder` does not have yet; prints the table and writes it to `to`, all trainings beside it as CSV.

    Args:
        run: of a finished random search; it is only read.
        folder: of the trainings.
        count: candidates.
        workers: "auto", or how many.
        to: a Markdown file.
    """
    from benchmarks.study.savings_table import load, table

    source = Source.open(run)
    search = source.search
    known = (folder / "config.yaml").is_file()  # the search may have gone on since: the candidates stay
    entries = kept_entries(folder) if known else source.candidates(count)
    seed = fresh_seeds(search.seed, search.search.confirm.seeds + 1)[-1]
    kept = {"run": str(run), "seed": seed, "entries": plain_entries(entries)}
    task = Timed(_task(source, entries, folder))
    config = TrustConfig(workers=workers, device="cpu", executor=search.executor)
    with (
        standby(config, search.proxy.threads) as workers_ahead,
        RunFolder.create_or_open(folder, kept, kept) as home,
        grid.executor(config, workers_ahead, task, search.metric, home) as (executor, observers),
    ):
        records = train_all(home, _planned(entries, seed), search.metric, executor, observers)
    write_atomic(to.with_suffix(".csv"), as_csv(entries, records, search.metric))
    told = table(load(to.with_suffix(".csv")))
    print(told)
    write_atomic(to, told + "\n")


def _planned(entries: Sequence[Entry], seed: int) -> list[TrialRecord]:
    """All trainings, candidate by candidate, in an order of which any part is spread over the scores as well."""
    order = np.random.default_rng(0).permutation(len(entries)).tolist()
    planned = plan(entries, [Variant(name, (seed,)) for name in ENTRANTS])
    planned = sorted(planned, key=lambda record: order[record.index])  # stable
    return planned + plan(entries[:BARES], [Variant(BARE, (seed,))])


def _task(source: Source, entries: Sequence[Entry], folder: Path) -> TrustTask:
    looks = {SECOND: Rungs(shares=SHARES).payload()}
    jobs = {training(n, e.name): (n, {**e.payload, **looks.get(n, {})}) for n in (*ENTRANTS, BARE) for e in entries}
    return source.task(_proxies(source.search.proxy), jobs, [source.search.metric], folder)


def _proxies(own: ProxyConfig) -> dict[str, ProxyConfig]:
    return {
        SECOND: own,
        BARE: own,
        WARM: dataclasses.replace(own, warmup=own.iters // 3),
        FROZEN: dataclasses.replace(own, backbone="frozen"),
    }


def as_csv(entries: Sequence[Entry], records: Sequence[TrialRecord], metric: str) -> str:
    """Every training, in the order in which they were done; first those of the search."""
    names = [entry.name for entry in entries]
    rows: list[list[object]] = [list(COLUMNS)]
    for e in sorted(entries, key=lambda e: [int(part) for part in e.name.split()[-1].split(".")]):
        rows.append([e.name, FIRST, "A", f"{e.score:.6f}", "", f"{e.seconds:.1f}", "", ""])
    for r in sorted((r for r in records if r.state == COMPLETE), key=lambda r: r.ended):
        rungs = [f"{score:.6f}" for score in r.rungs.values()] or ["", ""]
        numbers = [f"{r.scores[metric]:.6f}", f"{r.scores[CPU]:.2f}", f"{r.seconds:.1f}"]
        rows.append([names[r.index], r.kind, "B", *numbers, *rungs])
    return csv_text(rows)
