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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.cli.jobs import running
from autoseg.cli.jobs.trust_source import Source, kept_entries
from autoseg.cli.prestart import standby
from autoseg.config import ProxyConfig, SearchConfig, TrustConfig
from autoseg.evidence.comparison.tables import csv_text
from autoseg.evidence.trust.rankings import Entry, TrustTask, Variant, plan, train_all
from autoseg.execution import Watched
from autoseg.files import write_atomic
from autoseg.proxy.rungs import Rungs
from autoseg.search.confirm import fresh_seeds
from autoseg.store.records import COMPLETE, TrialRecord
from autoseg.store.run_folder import RunFolder

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


def keep(run: Path, folder: Path, count: int, workers: str, to: Path) -> None:
    """Train what `folder` does not have yet; all trainings are written to `to` as CSV.

    Args:
        run: of a finished random search; it is only read.
        folder: of the trainings.
        count: candidates.
        workers: "auto", or how many.
        to: the file.
    """
    source = Source.open(run)
    known = (folder / "config.yaml").is_file()  # the search may have gone on since: the candidates stay
    entries = kept_entries(folder) if known else source.candidates(count)
    records = train(source, entries, _planned(entries, second_seed(source.search)), folder, workers)
    write_atomic(to, as_csv(entries, records, source.search.metric))


def second_seed(search: SearchConfig) -> int:
    """B, which neither the search nor its confirmation has."""
    return fresh_seeds(search.seed, search.search.confirm.seeds + 1)[-1]


def train(
    source: Source, entries: Sequence[Entry], planned: Sequence[TrialRecord], folder: Path, workers: str
) -> list[TrialRecord]:
    """Results of trainings of `trust.plan`, each of one of our kinds; what `folder` does not have yet is done."""
    search = source.search
    kept = {"run": str(source.run), "seed": planned[0].seed, "entries": [asdict(entry) for entry in entries]}
    task = Timed(_task(source, entries, planned, folder))
    config = TrustConfig(workers=workers, device="cpu", executor=search.executor)
    with (
        standby(config, search.proxy.threads) as workers_ahead,
        RunFolder.create_or_open(folder, kept, kept) as home,
        running.executor(config, workers_ahead, task, search.metric, home) as (executor, observers),
    ):
        return train_all(home, planned, search.metric, executor, observers)


def in_order(entries: Sequence[Entry], variants: Sequence[Variant]) -> list[TrialRecord]:
    """All trainings, candidate by candidate, in an order of which any part is spread over the scores as well."""
    order = np.random.default_rng(0).permutation(len(entries)).tolist()
    return sorted(plan(entries, variants), key=lambda record: order[record.index])  # stable


def _planned(entries: Sequence[Entry], seed: int) -> list[TrialRecord]:
    planned = in_order(entries, [Variant(name, (seed,)) for name in ENTRANTS])
    return planned + plan(entries[:BARES], [Variant(BARE, (seed,))])


def _task(source: Source, entries: Sequence[Entry], planned: Sequence[TrialRecord], folder: Path) -> TrustTask:
    looks = {SECOND: Rungs(shares=SHARES).payload()}
    jobs = {r.name: (r.kind, {**entries[r.index].payload, **looks.get(r.kind, {})}) for r in planned}
    proxies = {kind: _proxy(source.search.proxy, kind) for kind, _ in jobs.values()}
    return source.task(proxies, jobs, [source.search.metric], folder)


def _proxy(own: ProxyConfig, kind: str) -> ProxyConfig:
    changes: dict[str, dict[str, Any]] = {WARM: {"warmup": own.iters // 3}, FROZEN: {"backbone": "frozen"}}
    return dataclasses.replace(own, **changes.get(kind, {}))


def as_csv(entries: Sequence[Entry], records: Sequence[TrialRecord], metric: str) -> str:
    """Every training, in the order in which they were done; first those of the search."""
    rows: list[list[object]] = [list(COLUMNS)]
    for e in sorted(entries, key=lambda e: [int(part) for part in e.name.split()[-1].split(".")]):
        rows.append([e.name, FIRST, "A", f"{e.score:.6f}", "", f"{e.seconds:.1f}", "", ""])
    return csv_text([*rows, *rows_of(entries, records, metric)])


def rows_of(entries: Sequence[Entry], records: Sequence[TrialRecord], metric: str) -> list[list[object]]:
    """Trainings with seed B as rows of the file, in the order in which they were done."""
    rows: list[list[object]] = []
    for r in sorted((r for r in records if r.state == COMPLETE), key=lambda r: r.ended):
        rungs = [f"{score:.6f}" for score in r.rungs.values()] or ["", ""]
        numbers = [f"{r.scores[metric]:.6f}", f"{r.scores[CPU]:.2f}", f"{r.seconds:.1f}"]
        rows.append([entries[r.index].name, r.kind, "B", *numbers, *rungs])
    return rows
