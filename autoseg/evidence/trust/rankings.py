"""Proxy trust: does a short training rank losses as a fuller one does, and may a cheaper one be used instead?

Candidates spread over a search's rewards, and its rivals, are trained again: under the same proxy with another seed,
under cheaper proxies, and for longer. Two seeds of one proxy do not give the same ranking either (six very different
losses once had a tau of .6), so a cheaper proxy is compared with that, not with 1. It may be used if the tau it loses
is surely small: that its tau is not below another noisy one says little, least of all of the best of several. The
candidates were picked by the search's own scores, so the row of its own seed may be favoured by luck; all other rows
have other seeds.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from autoseg.errors import InputError
from autoseg.evidence.trust.agreement import LEAST, Agreement, Correlation, agreement, tau_difference
from autoseg.execution import Executor
from autoseg.proxy.candidate import CandidateTask, Train
from autoseg.search.observer import Observer
from autoseg.search.trials import train_list
from autoseg.store.records import COMPLETE, TrialRecord
from autoseg.store.run_folder import RunFolder

STUDY = "trust"
PROXY, AGAIN, FULL = "proxy", "proxy, another seed", "fuller training"
MARGIN = 0.1  # most tau that a cheaper proxy may lose: of a hundred pairs of losses, it orders five more wrongly


@dataclass(frozen=True)
class Entry:
    """A loss that is ranked."""

    name: str  # its name in the search's ledger
    kind: str  # "candidate" or "rival"
    theta: tuple[float, ...] | None  # raw θ; None for a hand-made loss
    score: float | None  # the target's score with the search's own seed; None if it was not trained with that
    seconds: float  # seconds of that training

    @property
    def payload(self) -> dict[str, Any]:
        """The data that a `CandidateTask` builds the loss from."""
        return {"loss": self.name} if self.theta is None else {"theta": list(self.theta)}


@dataclass(frozen=True)
class Variant:
    """One way to train."""

    name: str  # "proxy", "proxy, another seed", a change of the proxy such as "proxy.iters=75", or "fuller training"
    seeds: tuple[int, ...]  # seeds of its trainings; losses are ranked by the mean over them


@dataclass(frozen=True)
class TrustTask:
    """The workers' task: builds losses and trains with them in the way of a variant."""

    task: CandidateTask  # builds the losses and checks the scores
    trains: Mapping[str, Train]  # variant to training
    jobs: Mapping[str, tuple[str, dict[str, Any]]]  # name of a training to its variant and the payload of its loss

    def __call__(self, payload: dict[str, Any], device: str) -> dict[str, float]:
        """Return the scores of `{"loss": name of a training, "seed": n}`."""
        variant, loss = self.jobs[payload["loss"]]
        task = dataclasses.replace(self.task, train=self.trains[variant])
        return task({**loss, "seed": payload["seed"]}, device)


def spread(history: Sequence[TrialRecord], metric: str, count: int) -> list[Entry]:
    """Return candidates of a search at even steps from its lowest to its highest score, best first.

    Raises:
        InputError: fewer than two candidates of different θ completed.
    """
    known = {r.theta: r for r in reversed(history) if r.state == COMPLETE and r.kind == "candidate"}
    left = sorted(known.values(), key=lambda r: (-r.scores[metric], r.round, r.index))
    if len(left) < 2:
        raise InputError("RUN", "a search with two or more candidates", f"{len(left)} that completed")
    top, bottom = left[0].scores[metric], left[-1].scores[metric]
    count = min(count, len(left))
    chosen = []
    for step in range(count):
        wanted = top - (top - bottom) * step / max(count - 1, 1)
        nearest = min(left, key=lambda r: abs(r.scores[metric] - wanted))
        left.remove(nearest)
        chosen.append(nearest)
    chosen.sort(key=lambda r: -r.scores[metric])
    return [Entry(r.name, r.kind, r.theta, r.scores[metric], r.seconds) for r in chosen]


def plan(entries: Sequence[Entry], variants: Sequence[Variant]) -> list[TrialRecord]:
    """Return all trainings except those the search has done itself."""
    return [
        TrialRecord(-1, index, variant.name, training(variant.name, entry.name), None, seed)
        for variant in variants
        for seed in variant.seeds
        for index, entry in enumerate(entries)
        if variant.name != PROXY or entry.score is None
    ]


def training(variant: str, entry: str) -> str:
    """Return the name of a training in the ledger."""
    return f"{variant}: {entry}"


def train_all(
    folder: RunFolder, planned: Sequence[TrialRecord], metric: str, executor: Executor, observer: Observer
) -> list[TrialRecord]:
    """Run the trainings that the ledger of `folder` does not have yet; errors as in `train_list`."""
    return train_list(folder, STUDY, planned, lambda scores: scores[metric], executor, observer)


@dataclass(frozen=True)
class Row:
    """A variant compared with the fuller training."""

    name: str  # name of the variant
    cost: float  # seconds of a training relative to the proxy's
    full: Agreement  # its agreement with the fuller training
    share: float  # its tau as a share of that between two seeds of the proxy
    # the tau it loses: that of the proxy with another seed, minus its own. The intervals of all cheaper proxies hold
    # together; NaN for the proxy itself
    lost: Correlation
    regret: float  # the fuller training's score that is lost if this row's best loss is taken; NaN if there is none


class Trust:
    """The rankings of all variants.

    Args:
        entries: the losses.
        variants: the ways in which they were trained.
        records: records of all trainings.
    """

    def __init__(self, entries: Sequence[Entry], variants: Sequence[Variant], records: Sequence[TrialRecord]) -> None:
        self.entries, self.variants, self.records = tuple(entries), tuple(variants), tuple(records)
        self._done = {record.key: record for record in records if record.state == COMPLETE}

    def scores(self, variant: Variant) -> list[float]:
        """Return the mean score of each entry over the variant's seeds; NaN if a training did not complete."""
        return [self._score(variant, entry) for entry in self.entries]

    def _score(self, variant: Variant, entry: Entry) -> float:
        if variant.name == PROXY and entry.score is not None:
            return entry.score
        found = [self._done.get((training(variant.name, entry.name), seed)) for seed in variant.seeds]
        return fmean(math.nan if record is None else record.reward for record in found)

    def of(self, name: str) -> Variant:
        """Return a variant by name."""
        return next(variant for variant in self.variants if variant.name == name)

    @property
    def seed_to_seed(self) -> Agreement:
        """The agreement between two seeds of the proxy, with which others are compared."""
        return agreement(self.scores(self.of(PROXY)), self.scores(self.of(AGAIN)))

    def rows(self) -> list[Row]:
        """Return the rows of the proxy, then of the cheaper ones, the cheapest last."""
        unit, yard = self._seconds(self.of(AGAIN)), self.seed_to_seed.tau.value
        full, again = self.scores(self.of(FULL)), self.scores(self.of(AGAIN))
        cheaper = sum(variant.name not in (PROXY, AGAIN, FULL) for variant in self.variants)
        rows = []
        for variant in self.variants:
            if variant.name != FULL:
                scores = self.scores(variant)
                found = agreement(scores, full)
                lost = Correlation(math.nan, math.nan, math.nan)
                if variant.name not in (PROXY, AGAIN):
                    lost = tau_difference(again, scores, full, among=cheaper)
                cost = 1.0 if variant.name == PROXY else self._seconds(variant) / unit
                share = found.tau.value / yard if yard > 0 else math.nan
                rows.append(Row(variant.name, cost, found, share, lost, _regret(scores, full)))
        return sorted(rows, key=lambda row: (row.name not in (PROXY, AGAIN), -row.cost))

    @property
    def full_cost(self) -> float:
        """The seconds of a fuller training relative to the proxy's."""
        return self._seconds(self.of(FULL)) / self._seconds(self.of(AGAIN))

    def _seconds(self, variant: Variant) -> float:
        times = [record.seconds for record in self._done.values() if record.kind == variant.name]
        return median(times) if times else math.nan


def _regret(scores: Sequence[float], full: Sequence[float]) -> float:
    """Return how far the fuller score of the best loss by `scores` (of several that tie, their mean) is below the
    best.
    """
    both = [(s, f) for s, f in zip(scores, full, strict=True) if not math.isnan(s + f)]
    top = max((s for s, _ in both), default=math.nan)
    return max(f for _, f in both) - fmean(f for s, f in both if s == top) if both else math.nan


def verdict(rows: Sequence[Row]) -> str:
    """Say in two sentences whether the proxy ranks as the fuller training does, and which cheaper one may, or what to
    do.

    A ranking is sure if the interval of tau is above zero; for the proxy, this is checked with its second seed, by
    which no search has chosen the candidates. A cheaper proxy may be used if it is sure too, and if the interval of the
    tau that it loses against that seed ends at `MARGIN` or below.
    """
    proxies = [row for row in rows if row.name in (PROXY, AGAIN)]
    fewest = min(row.full.n for row in proxies)  # of a cheaper one with fewer, that alone cannot be told
    if fewest < LEAST:
        return (
            f"Whether the proxy ranks losses as the fuller training does cannot be told: that takes {LEAST} losses or "
            f"more, here {fewest}. Take more candidates (candidates=N), from a search that has them."
        )
    taus = " and ".join("–" if math.isnan(v := row.full.tau.value) else f"{v:.2f}" for row in proxies)
    if not all(row.full.tau.low > 0 for row in proxies if row.name == AGAIN):
        return (
            f"The proxy does not surely rank losses as the fuller training does (tau {taus} with two seeds), so no "
            "cheaper one can be judged. Look at more candidates (candidates=N), or search with a longer proxy."
        )
    return f"The proxy ranks losses as the fuller training does: tau {taus} with two seeds. {_cheaper(rows, proxies)}"


def _cheaper(rows: Sequence[Row], proxies: Sequence[Row]) -> str:
    """Say which cheaper proxy may replace one that is sure."""
    tried = [row for row in rows if row not in proxies]
    cheaper = [row for row in tried if row.full.n >= LEAST]
    usable = [row for row in cheaper if row.full.tau.low > 0 and row.lost.high <= MARGIN]
    if usable:
        best = min(usable, key=lambda row: row.cost)
        return (
            f"{best.name} may be used: at {best.cost:.2f} of the cost its tau is {best.full.tau.value:.2f}, surely no "
            f"more than {MARGIN} below the proxy's with another seed: it loses {best.lost}. Name it in the next search."
        )
    if not tried:
        return "No cheaper one was tried."
    if not cheaper:
        most = max(row.full.n for row in tried)
        return f"Whether a cheaper one may be used cannot be told: that takes {LEAST} losses or more, here {most}."
    if all(row.lost.low > 0 for row in cheaper):
        return "None of the cheaper proxies may be used: each surely agrees less."
    nearest = min(cheaper, key=lambda row: math.inf if math.isnan(row.lost.value) else row.lost.value)
    return (
        f"Whether a cheaper proxy may be used cannot be told: none surely loses no more than {MARGIN} of tau; the "
        f"nearest is {nearest.name}, which loses {nearest.lost}. Look at more candidates (candidates=N)."
    )
