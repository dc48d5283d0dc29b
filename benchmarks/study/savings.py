"""Less work per candidate: do the cheaper proxies rank candidates as the unabridged one does?

    autoseg search experiment=camvid metric=miou controller=random search.rounds=12 proxy.iters=80 data.root=DIR …
    python -m benchmarks.study.savings --run RUN --folder runs/savings --name camvid-miou   # hours; resumable
    python -m benchmarks.study.savings --name camvid-miou                                   # the table alone

Of a finished random search, candidates spread over their scores (seed A) are trained again with a second seed (B):
unabridged and looked at on the way, with a third of the iterations as a common warm-up, and with a frozen backbone.
The pruner is replayed on what was seen on the way. Everything is set against the unabridged scores of seed A, which no
entrant has seen, as two seeds of the unabridged proxy are against each other: an entrant is harmless if its tau is at
least 0.9 of theirs and its winner is no worse. CPU seconds are those of a worker with one thread; files that all share
are made by the first training of their kind, and counted apart.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from autoseg.cli import compose
from autoseg.config import ProxyConfig, SearchConfig
from autoseg.data import open_data
from autoseg.evidence.agreement import Correlation, agreement
from autoseg.evidence.trust import Entry, TrustTask, Variant, plan, spread, train_all, training
from autoseg.execution import ProcessExecutor, Watched, slots
from autoseg.search.candidate import CandidateTask
from autoseg.search.confirm import fresh_seeds
from autoseg.search.ledger import Ledger
from autoseg.search.observer import Observers
from autoseg.search.proxy import ProxyTask
from autoseg.search.records import COMPLETE, TrialRecord
from autoseg.search.run_folder import RunFolder, read_config, read_fingerprint
from autoseg.search.rungs import Rungs
from autoseg.search.shared import SHARED
from autoseg.surrogates import SearchSpace
from autoseg.tracking.lines import Lines, Quieter
from benchmarks.study.surface import DATA

FIRST, SECOND, BARE = "unabridged, seed A", "unabridged, seed B", "unabridged, not looked at"
WARM, FROZEN = "warm-up of a third", "frozen backbone"
ENTRANTS = (SECOND, WARM, FROZEN)
SHARES = (0.25, 0.5)  # rungs
CPU = "cpu seconds"
COLUMNS = ("candidate", "training", "seed", "score", "cpu_seconds", "wall_seconds", *(f"rung_{s}" for s in SHARES))
ROUND, ORDERS = 8, 100  # candidates per round, and in how many orders the pruner meets them
RULES: dict[str, tuple[str, tuple[float, ...], dict[str, Any]]] = {
    "median rule": ("median", SHARES, {}),
    "median rule, at a half only": ("median", SHARES[1:], {}),
    "worst quarter stops": ("percentile", SHARES, {"percentile": 75.0}),
    "worst quarter stops, at a half only": ("percentile", SHARES[1:], {"percentile": 75.0}),
}


@dataclass(frozen=True)
class Timed:
    """What the workers run: a training, whose CPU time becomes one of its scores."""

    task: TrustTask

    def __call__(self, payload: dict[str, Any], device: str) -> dict[str, float]:
        """Scores of `{"loss": name of a training, "seed": n}`."""
        start = time.process_time()
        scores = self.task(payload, device)
        return Watched({**scores, CPU: time.process_time() - start}, getattr(scores, "rungs", {}))


def train(run: Path, folder: Path, count: int, workers: str) -> tuple[list[Entry], list[TrialRecord], str]:
    """Do the trainings that `folder` does not have yet; returns the candidates, all records and the metric."""
    search = compose.load(SearchConfig, read_config(run))
    fixed = read_fingerprint(run)
    height, width = search.proxy.size
    data, space = open_data(search.data, (height, width)), SearchSpace.from_dict(fixed["space"])
    if (folder / "config.yaml").is_file():  # the search may have gone on since
        entries = [Entry(**{**e, "theta": tuple(e["theta"])}) for e in read_fingerprint(folder)["entries"]]
    else:
        with Ledger(run / "trials.db", space.names, read_only=True) as ledger:
            entries = spread(ledger.records("search"), search.metric, count)
    seed = fresh_seeds(search.seed, search.search.confirm.seeds + 1)[-1]
    planned = plan(entries, [Variant(name, (seed,)) for name in ENTRANTS])
    order = np.random.default_rng(0).permutation(len(entries)).tolist()  # so that a part of them is spread as well
    planned = sorted(planned, key=lambda record: order[record.index])  # stable: candidate by candidate
    planned += plan(entries[:3], [Variant(BARE, (seed,))])
    looks = {SECOND: Rungs(shares=SHARES).payload()}
    jobs = {training(n, e.name): (n, {**e.payload, **looks.get(n, {})}) for n in (*ENTRANTS, BARE) for e in entries}
    trains = {
        name: ProxyTask(search.data, search.model, proxy, (search.metric,), search.tolerance, search.drop_background,
                        shared=str((folder / SHARED).absolute()))
        for name, proxy in _proxies(search.proxy).items()
    }  # fmt: skip
    options = {"tolerance": search.tolerance, "drop_background": search.drop_background}
    task = CandidateTask(
        search.metric, space.to_dict(), data.num_classes, trains[SECOND], data.ignore_index, options
    )  # fmt: skip
    kept = {"run": str(run), "seed": seed, "entries": [asdict(entry) for entry in entries]}
    exists = (folder / "config.yaml").is_file()
    with (
        RunFolder.open(folder, kept) if exists else RunFolder.create(folder, kept, kept) as home,
        ProcessExecutor(Timed(TrustTask(task, trains, jobs)), slots(workers, "cpu"), log=home.log) as executor,
    ):
        observers = Observers([Quieter(home.log), Lines(search.metric)])
        records = train_all(home, planned, search.metric, executor, observers)
        observers.close()
    return entries, records, search.metric


def _proxies(own: ProxyConfig) -> dict[str, ProxyConfig]:
    return {
        SECOND: own,
        BARE: own,
        WARM: dataclasses.replace(own, warmup=own.iters // 3),
        FROZEN: dataclasses.replace(own, backbone="frozen"),
    }


def keep(entries: Sequence[Entry], records: Sequence[TrialRecord], metric: str, path: Path) -> None:
    """Write every training to a CSV file, in the order in which they were done."""
    names = [entry.name for entry in entries]
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for e in sorted(entries, key=lambda e: [int(part) for part in e.name.split()[-1].split(".")]):
            rows.writerow([e.name, FIRST, "A", f"{e.score:.6f}", "", f"{e.seconds:.1f}", "", ""])
        for r in sorted((r for r in records if r.state == COMPLETE), key=lambda r: r.ended):
            rungs = [f"{score:.6f}" for score in r.rungs.values()] or ["", ""]
            numbers = [f"{r.scores[metric]:.6f}", f"{r.scores[CPU]:.2f}", f"{r.seconds:.1f}"]
            rows.writerow([names[r.index], r.kind, "B", *numbers, *rungs])


@dataclass(frozen=True)
class Results:
    """The file, read again.

    Args:
        names: of the candidates that all entrants completed, in the order of the search.
        rows: training to its rows, in that order.
        firsts: training to the row that was done first.
        bare: CPU seconds of the trainings that were not looked at, and of the same candidates looked at.
    """

    names: list[str]
    rows: dict[str, list[dict[str, str]]]
    firsts: dict[str, dict[str, str]]
    bare: list[tuple[float, float]]

    def scores(self, name: str) -> list[float]:
        """Of an entrant, a candidate each."""
        return [float(row["score"]) for row in self.rows[name]]


def load(path: Path) -> Results:
    """Read what `keep` has written."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    by: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows:
        by.setdefault(row["training"], {})[row["candidate"]] = row
    names = [name for name in by[FIRST] if all(name in by.get(entrant, {}) for entrant in ENTRANTS)]
    firsts = {entrant: next(iter(by[entrant].values())) for entrant in ENTRANTS}
    bare = [(float(r["cpu_seconds"]), float(by[SECOND][n]["cpu_seconds"])) for n, r in by.get(BARE, {}).items()]
    return Results(names, {t: [by[t][name] for name in names] for t in (FIRST, *ENTRANTS)}, firsts, bare)


@dataclass(frozen=True)
class Replay:
    """What a pruner would have done.

    Args:
        told: reward of every candidate; of a stopped one, the expected one.
        done: share of the iterations each was trained for.
    """

    told: list[float]
    done: list[float]


def replay(results: Results, rule: str, order: Sequence[int]) -> Replay:
    """Send the candidates through a search in rounds, in some order, with a pruner."""
    pruner, shares, options = RULES[rule]
    finals, rungs = results.scores(SECOND), Rungs(pruner, shares, options)
    seen = [[float(row[f"rung_{share}"]) for share in shares] for row in results.rows[SECOND]]
    told, done = [math.nan] * len(finals), [1.0] * len(finals)
    for start in range(0, len(order), ROUND):
        complete = []
        for i in order[start : start + ROUND]:
            told[i] = finals[i]
            for number, share in enumerate(shares, start=1):
                if rungs.hopeless(seen[i][:number]):
                    told[i], done[i] = rungs.expected(seen[i][:number]), share
                    break
            else:
                complete.append(i)
        earlier = (*rungs.earlier, *(tuple(seen[i]) for i in complete))
        gains = (*rungs.gains, *(tuple(finals[i] - score for score in seen[i]) for i in complete))
        rungs = dataclasses.replace(rungs, earlier=earlier, gains=gains)
    return Replay(told, done)


def table(results: Results) -> str:
    """The result as Markdown; scores in percent of the metric."""
    truth, again = results.scores(FIRST), results.scores(SECOND)
    yard = agreement(again, truth).tau
    looked = _median_cpu(results, SECOND)
    unit = looked * (median(bare / seen for bare, seen in results.bare) if results.bare else 1.0)
    look = (looked - unit) / len(SHARES)
    lines = [
        f"{len(truth)} candidates. tau to seed A: Kendall's, with 95 % intervals over candidates; share: of the tau of "
        "the two unabridged seeds; winner: its score with seed A, unabridged; lost: against the best there.",
        "",
        "| training | tau to seed A | share | tau to seed B | CPU s | of seed B's | made once | winner | lost |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]

    def line(name: str, scores: Sequence[float], seconds: float, once: float, winner: int) -> str:
        tau = agreement(scores, truth).tau
        cells = [
            _interval(tau),
            f"{tau.value / yard.value:.2f}",
            "–" if scores is again else f"{agreement(scores, again).tau.value:.2f}",
            f"{seconds:.1f}",
            f"{seconds / unit:.2f}",
            "–" if math.isnan(once) else f"{once:.1f}",
            f"{100 * truth[winner]:.1f}",
            f"{100 * (max(truth) - truth[winner]):.1f}",
        ]
        return f"| {name} | {' | '.join(cells)} |"

    for name in ENTRANTS:
        scores, seconds = results.scores(name), _median_cpu(results, name)
        once = math.nan if name == SECOND else float(results.firsts[name]["cpu_seconds"]) - seconds
        lines.append(line(name, scores, unit if name == SECOND else seconds, once, int(np.argmax(scores))))
    spread_over_orders = []
    for rule in RULES:
        run = replay(results, rule, range(len(truth)))
        looks = fmean(sum(rung <= share for rung in RULES[rule][1]) for share in run.done)
        lines.append(line(rule, run.told, unit * fmean(run.done) + look * looks, math.nan, _winner(run)))
        spread_over_orders.append(_over_orders(results, rule, truth))
    about = f"A look takes {look / unit:.2f} of a training ({len(results.bare)} candidates)."
    return "\n".join([*lines, "", about, *(_of_rung(results, share, truth) for share in SHARES), *spread_over_orders])


def _of_rung(results: Results, share: float, truth: Sequence[float]) -> str:
    scores = [float(row[f"rung_{share}"]) for row in results.rows[SECOND]]
    return f"Scores at {share:g} of the iterations: tau to seed A {_interval(agreement(scores, truth).tau)}."


def _over_orders(results: Results, rule: str, truth: Sequence[float]) -> str:
    rng = np.random.default_rng(0)
    runs = [replay(results, rule, rng.permutation(len(truth)).tolist()) for _ in range(ORDERS)]
    taus = [agreement(run.told, truth).tau.value for run in runs]
    lost = [100 * (max(truth) - truth[_winner(run)]) for run in runs]
    stopped = fmean(share < 1 for run in runs for share in run.done)
    done = fmean(share for run in runs for share in run.done)
    return (
        f"{rule}, over {ORDERS} orders of the candidates: tau {fmean(taus):.2f} ({min(taus):.2f} to {max(taus):.2f}), "
        f"{100 * stopped:.0f} % stopped, {100 * done:.0f} % of the iterations done, the winner loses {fmean(lost):.2f}."
    )


def _winner(run: Replay) -> int:
    """The best of those that were trained to the end."""
    return int(np.argmax([score if share == 1 else -math.inf for score, share in zip(run.told, run.done, strict=True)]))


def _median_cpu(results: Results, name: str) -> float:
    return median(float(row["cpu_seconds"]) for row in results.rows[name])


def _interval(found: Correlation) -> str:
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of a finished random search; it is only read")
    parser.add_argument("--folder", type=Path, default=Path("runs/savings"), help="of the trainings; gone on with")
    parser.add_argument("--name", default="camvid-miou", help="of the file in benchmarks/study/data, -savings.csv")
    parser.add_argument("--candidates", type=int, default=24)
    parser.add_argument("--workers", default="1", help="auto, or how many")
    given = parser.parse_args()
    path = DATA / f"{given.name}-savings.csv"
    if given.run is not None:
        keep(*train(given.run, given.folder, given.candidates, given.workers), path)
        print(f"kept in {path}")
    print(table(load(path)))


if __name__ == "__main__":
    main()
