from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from autoseg.search.confirm import compare, conclude, finalists, fresh_seeds, tabulate, warnings_about, winner
from autoseg.store.paired import paired
from autoseg.store.records import Finding, Row, SearchResult, TrialRecord, ahead_of, by_round, sentence


def row(name: str, *values: float, kind: str = "candidate", **scores: float) -> Row:
    good = [v for v in values if not math.isnan(v)]
    mean = sum(good) / len(good) if good else math.nan
    return Row(values, len(good), mean, 0.0, name, kind, None, mean, {"biou": mean, **scores})


def trained(index: int, reward: float, theta: tuple[float, ...] | None = None) -> TrialRecord:
    state = "complete" if not math.isnan(reward) else "diverged"
    return TrialRecord(0, index, "candidate", f"candidate 0.{index}", theta or (index / 10,), 0, state, reward=reward)


def test_finalists_are_the_best_of_different_theta() -> None:
    history = [trained(0, 0.3), trained(1, math.nan), trained(2, 0.5), trained(3, 0.5, (0.2,)), trained(4, 0.5)]
    assert [r.name for r in finalists(history, 2, None, 1)] == ["candidate 0.2", "candidate 0.4"]
    assert [r.name for r in finalists(history, 9, (0.35,), 1)][-1] == "mean 1"
    assert "mean 1" not in [r.name for r in finalists(history, 2, (0.2,), 1)]  # it is candidate 0.2


def test_rounds_and_their_candidates_are_in_order() -> None:
    shuffled = [TrialRecord(r, i, "candidate", f"{r}.{i}", (0.5,), 0) for r, i in ((1, 1), (0, 1), (1, 0), (0, 0))]
    assert [[record.name for record in one] for one in by_round(shuffled)] == [["0.0", "0.1"], ["1.0", "1.1"]]


def test_the_winner_has_the_best_mean_and_completed_trainings() -> None:
    steady, lucky = row("steady", 0.5, 0.6), row("lucky", 0.9, 0.1)
    assert winner([lucky, steady, row("ce", 0.8, 0.8, kind="rival")]) == steady
    assert winner([steady, row("fragile", 0.9, math.nan)]) == steady
    assert winner([row("dead", math.nan, math.nan)]) is None


def test_a_score_that_some_seeds_lack_has_no_mean() -> None:
    told: list[dict[str, float]] = [{"biou": 0.5, "rare": 0.1, "f": 1.0}, {"f": 3.0, "biou": 0.7}, {}]
    records = [
        TrialRecord(-1, 0, "candidate", "c", (0.5,), seed, "complete" if scores else "diverged", scores, reward=0.5)
        for seed, scores in enumerate(told)
    ]
    for order in (records, records[::-1]):
        (found,) = tabulate(order, "biou")
        assert found.scores == {"biou": pytest.approx(0.6), "f": 2.0} and found.n == 2


def test_differences_are_paired_and_marked_from_five_seeds_on() -> None:
    a, b = (0.5, 0.6, 0.7, 0.8, 0.9), (0.45, 0.56, 0.64, 0.75, 0.86)
    found = compare(row("a", *a), row("b", *b, kind="rival"))
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.mean > 0 and found.significant
    few = compare(row("a", *a[:4]), row("b", *b[:4]))
    assert few.low > 0 and not few.significant
    assert compare(row("b", *b), row("a", *a)).mean == pytest.approx(-found.mean)


def test_a_seed_that_failed_for_one_counts_for_neither() -> None:
    found = compare(row("a", 0.5, math.nan, 0.7), row("b", 0.4, 0.9, 0.5))
    assert found.mean == pytest.approx(0.15) and math.isnan(found.differences[1])
    alone = compare(row("a", 0.5, math.nan), row("b", 0.4, 0.3))
    assert alone.mean == pytest.approx(0.1) and math.isnan(alone.low)
    none = compare(row("a", math.nan), row("b", 0.4))
    assert math.isnan(none.mean) and not none.significant


def test_a_winner_that_wrecks_the_rest_is_named() -> None:
    best = row("candidate 1.1", 0.7, miou=0.02, loss=0.0, bf1=0.4)
    ce = row("ce", 0.5, kind="rival", miou=0.4, loss=5.0, bf1=0.5)
    (text,) = warnings_about(best, [best, ce], "biou")
    assert "wrecking miou: 2.0, where ce has 40.0" in text and "'search.floor=\"miou>=0.9*ce\"'" in text
    assert warnings_about(row("x", 0.7, miou=0.3), [ce], "biou") == []
    noise = row("ce", 0.5, kind="rival", miou=0.009, bf1=0.011)
    (text,) = warnings_about(row("x", 0.7, miou=0.0, bf1=0.0), [noise], "biou")  # a miou of 0.9 is none to wreck
    assert "wrecking bf1: 0.0, where ce has 1.1" in text
    low = row("identity", 0.4, kind="rival", miou=0.01)
    assert len(warnings_about(best, [best, low, ce], "biou")) == 1  # identity has wrecked it too: ce is what counts
    (better,) = warnings_about(row("x", 0.2, miou=0.4), [ce], "biou")  # the target itself is not called wrecked
    assert better.startswith("ce is better")


def test_a_winner_behind_one_rival_is_not_called_found() -> None:
    rows = [row("x", 0.6), row("ce", 0.5, kind="rival"), row("dice", 0.7, kind="rival")]
    best = Finding("x", (0.5,), 0.6, {"biou": 0.6}, (1,), confirmed=True)
    assert sentence(SearchResult(Path("run"), "biou", best, tuple(rows[:2]))).startswith("Found a loss for biou")
    behind = sentence(SearchResult(Path("run"), "biou", best, tuple(rows)))
    assert behind.startswith("The best loss found is behind dice for biou: 60.0")
    tied = [rows[0], row("ce", 0.6, kind="rival")]
    assert sentence(SearchResult(Path("run"), "biou", best, tuple(tied))).startswith(
        "The best loss found is level with ce for biou"
    )


def test_only_a_rival_that_could_take_its_place_is_ahead() -> None:
    found = row("x", 0.6, 0.6)
    cut = replace(row("cut", 0.9, 0.9, kind="rival"), reward=0.3)  # by the floor
    others = [row("ce", 0.7, 0.7, kind="rival"), row("frail", 0.9, math.nan, kind="rival"), row("y", 0.8, 0.8)]
    rows = [found, cut, *others, row("dice", 0.8, 0.8, kind="rival"), row("even", 0.6, 0.6, kind="rival")]
    assert [ahead.name for ahead in ahead_of(found, rows)] == ["dice", "ce"]
    first = Finding("x", (0.5,), 0.6, {}, (0,), confirmed=False)
    assert conclude(Path("run"), "biou", first, [row for row in rows if row.name != "y"], (1, 2)).best.behind == (
        "dice",
        "ce",
    )


def test_a_better_rival_and_failed_trainings_are_named() -> None:
    best, rival = row("candidate 1.1", 0.5, math.nan), row("lovasz", 0.6, 0.7, kind="rival")
    better, missing = warnings_about(best, [best, rival], "biou")
    assert better.startswith("lovasz is better: biou 65.0 against 50.0 of candidate 1.1")
    assert missing.endswith("candidate 1.1 (1 of 2)")
    even = row("lovasz", 0.5003, 0.6, kind="rival")
    assert warnings_about(row("x", 0.5, 0.6), [even], "biou") == [
        "lovasz is as good: biou 55.0 against 55.0 of x, 2 fresh seeds"
    ]


def test_a_rival_below_the_floor_is_not_called_better() -> None:
    """It is ordered by its reward: the floor says that its lead does not count."""
    best, cut = row("candidate 0.1", 0.30, 0.31), replace(row("lovasz", 0.35, 0.36, kind="rival"), reward=0.2)
    rows = [best, cut, row("ce", 0.25, 0.26, kind="rival")]
    result = conclude(
        Path("run"), "biou", Finding("candidate 0.1", (0.5,), 0.3, {}, (0,), confirmed=False), rows, (1, 2)
    )
    (text,) = result.warnings
    assert text.startswith("lovasz is ahead, but search.floor cuts it: biou 35.5 against 30.5")
    assert result.best.behind == () and sentence(result).startswith("Found a loss for biou: 30.5")
    assert "lovasz 35.5 (-5.0, below the floor), ce 25.5 (+5.0)" in sentence(result)


def test_the_identity_curves_twice_are_one_loss() -> None:
    best, twin = (replace(row(name, 0.5, 0.4), theta=(0.5, 0.5)) for name in ("candidate 0.0", "identity"))
    rows = [best, replace(twin, kind="rival"), row("ce", 0.3, 0.2, kind="rival")]
    assert warnings_about(best, rows, "biou") == warnings_about(best, rows[:2], "biou") == []
    (text,) = warnings_about(best, [*rows, replace(row("candidate 0.1", 0.5, 0.4), theta=(0.4, 0.5))], "biou")
    assert text.startswith("losses score the same biou")


def test_losses_that_nothing_tells_apart_are_named() -> None:
    rows = [row("candidate 1.1", 0.5, 0.4), row("ce", 0.5, 0.4, kind="rival")]
    (text,) = warnings_about(rows[0], rows, "biou")
    assert text.startswith("losses score the same biou")
    same = [rows[0], row("identity", 0.5, 0.4, kind="rival"), row("wce", 0.5, 0.39, kind="rival")]
    assert [text] == warnings_about(rows[0], same, "biou")  # what was searched for made no difference
    assert warnings_about(rows[0], [rows[0], row("ce", 0.5, 0.3, kind="rival")], "biou") == []


def test_seeds_that_change_nothing_are_no_evidence() -> None:
    """As when train() ignores its seed: five times one training."""
    best, ce, dice = row("x", *[0.6] * 5), row("ce", *[0.5] * 5, kind="rival"), row("dice", 0.5, 0.4, kind="rival")
    found = compare(best, ce)
    assert found.mean == pytest.approx(0.1) and found.constant and not found.significant
    shifted = paired((0.3, 0.41, 0.52, 0.33, 0.44), (0.2, 0.31, 0.42, 0.23, 0.34))
    assert max(shifted.differences) > min(shifted.differences) and not shifted.significant  # rounding is no spread
    assert warnings_about(best, [best, ce, dice], "biou") == [
        "x, ce have the same score with every seed: the trainings may be too short to learn anything (or train() does "
        "not use its seed)"
    ]
    sound = row("x", 0.6, 0.61)
    assert warnings_about(sound, [sound, ce], "biou") == []  # one rival alone may have them by chance
    two = [row("ce", *[0.5] * 2, kind="rival"), row("dice", *[0.4] * 2, kind="rival")]
    assert [text.partition(":")[0] for text in warnings_about(sound, [sound, *two], "biou")] == [
        "ce, dice have the same score with every seed"
    ]
    for score in (0.0, 1.0):
        known = [row("x", score, score), row("ce", 0.4, 0.5, kind="rival")]
        assert not any("every seed" in text for text in warnings_about(known[0], known, "biou"))
    once = row("x", 0.6)
    assert warnings_about(once, [once, row("ce", 0.5, kind="rival")], "biou") == []


def test_a_candidate_that_failed_once_is_no_rival_of_the_winner() -> None:
    best, lucky = row("candidate 1.1", 0.5, 0.6), row("candidate 1.2", 0.9, math.nan)
    (text,) = warnings_about(best, [best, lucky], "biou")
    assert text.endswith("did not complete: candidate 1.2 (1 of 2)")


def test_the_seeds_of_a_confirmation_stay_those_of_earlier_versions() -> None:
    """A run that is gone on with finds its trainings by them."""
    assert fresh_seeds(0, 3) == [1849581847, 791421454, 890971628]
    assert fresh_seeds(0, 2, 300) == [571023183, 1192201614]
