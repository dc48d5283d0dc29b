"""A round costs the same after any history: counted in statements, commits and records looked at, not in time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from sqlalchemy import event
from toy_search import NAMES, CountingExecutor, ToyTask

from autoseg.config import DataConfig, ModelConfig, ProxyConfig
from autoseg.execution import InlineExecutor, Job, Outcome
from autoseg.proxy.task import ProxyTask
from autoseg.search.observer import Amount, Observer
from autoseg.search.timing import TimedTask, seconds_per_training
from autoseg.search.trials import TrialRunner
from autoseg.store.ledger import Ledger
from autoseg.store.records import TrialRecord


def plan(round: int, count: int = 4) -> list[TrialRecord]:
    thetas = [(0.5, 0.1 * (index + 1), 0.01 * (round % 100)) for index in range(count)]
    return [TrialRecord(round, i, "candidate", f"candidate {round}.{i}", t, 5) for i, t in enumerate(thetas)]


def trials_of(ledger: Ledger) -> TrialRunner:
    return TrialRunner(ledger, InlineExecutor(ToyTask(diverge_above=0.9)), Observer(), Amount(1000))


@contextmanager
def counted(ledger: Ledger) -> Iterator[dict[str, int]]:
    """Statements, and commits, of the ledger's database."""
    counts = {"statements": 0, "commits": 0}

    def count(kind: str) -> None:
        counts[kind] += 1

    engine = ledger._storage.engine
    listeners = [("before_cursor_execute", lambda *_: count("statements")), ("commit", lambda *_: count("commits"))]
    for name, listener in listeners:
        event.listen(engine, name, listener)
    yield counts
    for name, listener in listeners:
        event.remove(engine, name, listener)


def test_a_round_looks_at_nothing_of_the_history(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger(quick_path / "trials.db", NAMES) as ledger:
        trials = trials_of(ledger)
        told = []
        for round in (0, 1, 2):
            if round == 2:
                monkeypatch.setattr(ledger, "records", None)  # whoever went through them would fail
            with counted(ledger) as counts:
                trials.train("search", plan(round), lambda scores: scores["biou"])
                trials.progress()
            told.append(counts)
    assert told[0] == told[1] == told[2]
    assert min(told[0].values()) > 0


@pytest.mark.parametrize(
    ("first", "again"), [(0, [False, True, True]), (1, [False, True, True]), (2, [False, False, True])]
)
def test_failures_are_repeated_of_rounds_that_nothing_has_learnt_from(
    first: int, again: list[bool], quick_path: Path
) -> None:
    """Also where the last checkpoint is missing, and the run goes on from an earlier one."""
    failed = [replace(plan(round)[0], state="failed") for round in (0, 1, -1)]
    with Ledger(quick_path / "trials.db", NAMES) as ledger:
        for round in (0, 1):
            ledger.add("search", plan(round)[0])
        trials = TrialRunner(ledger, InlineExecutor(ToyTask()), Observer(), Amount(1000), first=first)
        assert [trials.repeats(record) for record in failed] == again
        assert not trials.repeats(replace(failed[2], state="diverged"))


def test_progress_and_best_are_those_of_all_records(quick_path: Path) -> None:
    """Kept up to date or counted anew from the file: the same; equals are decided for the first."""
    with Ledger(quick_path / "trials.db", NAMES) as ledger:
        trials = trials_of(ledger)
        assert trials.best is None and trials.progress().seconds_left is None
        trials.train("search", [*plan(0), replace(plan(1)[0], theta=(0.95, 0.1, 0.1))], lambda scores: scores["biou"])
        trials.train("confirm", plan(0), lambda scores: 2.0)  # no candidate of the search's rounds
        trials.train("search", plan(100), lambda scores: scores["biou"])  # θ as in round 0
        best, progress = trials.best, trials.progress()
    assert best is not None and best.round == 0
    assert progress.done == 13 and progress.best == best
    with Ledger(quick_path / "trials.db", NAMES) as again:
        fresh = trials_of(again)
        assert fresh.best == best and fresh.done == 9
        fresh.train("confirm", plan(0), lambda scores: 2.0)  # of a confirmation counts what is still wanted
        assert fresh.done == 13
        assert max(r.reward for r in again.records("search") if r.state == "complete") == best.reward


@pytest.mark.parametrize("study", ["search", "confirm"])
def test_what_failed_when_the_run_was_last_at_work_is_trained_again(quick_path: Path, study: str) -> None:
    """What diverged is not: it would again."""

    def train(executor: InlineExecutor) -> tuple[list[TrialRecord], TrialRunner]:
        with Ledger(quick_path / "trials.db", NAMES) as ledger:
            trials = TrialRunner(ledger, executor, Observer(), Amount(5))
            return trials.train(study, some, lambda scores: scores["biou"]), trials

    some = [replace(record, theta=(x, 0.1, 0.1)) for record, x in zip(plan(0), (0.3, 0.6, 0.8, 0.95), strict=True)]
    before, _ = train(InlineExecutor(ToyTask(diverge_above=0.9, raise_above=0.7)))
    assert [record.state for record in before] == ["complete", "complete", "failed", "diverged"]
    executor = CountingExecutor(ToyTask())
    after, trials = train(executor)
    assert [payload["theta"][0] for payload in executor.payloads] == [0.8]
    assert [record.state for record in after] == ["complete", "complete", "complete", "diverged"]
    assert (trials.done, after[2].number) == (4, 4), "counted once; the row of before stays"
    with Ledger(quick_path / "trials.db", NAMES, read_only=True) as ledger:
        assert repr(ledger.records(study)) == repr(after)  # NaN equals itself nowhere else


def test_the_first_of_equals_wins_also_where_it_was_trained_again(quick_path: Path) -> None:
    with Ledger(quick_path / "trials.db", NAMES) as ledger:
        trials = TrialRunner(ledger, InlineExecutor(ToyTask(raise_above=0.4)), Observer(), Amount(4))
        some = [replace(record, theta=(x, 0.1, 0.1)) for record, x in zip(plan(0, 2), (0.5, 0.3), strict=True)]
        trials.train("search", some, lambda scores: 0.5)
        again = TrialRunner(ledger, InlineExecutor(ToyTask()), Observer(), Amount(4))
        again.train("search", some, lambda scores: 0.5)
        assert (trials.best, again.best) == (ledger.records("search")[1], ledger.records("search")[0])


def test_the_first_of_equals_wins_whichever_ends_first(quick_path: Path) -> None:
    class Backwards(InlineExecutor):
        def run(self, jobs):  # type: ignore[no-untyped-def]
            return super().run(list(reversed(jobs)))

    with Ledger(quick_path / "trials.db", NAMES) as ledger:
        trials = TrialRunner(ledger, Backwards(ToyTask()), Observer(), Amount(4))
        trials.train("search", plan(0), lambda scores: 0.5)
        best = trials.best
    assert best is not None and best.index == 0


def test_what_takes_another_time_is_said_to(quick_path: Path) -> None:
    """Else it would limit the others: a measurement takes a moment, a longer confirmation many times as long."""

    class Kinds(InlineExecutor):
        seen: ClassVar[list[list[str]]] = []
        longer: ClassVar[list[set[float]]] = []

        def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Outcome]]:
            self.seen.append([job.kind for job in jobs])
            self.longer.append({job.longer for job in jobs})
            return super().run(jobs)

    with Ledger(quick_path / "trials.db", NAMES) as ledger:
        executor = Kinds(lambda payload, device: {"seconds": 1.0, "biou": 0.5})
        assert seconds_per_training(executor, (0.5, 0.5, 0.5), 5) == 1.0
        trials = TrialRunner(ledger, executor, Observer(), Amount(3, 1, 4.5), 900)
        trials.train("search", plan(0, 2), lambda scores: scores["biou"])
        trials.train("confirm", plan(1, 1), lambda scores: scores["biou"])
    assert executor.seen == [["timing"], ["candidate", "candidate"], ["candidate"]]
    assert executor.longer == [{1.0}, {1.0}, {4.5}]


def test_a_measurement_that_fails_is_none_and_every_worker_makes_one() -> None:
    class Pair(InlineExecutor):
        workers = 2

    def task(payload: dict[str, Any], device: str) -> dict[str, float]:
        measured.append(payload)
        if len(measured) > 2:
            raise RuntimeError("no space")
        return {"seconds": float(len(measured))}

    measured: list[dict[str, Any]] = []
    assert seconds_per_training(Pair(task), (0.5,), 5) == 1.5
    assert measured == [{"timing": {"theta": [0.5], "seed": 5}}] * 2
    assert seconds_per_training(Pair(task), (0.5,), 5) is None


@pytest.mark.parametrize(
    ("own", "graphs", "device", "expected"),
    [
        (250, False, "cpu", (1, 6)),
        (250, False, "cuda:0", (1, 26)),
        (250, True, "cuda:0", (5, 30)),
        (4, True, "cuda:0", (4, 4)),
    ],
)
def test_the_time_is_taken_of_iterations_that_are_alike(
    own: int, graphs: bool, device: str, expected: tuple[int, int]
) -> None:
    """With CUDA graphs, of those that are replayed; never of more than a training has."""
    proxy = ProxyTask(DataConfig(), ModelConfig(), ProxyConfig(cuda_graph=graphs), ("miou",))
    assert TimedTask("miou", {}, 2, proxy)._iterations(own, device) == expected


def test_the_identity_curves_are_confirmed_once_where_they_are_a_finalist_too(quick_path: Path) -> None:
    """As a candidate and as a rival, with every seed: the same loss, and so the same result."""
    theta = (0.5, 0.5, 0.5)
    both = [
        TrialRecord(0, 0, "candidate", "candidate 0.0", theta, 1),
        TrialRecord(-1, 0, "rival", "identity", theta, 1),
    ]
    entries = [*both, TrialRecord(-1, 0, "rival", "ce", None, 1)]
    executor = CountingExecutor(ToyTask())
    with Ledger(quick_path / "trials.db", NAMES) as ledger:
        trials = TrialRunner(ledger, executor, Observer(), Amount(6))
        records = trials.train(
            "confirm", [replace(one, seed=s) for s in (1, 2) for one in entries], lambda s: s["biou"]
        )
        assert len(executor.payloads) == 4 and trials.done == 6
    assert [record.name for record in records] == ["candidate 0.0", "identity", "ce"] * 2
    assert records[1].seconds == 0.0  # so that the time of all is what they took
    assert records[0].scores == records[1].scores != records[3].scores == records[4].scores
