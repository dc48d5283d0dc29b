"""The tables of `savings`: what it has recorded, set against each other; the pruner replayed on it.

`python -m benchmarks.study.savings_table [FILE]` prints those of the trainings that `make study` has recorded in a
file; by default of those behind docs/savings.md.
"""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import scipy  # its parts are imported when they are used

from autoseg.evidence.trust.agreement import agreement
from autoseg.proxy.rungs import Rungs
from benchmarks.study.savings import BARE, ENTRANTS, FIRST, SECOND, SHARES
from benchmarks.study.shown import show
from benchmarks.study.surface import DATA

ROUND, ORDERS = 8, 100  # candidates per round, and in how many orders the pruner meets them
RULES: dict[str, tuple[str, tuple[float, ...], dict[str, Any]]] = {
    "median rule": ("median", SHARES, {}),
    "median rule, at a half only": ("median", SHARES[1:], {}),
    "worst quarter stops": ("percentile", SHARES, {"percentile": 75.0}),
    "worst quarter stops, at a half only": ("percentile", SHARES[1:], {"percentile": 75.0}),
}


@dataclass(frozen=True)
class Results:
    """The file, read again.

    Args:
        names: of the candidates that all entrants completed, in the order of the search.
        rows: training to its rows, in that order.
        firsts: training to the row that was done first.
        bare: CPU seconds of the trainings that were not looked at, and of the same candidates looked at.
        units: of an entrant that was taken anew, CPU seconds of the unabridged trainings in between.
    """

    names: list[str]
    rows: dict[str, list[dict[str, str]]]
    firsts: dict[str, dict[str, str]]
    bare: list[tuple[float, float]]
    units: dict[str, list[float]]

    def scores(self, name: str) -> list[float]:
        """Of an entrant, a candidate each."""
        return [float(row["score"]) for row in self.rows[name]]


def load(path: Path) -> Results:
    """Read what `savings.keep` has written."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    by: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows:
        by.setdefault(row["training"], {})[row["candidate"]] = row
    names = [name for name in by[FIRST] if all(name in by.get(entrant, {}) for entrant in ENTRANTS)]
    firsts = {entrant: next(iter(by[entrant].values())) for entrant in ENTRANTS}
    bare = [(float(r["cpu_seconds"]), float(by[SECOND][n]["cpu_seconds"])) for n, r in by.get(BARE, {}).items()]
    units = {e: [float(r["cpu_seconds"]) for r in by.get(beside(e), {}).values()] for e in ENTRANTS}
    return Results(names, {t: [by[t][name] for name in names] for t in (FIRST, *ENTRANTS)}, firsts, bare, units)


def beside(entrant: str) -> str:
    """Unabridged trainings that were done among those of an entrant that was taken anew (`retake`)."""
    return f"unabridged, beside {entrant}"


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
    # by the rung's number: which iteration that is does not matter to the rules
    seen = [{k: float(row[f"rung_{share}"]) for k, share in enumerate(shares)} for row in results.rows[SECOND]]
    told, done = [math.nan] * len(finals), [1.0] * len(finals)
    for start in range(0, len(order), ROUND):
        complete = []
        for i in order[start : start + ROUND]:
            told[i] = finals[i]
            for rung, share in enumerate(shares):
                so_far = {k: seen[i][k] for k in range(rung + 1)}
                if rungs.hopeless(so_far):
                    told[i], done[i] = rungs.expected([*so_far.values()]), share
                    break
            else:
                complete.append(i)
        earlier = (*rungs.earlier, *(seen[i] for i in complete))
        gains = (*rungs.gains, *(tuple(finals[i] - score for score in seen[i].values()) for i in complete))
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
        own = median(results.units.get(name) or [unit])
        tau = agreement(scores, truth).tau
        cells = [
            str(tau),
            _number(tau.value / yard.value if yard.value > 0 else math.nan),
            _number(math.nan if name == SECOND else scipy.stats.kendalltau(scores, again).statistic),
            f"{seconds:.1f}",
            f"{seconds / own:.2f}",
            _number(once, 1),
            f"{100 * truth[winner]:.1f}",
            f"{100 * (max(truth) - truth[winner]):.1f}",
        ]
        return f"| {name} | {' | '.join(cells)} |"

    for name in ENTRANTS:
        scores, seconds = results.scores(name), _median_cpu(results, name)
        once = math.nan if name == SECOND else float(results.firsts[name]["cpu_seconds"]) - seconds
        lines.append(line(name, scores, unit if name == SECOND else seconds, once, int(np.argmax(scores))))
    over_orders = []
    for rule in RULES:
        run = replay(results, rule, range(len(truth)))
        looks = fmean(sum(rung <= share for rung in RULES[rule][1]) for share in run.done)
        lines.append(line(rule, run.told, unit * fmean(run.done) + look * looks, math.nan, _winner(run)))
        over_orders.append(_over_orders(results, rule, truth))
    about = f"A look takes {look / unit:.2f} of a training ({len(results.bare)} candidates)."
    return "\n".join([*lines, "", about, *(_of_rung(results, share, truth) for share in SHARES), *over_orders])


def _of_rung(results: Results, share: float, truth: Sequence[float]) -> str:
    scores = [float(row[f"rung_{share}"]) for row in results.rows[SECOND]]
    return f"Scores at {share:g} of the iterations: tau to seed A {agreement(scores, truth).tau}."


def _over_orders(results: Results, rule: str, truth: Sequence[float]) -> str:
    rng = np.random.default_rng(0)
    runs = [replay(results, rule, rng.permutation(len(truth)).tolist()) for _ in range(ORDERS)]
    taus = [float(scipy.stats.kendalltau(run.told, truth).statistic) for run in runs]
    lost = [100 * (max(truth) - truth[_winner(run)]) for run in runs]
    stopped = fmean(share < 1 for run in runs for share in run.done)
    done = fmean(share for run in runs for share in run.done)
    return (
        f"{rule}, over {ORDERS} orders of the candidates: tau {_number(fmean(taus))} "
        f"({_number(min(taus))} to {_number(max(taus))}), "
        f"{100 * stopped:.0f} % stopped, {100 * done:.0f} % of the iterations done, the winner loses {fmean(lost):.2f}."
    )


def _winner(run: Replay) -> int:
    """The best of those that were trained to the end."""
    return int(np.argmax([score if share == 1 else -math.inf for score, share in zip(run.told, run.done, strict=True)]))


def _number(value: float, digits: int = 2) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _median_cpu(results: Results, name: str) -> float:
    return median(float(row["cpu_seconds"]) for row in results.rows[name])


if __name__ == "__main__":
    show(__doc__, DATA / "camvid-miou-savings.csv", lambda file: table(load(file)))
