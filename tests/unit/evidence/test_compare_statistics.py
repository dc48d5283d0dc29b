"""Means, intervals and marks, against scipy and values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from autoseg.evidence.comparison.contenders import Contender
from autoseg.evidence.comparison.matrix import Matrix
from autoseg.evidence.comparison.tables import (
    aligned,
    corrected,
    differences,
    lead,
    legend,
    marks,
    points,
    rows_of,
    sentences,
)
from autoseg.evidence.figures import _key
from autoseg.metrics import score_of
from autoseg.store.paired import Paired, holm, p_value, paired, summary
from autoseg.store.records import TrialRecord, percent

SHARES = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12)


def matrix(searched: tuple[str, ...] = (), **values: list[float]) -> Matrix:
    """A matrix of one metric from scores by seed; NaN: it failed."""
    records = [
        TrialRecord(-1, 0, "x", name, None, seed, "failed" if math.isnan(v) else "complete",
                    {} if math.isnan(v) else {"miou": v}, seconds=float(seed))
        for name, row in values.items()
        for seed, v in enumerate(row)
    ]  # fmt: skip
    among = [Contender(name, name, name, name in searched) for name in values]
    seeds = list(range(len(next(iter(values.values())))))
    return Matrix(among, ["miou"], seeds, next(iter(values)), records, [])


def test_an_interval_by_hand() -> None:
    found = paired((0.5, 0.6, 0.7), (0.4, 0.4, 0.4))  # 0.1 0.2 0.3: mean 0.2, std 0.1, t(2, 97.5 %) = 4.302653
    assert (found.mean, found.n) == (pytest.approx(0.2), 3)
    assert found.low == pytest.approx(0.2 - 4.302653 * 0.1 / math.sqrt(3), abs=1e-6)
    assert not found.significant


@given(SHARES)
def test_the_interval_is_scipys(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = (np.array(side) for side in zip(*pairs, strict=True))
    if np.ptp(ours - theirs) < 1e-6:
        return  # scipy divides by zero
    found, known = paired(ours, theirs), stats.ttest_rel(ours, theirs)
    low, high = known.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
    if abs(known.pvalue - 0.05) > 1e-6:
        assert found.significant == (known.pvalue < 0.05 and len(pairs) >= 5)


def test_null_differences_are_marked_as_often_as_promised() -> None:
    draws = np.random.default_rng(0).normal(size=(2000, 2, 5))
    share = np.mean([paired(a, b).significant for a, b in draws])
    assert 0.03 < share < 0.07  # a bootstrap over five seeds marks 0.16


def test_a_seed_lost_by_either_counts_for_neither() -> None:
    found = paired((0.5, math.nan, 0.7, 0.6), (0.4, 0.9, math.nan, 0.4))
    assert found.n == 2 and found.mean == pytest.approx(0.15)
    assert math.isnan(paired((math.nan,), (0.5,)).mean) and math.isnan(paired((0.6,), (0.5,)).low)


def test_one_loss_against_itself_is_never_marked() -> None:
    found = paired((0.5,) * 6, (0.5,) * 6)
    assert (found.mean, found.low, found.high, found.significant) == (0, 0, 0, False)


def test_what_only_rounding_tells_apart_is_no_difference() -> None:
    ours = [0.3 + number * 2**-53 for number in (1, 2, 3, 1, 2, 3)]
    found = paired(ours, [0.3] * 6)
    assert found.differences == (0.0,) * 6 and not found.significant and math.isnan(p_value(found.differences))
    assert paired([1e-12] * 2, [2e-12] * 2).mean == -1e-12, "small scores are scores"


def test_summaries_leave_out_what_failed() -> None:
    found = summary((0.4, math.nan, 0.6))
    assert (found.n, found.mean, found.std) == (2, pytest.approx(0.5), pytest.approx(math.sqrt(0.02)))
    assert math.isnan(summary((math.nan,)).mean) and math.isnan(summary((0.5,)).std)


def test_a_sum_is_scored_from_its_terms_whole_and_by_class() -> None:
    scores = {"miou": 0.4, "bf1": 0.6, "miou/a": 0.2, "bf1/a": 0.8}
    assert score_of(scores, "miou+0.5*bf1") == pytest.approx(0.7)
    assert score_of(scores, "miou+0.5*bf1", "/a") == pytest.approx(0.6)
    assert math.isnan(score_of(scores, "biou"))


def test_the_one_to_beat_is_the_best_that_no_search_found() -> None:
    found = matrix(("new",), ce=[0.4] * 5, lovasz=[0.5] * 5, new=[0.6] * 5)
    assert (found.best("miou"), found.best_hand_made("miou")) == ("new", "lovasz")
    nobody = matrix(ce=[math.nan, math.nan], lovasz=[math.nan, math.nan])
    assert nobody.best("miou") is None and math.isnan(nobody.seconds("ce"))


def test_a_loss_that_mostly_fails_is_not_the_best_for_its_one_good_seed() -> None:
    bad = math.nan
    found = matrix(
        ("new",), ce=[0.3, 0.31, 0.3, 0.3, 0.3], dice=[bad, bad, bad, bad, 0.9], new=[0.4, 0.41, 0.4, 0.4, 0.4]
    )
    assert (found.best("miou"), found.best_hand_made("miou")) == ("new", "ce")
    assert found.leaders("miou") == ("new",)
    assert matrix(ce=[bad, 0.1], dice=[0.9, bad]).best("miou") == "dice"


def test_what_has_no_score_is_no_opponent() -> None:
    (text,) = sentences(matrix(ce=[math.nan] * 5, dice=[0.5] * 5, jml=[0.4] * 5))
    assert "to ce" not in text and "to jml" in text


def test_of_errors_the_lowest_is_best() -> None:
    records = [TrialRecord(-1, 0, "x", n, None, 1, "complete", {"ece": v}) for n, v in (("ce", 0.1), ("jml", 0.3))]
    found = Matrix([Contender(n, n, n, False) for n in ("ce", "jml")], ["ece"], [1], "ce", records, [])
    assert found.best("ece") == found.best_hand_made("ece") == "ce"
    assert "Lower is better for ece." in legend(found)


def test_marks() -> None:
    noise = [0.0, 0.01, -0.01, 0.005, -0.005]
    near = [0.50, 0.49, 0.51, 0.50, 0.48]
    found = matrix(
        ("new", "bad"), ce=[0.4 + n for n in noise], lovasz=near, new=[0.6 - n for n in noise], bad=[0.1] * 5
    )
    assert marks(found, "ce", "miou") == "‡" and marks(found, "lovasz", "miou") == "↑"
    assert marks(found, "new", "miou") == "↑†" and marks(found, "bad", "miou") == "↓‡"
    four = matrix(ce=[0.4, 0.41, 0.42, 0.43, math.nan], lovasz=[0.6, 0.61, 0.62, 0.64, 0.65])
    assert marks(four, "lovasz", "miou") == ""  # five seeds, four pairs


def test_time_is_the_median_of_what_completed() -> None:
    assert matrix(ce=[0.4, 0.4, math.nan, 0.4], lovasz=[0.5] * 4).seconds("ce") == 1.0


def test_numbers_as_people_read_them() -> None:
    assert (percent(0.4312), percent(math.nan)) == ("43.1", "–")
    assert points(paired((0.5, 0.6), (0.4, 0.4))) == "+15.0 [-48.5, +78.5]"
    assert (points(paired((0.5,), (0.4,))), points(paired((math.nan,), (0.4,)))) == ("+10.0", "–")


def test_a_tie_is_called_one() -> None:
    tied = matrix(ce=[0.2, 0.4], jml=[0.4, 0.2], lovasz=[0.1, 0.1])
    assert tied.leaders("miou") == ("ce", "jml")
    (text,) = sentences(tied)
    assert text.startswith("miou: ce, jml tie with 30.0 ± 14.1; +20.0") and "to lovasz" in text and "+0.0" not in text
    assert [line.count("*") for line in aligned(*rows_of(tied, "{}*"))] == [0, 1, 1, 0]
    assert sentences(matrix(ce=[0.2], jml=[0.2])) == ["miou: ce, jml tie with 20.0."]
    assert sentences(matrix(ce=[math.nan])) == ["miou: no training has a score."]


@given(SHARES)
def test_the_p_value_is_scipys(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = (np.array(side) for side in zip(*pairs, strict=True))
    if np.ptp(ours - theirs) < 1e-6:
        return
    assert p_value(list(ours - theirs)) == pytest.approx(stats.ttest_rel(ours, theirs).pvalue, rel=1e-6, abs=1e-12)


def test_holms_adjustment_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    found = holm([0.02, math.nan, 0.03])
    assert (found[0], found[2]) == pytest.approx((0.04, 0.04)) and math.isnan(found[1])
    assert holm([0.9, 0.8]) == [1, 1] and holm([]) == []
    assert math.isnan(p_value([0.1])) and math.isnan(p_value([0.1] * 5)) and math.isnan(p_value([math.nan, 0.1]))


def test_with_many_losses_fewer_differences_stay_certain() -> None:
    random = np.random.default_rng(3)
    base = random.normal(0.4, 0.01, 5)
    near = {f"l{i}": list(base + random.normal(0, 0.01, 5)) for i in range(6)}
    lift = base + np.array([0.006, 0.012, 0.019, 0.004, 0.021])  # p 0.02, of seven
    found = matrix(ce=list(base), weak=list(lift), strong=list(lift + 0.2), **near)
    p = {name: stats.ttest_rel(found.cell(name, "miou").values, base).pvalue for name in found.names[1:]}
    assert found.p_values("ce", "miou") == pytest.approx(p)
    ranked = sorted(p, key=lambda name: p[name])
    steps = np.maximum.accumulate([min(1, (len(p) - i) * p[name]) for i, name in enumerate(ranked)])
    assert found.holm("ce", "miou") == pytest.approx(dict(zip(ranked, steps, strict=True)))
    assert "↑" in marks(found, "weak", "miou") and found.holm("ce", "miou")["weak"] > 0.05
    note = corrected(found, "miou", ["ce"])
    assert note.startswith("Not corrected for the number of losses; with Holm's correction these stay certain: to ce ")
    assert "strong (p " in note and "weak" not in note


def test_the_best_is_held_against_every_other_loss() -> None:
    wave = [0.0, 0.01, -0.01, 0.005, -0.005]
    near = [0.60, 0.59, 0.61, 0.60, 0.58]
    losses = {"best": [0.605 - n for n in wave], "near": near, "far": [0.4 + n for n in wave], "low": [0.1] * 5}
    assert lead(matrix(**losses), "miou") == "miou: best, certainly ahead of all but near."
    assert lead(matrix(best=losses["best"], low=losses["low"]), "miou") == "miou: best, certainly ahead of all others."
    assert lead(matrix(best=losses["best"], near=near), "miou") == "miou: best, certainly ahead of none."
    weak = [b - d for b, d in zip(losses["best"], (0.006, 0.012, 0.019, 0.004, 0.021), strict=True)]
    more = matrix(**{**losses, "weak": weak, "nearer": near[::-1]})
    assert lead(more, "miou").endswith("all but near, nearer; with Holm's correction of all but near, weak, nearer.")
    tied = matrix(a=losses["best"], b=losses["best"], low=losses["low"])
    assert lead(tied, "miou") == "miou: a, b tie, certainly ahead of all others."
    frail = [*(v + 0.1 + n / 9 for v, n in zip(losses["best"], near, strict=True)), math.nan]
    steady = matrix(best=[*losses["best"], 0.6], frail=frail, low=[*losses["low"], 0.1])
    assert lead(steady, "miou") == "miou: best, certainly ahead of all but frail."  # it failed once, and is better
    lost = matrix(best=losses["best"], low=losses["low"], diverged=[math.nan] * 5)
    assert lead(lost, "miou") == "miou: best, certainly ahead of all but diverged."  # of which nothing is known
    assert lead(matrix(ce=[0.4] * 4, jml=[0.3] * 4), "miou") == "miou: ce; ahead of which takes 5 seeds or more to say."
    assert lead(matrix(ce=[math.nan]), "miou") == "miou: no training has a score."


def test_the_bootstrap_keeps_its_own_way_and_errors_lead_downwards() -> None:
    class Wider:
        def missing(self, metric: str, trainings: object) -> str:
            return ""

        def widen(self, point: Paired, *where: object) -> Paired:
            return point

    wave = [0.0, 0.01, -0.01, 0.005, -0.005]
    records = [
        TrialRecord(-1, 0, "x", name, None, seed, "complete", {"ece": level + n * level})
        for name, level in (("ce", 0.1), ("jml", 0.3))
        for seed, n in enumerate(wave)
    ]
    among = [Contender(n, n, n, False) for n in ("ce", "jml")]
    own, over = (Matrix(among, ["ece"], range(5), "ce", records, [], b) for b in (None, Wider()))  # type: ignore[arg-type]
    for found in (own, over):
        assert lead(found, "ece") == "ece: ce, certainly ahead of all others."
    assert own.p_values("ce", "ece")["jml"] < 1e-5 and math.isnan(over.holm("ce", "ece")["jml"])
    assert corrected(over, "ece", ["ce"]) == "Not corrected for the number of losses."
    assert differences(over).splitlines()[1].endswith(",1,,")


def test_scores_of_other_seeds_are_not_paired() -> None:
    with pytest.raises(ValueError):
        paired((0.5, 0.6), (0.4,))


def test_nothing_is_said_of_hand_made_losses_where_there_are_none() -> None:
    values = {"new": [0.4, 0.41, 0.4, 0.4, 0.4], "newer": [0.5, 0.5, 0.51, 0.5, 0.5]}
    alone, beside = matrix(("new", "newer"), **values), matrix(("new",), **values)
    assert not any("hand-made" in text for text in legend(alone))
    assert any("hand-made" in text for text in legend(beside))
    assert [line.get_label() for line in _key(alone)][1].startswith("hollow")
    assert [line.get_label() for line in _key(beside)][1] == "to the best hand-made loss"
