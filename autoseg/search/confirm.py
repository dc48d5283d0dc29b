"""The confirmation: the best candidates and their rivals, trained again with the same fresh seeds.

The reward of a search is the best of many draws with one seed; part of it is luck. The winner is chosen from
means over seeds that the search never used, and is compared with losses that need no search.

It is the best of several with those seeds, so its mean and its lead are still a little optimistic: of winners that are
no better than a rival, about 7 % instead of 2.5 % are called certainly ahead (simulated). `autoseg compare like=RUN`
has fresh seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from autoseg.config import PAPER_METRICS, SearchSettings
from autoseg.search.reward import Floor
from autoseg.search.trials import TrialRunner, drop_unasked
from autoseg.store.paired import paired, summary
from autoseg.store.records import (
    COMPLETE,
    RUNNING,
    Comparison,
    Finding,
    Row,
    SearchResult,
    TrialRecord,
    ahead_of,
    below_floor,
    counted,
    lead,
    percent,
)

WRECKED = 0.5  # share of the reference's score below which another metric counts as wrecked
LEARNED = 0.01  # a reference that scores less has not learned it either

Scorer = Callable[[Mapping[str, float]], float]


def fresh_seeds(seed: int, count: int, iters: int | None = None) -> list[int]:
    """Return different seeds for the confirmation, derived from the run's seed and never equal to it.

    Longer trainings (`iters`) get other seeds, so that one ledger can hold several confirmations without confusing
    them.
    """
    seeds: dict[int, None] = {}  # in their order
    stream = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 0xC0F1, *([iters] if iters else [])])))
    while len(seeds) < count:
        drawn = int(stream.integers(2**31))
        if drawn != seed and drawn not in seeds:
            seeds[drawn] = None
    return list(seeds)


def rival(name: str, identity: Sequence[float], index: int, seed: int) -> TrialRecord:
    """Return a planned training of the identity curves ("identity") or of a hand-made loss."""
    theta = tuple(map(float, identity)) if name == "identity" else None
    return TrialRecord(-1, index, "rival", name, theta, seed)


def rivals_of(settings: SearchSettings) -> list[str]:
    """Return the names of the losses that are confirmed beside the finalists, each once.

    If the confirmation's trainings are longer, the loss that the floor refers to is among them: it must be trained as
    long in any case.
    """
    names = list(settings.confirm.rivals)
    floor = Floor.of(settings)
    if floor is not None and floor.rival is not None and settings.confirm.iters is not None:
        names.append(floor.rival)
    return list(dict.fromkeys(names))


def finalists(history: Sequence[TrialRecord], top: int, mean: Sequence[float] | None, rounds: int) -> list[TrialRecord]:
    """Return the `top` best candidates with different θ, and the controller's mean if it has one."""
    first: dict[tuple[float, ...] | None, TrialRecord] = {}
    for record in sorted((r for r in history if r.state == COMPLETE), key=lambda r: -r.reward):  # stable
        first.setdefault(record.theta, record)
    chosen = list(first.values())[:top]
    if mean is not None and tuple(mean) not in {record.theta for record in chosen}:
        chosen.append(TrialRecord(-1, -1, "candidate", mean_name(rounds), tuple(mean), 0))
    return chosen


def confirmed_before(
    confirmation: Sequence[TrialRecord], seeds: Sequence[int], chosen: Sequence[TrialRecord]
) -> list[TrialRecord]:
    """Return the candidates outside `chosen` that have completed trainings with all seeds: they stay in the table.

    Of a search that got more rounds, they are finalists of fewer. One of them may still be the best, and costs nothing.

    Args:
        confirmation: records of the study "confirm".
        seeds: seeds of the confirmation.
        chosen: the finalists.
    """
    names, thetas = {record.name for record in chosen}, {record.theta for record in chosen}
    trained: dict[str, dict[int, TrialRecord]] = {}
    for record in confirmation:
        if record.kind == "candidate" and record.state == COMPLETE and record.seed in seeds:
            trained.setdefault(record.name, {})[record.seed] = record
    of_all = [of_one[seeds[0]] for of_one in trained.values() if len(of_one) == len(seeds)]
    return [record for record in of_all if record.name not in names and record.theta not in thetas]


def mean_name(rounds: int) -> str:
    """Return the name that the controller's mean after so many rounds has in the ledger."""
    return f"mean {rounds}"


def confirm(
    trials: TrialRunner, entries: Sequence[TrialRecord], seeds: Sequence[int], score: Scorer, target: str
) -> list[Row]:
    """Train every entry with every seed; return their table, best first.

    The best of several candidates is favoured by these seeds: a fair comparison of it, as `autoseg compare like=RUN`
    makes, has others.

    Args:
        trials: runs and records them, in study "confirm".
        entries: the losses to train; their own seeds and results are not used.
        seeds: the same for all entries, so that differences are paired.
        score: computes the reward of a training from its scores.
        target: name of the target metric among the scores.
    """
    first = [TrialRecord(-1, index, one.kind, one.name, one.theta, seeds[0]) for index, one in enumerate(entries)]
    first = trials.adopted("confirm", first)  # of a mean, which another processor computes otherwise in the last bits
    plan = [replace(one, seed=seed) for seed in seeds for one in first]
    drop_unasked(trials.ledger, "confirm", plan)
    trials.confirming(len(plan))
    return tabulate(trials.train("confirm", plan, score), target)


def tabulate(records: Sequence[TrialRecord], target: str) -> list[Row]:
    """Return the rows of a confirmation, best first, from its trainings in the order of their seeds."""
    entries: dict[str, list[TrialRecord]] = {}
    for record in records:
        entries.setdefault(record.name, []).append(record)
    rows = [_row(of_one, target) for of_one in entries.values()]
    return sorted(rows, key=lambda row: (-row.n, -row.reward if row.n else 0.0))


def conclude(
    run_dir: Path, metric: str, best: Finding, rows: Sequence[Row], seeds: Sequence[int], iters: int | None = None
) -> SearchResult:
    """Return the result of a search.

    Args:
        run_dir: the run folder.
        metric: the target.
        best: the best candidate of the search, which is the result if no candidate was confirmed.
        rows: rows of the confirmation; empty without one.
        seeds: seeds of the confirmation.
        iters: iterations of each of its trainings; None: as many as a candidate's.
    """
    if not rows:
        return SearchResult(run_dir, metric, best)
    won = winner(rows)
    if won is None:
        text = "no candidate completed its confirmation; the best of the search is kept, unconfirmed"
        return SearchResult(run_dir, metric, best, tuple(rows), warnings=(text,))
    found = confirmed(won, rows, seeds, iters)
    comparisons = tuple(compare(won, row) for row in rows if row.kind == "rival")
    return SearchResult(run_dir, metric, found, tuple(rows), comparisons, tuple(warnings_about(won, rows, metric)))


def concluded(
    run_dir: Path, config: Mapping[str, Any], search: Sequence[TrialRecord], confirmation: Sequence[TrialRecord]
) -> SearchResult:
    """Return the result of a search from its files; while the confirmation is not over, that of the search alone.

    Args:
        run_dir: the run folder.
        config: its `config.yaml`, plain data.
        search: records of the candidates, one of them complete.
        confirmation: records of the confirmation, in the order of its plan; empty if there is none.
    """
    metric, seed, options = str(config["metric"]), int(config["seed"]), config["search"]["confirm"]
    best = found(max((r for r in search if r.state == COMPLETE), key=lambda r: r.reward), seed)
    over = confirmation if all(record.state != RUNNING for record in confirmation) else ()
    seeds = fresh_seeds(seed, int(options["seeds"]), options["iters"])
    return conclude(run_dir, metric, best, tabulate(over, metric), seeds, options["iters"])


def found(best: TrialRecord, seed: int) -> Finding:
    """Return the best candidate of a search as a finding that is not confirmed."""
    return Finding(best.name, best.theta or (), best.reward, best.scores, (seed,), confirmed=False)


def confirmed(row: Row, rows: Sequence[Row], seeds: Sequence[int], iters: int | None = None) -> Finding:
    """Return a candidate of the confirmation as a finding; the arguments are those of `conclude`."""
    behind = tuple(other.name for other in ahead_of(row, rows))
    return Finding(
        row.name, row.theta or (), row.reward, row.scores, tuple(seeds), confirmed=True, iters=iters, behind=behind
    )


def _row(records: Sequence[TrialRecord], target: str) -> Row:
    complete = [record for record in records if record.state == COMPLETE]
    shared = [name for name in (complete[0].scores if complete else ()) if all(name in r.scores for r in complete)]
    values = [record.scores[target] if record.state == COMPLETE else math.nan for record in records]
    return Row(
        **vars(summary(values)),
        name=records[0].name,
        kind=records[0].kind,
        theta=records[0].theta,
        reward=fmean(record.reward for record in complete) if complete else math.nan,
        scores={name: fmean(r.scores[name] for r in complete) for name in shared},  # a user's own may be missing
    )


def winner(rows: Sequence[Row]) -> Row | None:
    """Return the candidate with the highest mean reward, among those with the most completed trainings."""
    candidates = [row for row in rows if row.kind == "candidate" and row.n]
    return max(candidates, key=lambda row: (row.n, row.reward), default=None)


def compare(best: Row, other: Row) -> Comparison:
    """Compare the winner with a rival, paired by seed."""
    return Comparison(**vars(paired(best.values, other.values)), rival=other.name)


def warnings_about(best: Row, rows: Sequence[Row], target: str) -> list[str]:
    """Return warnings for the user: rivals that are better, seeds that change nothing, other metrics that collapsed,
    trainings that failed.
    """
    rivals = {row.name: row for row in rows if row.kind == "rival" and row.n}
    ahead = ahead_of(best, rows)
    told = [(row, "is better" if lead(best, row)[0] else "is as good") for row in rivals.values() if row in ahead]
    told += [(row, "is ahead, but search.floor cuts it") for row in rivals.values() if below_floor(row, best)]
    texts = [
        f"{row.name} {what}: {target} {percent(row.mean)} against {percent(best.mean)} of {best.name}, "
        + counted(row.n, "fresh seed")
        for row, what in told
    ]
    distinct = {row.theta or row.name: row for row in rows}.values()  # the identity curves may be among the candidates
    curves = [row for row in distinct if row.kind == "candidate" or row.name == "identity"]
    if any(len(among) > 1 and len({row.mean for row in among}) == 1 for among in (distinct, curves)):
        texts.append(
            f"losses score the same {target}: the trainings are too short to tell them apart, make them longer (or "
            "train() does not use its loss)"
        )
    texts += _without_seed(best, rows)
    reference = rivals.get("ce") or rivals.get("identity")
    texts += _wrecked(best, reference, target) if reference else []
    missing = [
        f"{row.name} ({len(row.values) - row.n} of {len(row.values)})" for row in rows if row.n < len(row.values)
    ]
    if missing:
        texts.append("trainings of the confirmation that did not complete: " + ", ".join(missing))
    return texts


def _without_seed(best: Row, rows: Sequence[Row]) -> list[str]:
    """Return a warning if seeds change no score of the winner, or of two losses or more.

    Of 0 and 1 nothing is said: a loss may fail, or succeed, with every seed.
    """
    known = {row.name: {value for value in row.values if not math.isnan(value)} for row in rows if row.n > 1}
    same = [name for name, values in known.items() if len(values) == 1 and not values <= {0.0, 1.0}]
    if best.name not in same and len(same) < 2:
        return []
    return [
        f"{', '.join(same)} {'has' if len(same) == 1 else 'have'} the same score with every seed: the trainings may be "
        "too short to learn anything (or train() does not use its seed)"
    ]


def _wrecked(best: Row, reference: Row, target: str) -> list[str]:
    usual = {name: reference.scores.get(name, math.nan) for name in PAPER_METRICS if name != target}
    return [
        f"{best.name} reaches its {target} by wrecking {name}: {percent(best.scores[name])}, where {reference.name} "
        f"has {percent(score)}. A floor keeps it: 'search.floor=\"{name}>=0.9*{reference.name}\"'"
        for name, score in usual.items()
        if score >= LEARNED and best.scores.get(name, math.nan) < WRECKED * score
    ]
