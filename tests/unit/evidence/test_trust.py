"""Proxy trust with a toy training whose true ranking is known: correlations, picks, verdicts, going on."""

from __future__ import annotations

import csv
import dataclasses
import math
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from autoseg.errors import AutosegError, Diverged, InputError
from autoseg.evidence.trust.agreement import DRAWS, _picks, _rhos, _taus, agreement, tau_difference
from autoseg.evidence.trust.documents import lines, write
from autoseg.evidence.trust.rankings import (
    AGAIN,
    FULL,
    PROXY,
    Entry,
    Trust,
    TrustTask,
    Variant,
    plan,
    spread,
    train_all,
    training,
    verdict,
)
from autoseg.execution import InlineExecutor, Job
from autoseg.proxy.candidate import CandidateTask
from autoseg.search.observer import Observer
from autoseg.store.records import TrialRecord
from autoseg.store.run_folder import RunFolder

RANKED = [0.1 * i for i in range(1, 11)]  # true quality of ten candidates
VARIANTS = [Variant(PROXY, (0,)), Variant(AGAIN, (5,)), Variant("half", (5,)), Variant("tenth", (5,)),
            Variant(FULL, (8, 9))]  # fmt: skip
NOISE = {PROXY: 0.05, AGAIN: 0.05, "half": 0.02, "tenth": 5.0, FULL: 0.0}
COST = {PROXY: 1.0, AGAIN: 1.0, "half": 0.5, "tenth": 0.1, FULL: 4.0}

# ------------------------------------------------------------------ correlations


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=12))
@settings(max_examples=40)
def test_the_drawn_correlations_are_scipys(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, dtype=float).T
    if np.ptp(a) and np.ptp(b):
        assert _taus(a[None], b[None])[0] == pytest.approx(stats.kendalltau(a, b).statistic)
        assert _rhos(a[None], b[None])[0] == pytest.approx(stats.spearmanr(a, b).statistic)
    else:
        assert math.isnan(_taus(a[None], b[None])[0]) and math.isnan(_rhos(a[None], b[None])[0])


def test_an_agreement_by_hand() -> None:
    found = agreement([1, 2, 3, 4, math.nan], [1, 3, 2, 4, 0])  # one of six pairs is the other way round
    assert (found.n, found.tau.value) == (4, pytest.approx(4 / 6))
    assert found.rho.value == pytest.approx(0.8)
    assert found.tau.low < found.tau.value <= found.tau.high == pytest.approx(1)
    assert agreement([1, 2], [math.nan, 3]).n == 1 and math.isnan(agreement([1, 1, 1], [1, 2, 3]).tau.value)


def test_the_interval_is_of_candidates_drawn_with_replacement() -> None:
    random = np.random.default_rng(3)
    a = random.normal(size=12)
    b = a + random.normal(size=12)
    picks = _picks(12)
    taus = [stats.kendalltau(a[p], b[p]).statistic for p in picks[:200]]
    assert _taus(a[picks[:200]], b[picks[:200]]) == pytest.approx(taus)
    assert picks.shape == (DRAWS, 12)
    found = agreement(list(a), list(b))
    assert found == agreement(list(a), list(b))  # nothing is left to chance
    assert found.tau.low < found.tau.value < found.tau.high
    ends = np.percentile(_taus(a[picks], b[picks]), [2.5, 97.5])
    assert [found.tau.low, found.tau.high] == pytest.approx(ends)


def test_taus_of_many_candidates_take_little_memory() -> None:
    a, b = np.random.default_rng(0).random((2, DRAWS, 64))
    tracemalloc.start()
    taus = _taus(a, b)
    assert tracemalloc.get_traced_memory()[1] < 2**27  # all at once, 300 MB, and four times that for twice as many
    tracemalloc.stop()
    assert len(taus) == DRAWS and taus[-1] == pytest.approx(stats.kendalltau(a[-1], b[-1]).statistic)


def test_a_difference_of_taus_draws_the_same_candidates_for_both() -> None:
    truth = list(range(12))
    same = tau_difference(truth, truth, truth)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert tau_difference(truth, truth[::-1], truth).low > 0


# ------------------------------------------------------------------ the losses


def history(scores: Sequence[float]) -> list[TrialRecord]:
    return [
        TrialRecord(i // 4, i % 4, "candidate", f"candidate {i // 4}.{i % 4}", (score, 0.5), 0, "complete",
                    {"miou": score}, score, 2.0, 1, number=i)
        for i, score in enumerate(scores)
    ]  # fmt: skip


def test_picks_are_spread_over_the_scores_not_over_the_ranks() -> None:
    crowded = [0.1, 0.2, 0.3, *(0.39 + 0.001 * i for i in range(12))]
    picked = [entry.score for entry in spread(history(crowded), "miou", 4)]
    assert picked == pytest.approx([0.401, 0.3, 0.2, 0.1], abs=0.011)
    assert len({entry.name for entry in spread(history(crowded), "miou", 40)}) == 15
    failed = [dataclasses.replace(r, state="failed", scores={}) for r in history([0.1, 0.2, 0.3])]
    with pytest.raises(InputError, match="two or more candidates, got 1 that completed"):
        spread([*failed, *history([0.4]), *history([0.4])], "miou", 4)


def entries() -> list[Entry]:
    found = [Entry(f"candidate 0.{i}", "candidate", (score,), score + 0.001, 2.0) for i, score in enumerate(RANKED)]
    return [*found, Entry("ce", "rival", None, None, 0.0)]


def quality(payload: dict[str, Any]) -> float:
    return payload["theta"][0] if "theta" in payload else 0.35


class Toy(CandidateTask):
    """Loss building left out: the "loss" is the candidate's true quality."""

    def build(self, payload: dict[str, Any]) -> Any:
        class Loss:
            value = quality(payload)

            def to(self, device: str) -> Any:
                return self

        return Loss()


def toy(variant: str) -> Any:
    def train(loss: Any, seed: int, device: str) -> dict[str, float]:
        noise = np.random.default_rng([seed, int(1e6 * loss.value), len(variant)]).normal(scale=NOISE[variant])
        return {"miou": loss.value + noise}

    return train


def task(trains: dict[str, Any] | None = None) -> TrustTask:
    trains = trains or {name: toy(name) for name in NOISE}
    jobs = {training(v.name, e.name): (v.name, e.payload) for v in VARIANTS for e in entries()}
    return TrustTask(Toy("miou", {}, 2, trains[PROXY]), trains, jobs)


class Counting(InlineExecutor):
    """Knows what it ran, and says how long it would have taken."""

    ran = 0

    def run(self, jobs: Sequence[Job]) -> Iterator[Any]:
        for job, outcome in super().run(jobs):
            self.ran += 1
            variant = job.payload["loss"].rpartition(": ")[0]
            assert job.kind == variant  # a cheap one sets no time limit for a fuller one
            yield job, dataclasses.replace(outcome, seconds=2 * COST[variant])


def trained(path: Path, executor: Counting) -> Trust:
    exists = (path / "config.yaml").exists()
    with RunFolder.open(path, {}) if exists else RunFolder.create(path, {}, {}) as folder:
        return Trust(entries(), VARIANTS, train_all(folder, plan(entries(), VARIANTS), "miou", executor, Observer()))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trust, Path]:
    """All trainings, done once."""
    path = tmp_path_factory.mktemp("trust") / "run"
    executor = Counting(task())
    found = trained(path, executor)
    assert executor.ran == 1 + 3 * 11 + 2 * 11  # with the search's own seed only the rival was missing
    return found, path


@pytest.mark.slow
def test_the_known_ranking_is_found_and_a_usable_proxy_is_named(whole: tuple[Trust, Path]) -> None:
    found, path = whole
    rows = {row.name: row for row in found.rows()}
    assert list(rows) == [PROXY, AGAIN, "half", "tenth"]
    assert [row.cost for row in rows.values()] == pytest.approx([1, 1, 0.5, 0.1]) and found.full_cost == 4
    full = found.scores(found.of(FULL))
    assert full == pytest.approx([*RANKED, 0.35])
    half = stats.kendalltau(found.scores(found.of("half")), full).statistic
    assert rows["half"].full.tau.value == pytest.approx(half) and half > 0.8
    yard = stats.kendalltau(found.scores(found.of(PROXY)), found.scores(found.of(AGAIN))).statistic
    assert rows["half"].share == pytest.approx(half / yard)
    assert " half may be used: at 0.50 of the cost its tau is" in verdict(found.rows())
    again = Counting(task())
    assert repr(trained(path, again).rows()) == repr(found.rows()) and again.ran == 0  # repr: NaN is not NaN


@pytest.mark.slow
def test_stopped_and_resumed_equals_never_stopped(whole: tuple[Trust, Path], tmp_path: Path) -> None:
    def stops(loss: Any, seed: int, device: str) -> dict[str, float]:
        if loss.value > 0.45:
            raise KeyboardInterrupt
        return toy("half")(loss, seed, device)

    trains = {name: toy(name) for name in NOISE}
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", Counting(task({**trains, "half": stops})))
    rest = Counting(task())
    assert repr(trained(tmp_path / "cut", rest).rows()) == repr(whole[0].rows())
    assert 0 < rest.ran < 56


@pytest.mark.slow
def test_a_loss_that_fails_once_is_left_out_of_that_row_alone(whole: tuple[Trust, Path]) -> None:
    name = training("half", "candidate 0.9")
    records = [dataclasses.replace(r, state="diverged") if r.name == name else r for r in whole[0].records]
    found = Trust(entries(), VARIANTS, records)
    assert {row.name: row.full.n for row in found.rows()} == {PROXY: 11, AGAIN: 11, "half": 10, "tenth": 11}


@pytest.mark.slow
def test_nothing_completed_is_said(tmp_path: Path) -> None:
    def fails(loss: Any, seed: int, device: str) -> dict[str, float]:
        raise Diverged("nan")

    with pytest.raises(AutosegError, match="No training completed"):
        trained(tmp_path / "run", Counting(task(dict.fromkeys(NOISE, fails))))


# ------------------------------------------------------------------ the verdict


def judged(full: Sequence[float], **scores: Sequence[float]) -> list[Any]:
    """Rows of made-up scores; `cheap` and `cheaper` beside the proxy's two seeds."""
    names = {"own": PROXY, "again": AGAIN}
    given = {names.get(name, name): list(values) for name, values in {**scores, FULL: full}.items()}
    losses = [Entry(str(i), "candidate", (float(i),), None, 0.0) for i in range(len(full))]
    cost = {"cheap": 0.5, "cheaper": 0.25}
    records = [
        TrialRecord(-1, i, name, training(name, str(i)), None, 1, "complete", {"m": v}, v, cost.get(name, 1.0))
        for name, values in given.items()
        for i, v in enumerate(values)
    ]
    return Trust(losses, [Variant(name, (1,)) for name in given], records).rows()


TRUTH = list(range(12))
NEAR = [1, 0, 2, 3, 5, 4, 6, 7, 8, 9, 11, 10]
SOME, OTHER = [0, 1, 6, 5, 4, 3, 2, 7, 8, 9, 10, 11], [0, 1, 2, 3, 4, 5, 6, 11, 10, 9, 8, 7]
FEW = [*TRUTH[:6], *[math.nan] * 6]
FAR = [6, 1, 8, 0, 4, 11, 2, 9, 3, 7, 5, 10]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (judged(TRUTH, own=NEAR, again=NEAR, cheap=TRUTH, cheaper=NEAR), "cheaper may be used: at 0.25 of the cost"),
        (judged(TRUTH, own=NEAR, again=NEAR, cheap=TRUTH, cheaper=FAR), "cheap may be used: at 0.50 of the cost"),
        (judged(TRUTH, own=TRUTH, again=TRUTH, cheap=FAR, cheaper=TRUTH[::-1]), "None of the cheaper proxies may"),
        (judged(TRUTH, own=TRUTH, again=TRUTH, cheap=[*NEAR[2:], 1, 0]), "None of the cheaper"),
        (
            judged(TRUTH, own=NEAR, again=NEAR, cheap=[1, 0, 3, 2, *NEAR[4:]]),
            "the nearest is cheap, which loses 0.03 [",
        ),
        # no less with these losses, but perhaps with others
        (judged(TRUTH, own=NEAR, again=SOME, cheap=OTHER), "the nearest is cheap, which loses 0.00 [-"),
        (judged(TRUTH, own=FAR, again=FAR, cheap=TRUTH), "does not surely rank losses as the fuller training"),
        (judged(TRUTH, own=TRUTH, again=FAR, cheap=FAR), "does not surely rank losses as the fuller training"),
        (judged(TRUTH, own=FAR, again=TRUTH, cheap=FAR), "None of the cheaper proxies may"),  # no less, but not surely
        (judged(TRUTH, own=TRUTH, again=NEAR, cheap=NEAR), "cheap may be used"),  # it loses nothing
        (judged(TRUTH[:8], own=TRUTH[:8], again=TRUTH[:8], cheap=TRUTH[:8]), "cheap may be used"),
        # one diverged for most losses: of the others something can be said
        (judged(TRUTH, own=NEAR, again=NEAR, cheap=TRUTH, cheaper=FEW), "cheap may be used: at 0.50 of the cost"),
        (
            judged(TRUTH, own=NEAR, again=NEAR, cheaper=FEW),
            "two seeds. Whether a cheaper one may be used cannot be told",
        ),
        (judged(TRUTH, own=FEW, again=NEAR, cheap=TRUTH), "takes 8 losses or more, here 6"),
        (judged(TRUTH, own=NEAR, again=NEAR), "tau 0.91 and 0.91 with two seeds. No cheaper one was tried."),
        (judged(TRUTH[:5], own=TRUTH[:5], again=TRUTH[:5], cheap=TRUTH[:5]), "takes 8 losses or more, here 5"),
    ],
)
def test_verdicts(rows: list[Any], words: str) -> None:
    assert words in verdict(rows)


def test_the_intervals_of_several_cheaper_proxies_hold_together() -> None:
    alone = judged(TRUTH, own=NEAR, again=NEAR, cheap=FAR)[2]
    _, _, first, second = judged(TRUTH, own=NEAR, again=NEAR, cheap=FAR, cheaper=FAR)
    assert first.lost == second.lost and first.lost.value == alone.lost.value
    assert first.lost.low < alone.lost.low and first.lost.high > alone.lost.high
    assert math.isnan(judged(TRUTH, own=NEAR, again=NEAR)[0].lost.value)


def test_the_regret_is_what_the_picked_loss_lacks() -> None:
    own, again, cheap = judged([0.1, 0.4, 0.3, math.nan], own=[1, 3, 2, 4], again=[2, 1, 3, 0], cheap=[3, 3, 1, 9])
    assert own.regret == 0 and again.regret == pytest.approx(0.1)
    assert cheap.regret == pytest.approx(0.4 - 0.25)  # two are best: either could be picked
    assert all(math.isnan(row.regret) for row in judged([math.nan], own=[1], again=[1]))


@pytest.mark.slow
def test_what_it_leaves(whole: tuple[Trust, Path], tmp_path: Path) -> None:
    found, _ = whole
    (tmp_path / "run").mkdir()
    write(found, "Search x: miou on toy.", "miou", tmp_path / "run")
    rows = list(csv.DictReader((tmp_path / "run" / "trust.csv").open()))
    assert len(rows) == 11 * len(VARIANTS)
    assert float(next(r for r in rows if r["training"] == FULL and r["loss"] == "ce")["miou"]) == pytest.approx(0.35)
    agreements = list(csv.DictReader((tmp_path / "run" / "agreement.csv").open()))
    assert [row["training"] for row in agreements] == [PROXY, AGAIN, "half", "tenth", PROXY]
    assert float(agreements[2]["tau"]) == pytest.approx(found.rows()[2].full.tau.value)
    assert float(agreements[2]["tau lost"]) == pytest.approx(found.rows()[2].lost.value)
    assert float(agreements[3]["score lost"]) == pytest.approx(found.rows()[3].regret)
    text = (tmp_path / "run" / "trust.md").read_text()
    assert "half may be used" in text and "Two seeds of the proxy agree at tau" in text
    assert (tmp_path / "run" / "figures" / "trust.png").read_bytes().startswith(b"\x89PNG")
    assert lines(found)[-1] == verdict(found.rows())


def test_picks_lie_at_even_steps_and_the_best_comes_first() -> None:
    even = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert [entry.score for entry in spread(history(even), "miou", 3)] == [0.9, 0.5, 0.1]
    crowded = [entry.score for entry in spread(history([*even, *(0.91 + 0.001 * i for i in range(12))]), "miou", 15)]
    assert crowded == sorted(crowded, reverse=True)


def test_seeds_that_agree_in_nothing_are_no_yardstick() -> None:
    rows = judged([0, 1, 2, 3], own=[0, 1, 2, 3], again=[1, 3, 0, 2])
    assert all(math.isnan(row.share) for row in rows)
