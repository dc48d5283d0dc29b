"""Early stop: the published rule, fed with earlier rounds only; recorded, told to the controller, never a finalist."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from short_proxy import CrossEntropy
from test_loop import Witness, essence
from torch import Tensor
from toy_search import NAMES, CountingExecutor, PulledPlug, Recorder, Stop, ToyTask, outcome, search, settings

from autoseg.cli.configuration import compose
from autoseg.cli.jobs.search import fingerprint
from autoseg.config import ConfirmConfig, SearchConfig, SearchSettings
from autoseg.execution import InlineExecutor, Watched
from autoseg.proxy.rungs import Rungs, Stopped, Watch
from autoseg.proxy.task import ProxyTask
from autoseg.search.confirm import finalists
from autoseg.store.ledger import Ledger
from autoseg.store.records import COMPLETE, PRUNED, TrialRecord
from autoseg.surrogates import build_space
from autoseg.tracking.status import Status, round_line
from autoseg.tracking.terminal import Terminal, plain_console

PRUNING: dict[str, Any] = {"pruner": "median", "pruner_options": {"n_startup_trials": 3}}


class Climbing(ToyTask):
    """Its score grows to the final one in a way of its own; looked at after 25 and 50 of 100 iterations."""

    def __call__(self, payload: dict[str, Any], device: str) -> dict[str, float]:
        scores, watch = super().__call__(payload, device), Watch.of(payload, "biou")
        if watch is None:
            return scores
        slow = 0.1 + 0.05 * payload["theta"][0]
        try:
            for iteration in watch.rungs.iterations(100):
                watch.look(iteration, scores["biou"] - slow * (1 - iteration / 100))
        except Stopped:
            return Watched({}, watch.scores, pruned=True)
        return Watched(scores, watch.scores)


def options(**changes: Any) -> SearchSettings:
    return settings(**{"rounds": 4, "candidates": 6, **PRUNING, **changes})


def history(path: Path) -> list[TrialRecord]:
    with Ledger(path / "trials.db", NAMES, read_only=True) as ledger:
        return ledger.records("search")


@dataclass
class Pruned:
    """A search with early stop that has ended, and who took part in it."""

    path: Path
    controller: Witness = field(default_factory=Witness)
    executor: CountingExecutor = field(default_factory=lambda: CountingExecutor(Climbing()))
    observer: Recorder = field(default_factory=Recorder)

    def __post_init__(self) -> None:
        parts = {"executor": self.executor, "controller": self.controller, "observer": self.observer}
        self.result = search(self.path, options(), **parts)


@pytest.fixture(scope="module")
def pruned(kept_path: Path) -> Pruned:
    return Pruned(kept_path / "pruned")


def test_what_is_stopped_is_below_the_median_of_earlier_rounds(pruned: Pruned) -> None:
    records = history(pruned.path)
    assert {r.state for r in records[:6]} == {COMPLETE}  # nothing is known before the first round has ended
    assert PRUNED in {r.state for r in records[6:]} and COMPLETE in {r.state for r in records[6:]}
    for record in records[6:]:
        earlier = [r for r in records if r.round < record.round and r.state == COMPLETE]
        best = -math.inf
        for rung, score in enumerate(record.rungs.values()):
            best = max(best, score)
            stopped = record.state == PRUNED and rung == len(record.rungs) - 1
            assert (best < np.median([list(r.rungs.values())[rung] for r in earlier])) == stopped
        if record.state == PRUNED:
            last = len(record.rungs) - 1
            gain = np.median([r.reward - list(r.rungs.values())[last] for r in earlier])
            assert record.reward == pytest.approx(list(record.rungs.values())[last] + gain)
            assert record.scores == {} and record.error.startswith(f"stopped after {25 * (last + 1)} iterations")
        else:
            assert list(record.rungs) == [25, 50] and record.reward == record.scores["biou"]
    told = np.array(pruned.controller.told)
    assert np.isfinite(told).all() and told.shape == (4, 6)
    for payload in pruned.executor.payloads:
        assert ("rungs" in payload) == (payload["seed"] == 5)  # not when confirming
    stopped = {r.name for r in records if r.state == PRUNED}
    assert not stopped & {row.name for row in pruned.result.rows}


def test_the_best_expectation_is_no_finalist() -> None:
    known = [TrialRecord(0, i, "candidate", f"candidate 0.{i}", (i / 10,), 0, COMPLETE, reward=0.1) for i in range(2)]
    pruned = TrialRecord(1, 0, "candidate", "candidate 1.0", (0.9,), 0, PRUNED, reward=0.9)
    assert [r.name for r in finalists([*known, pruned], 3, None, 1)] == ["candidate 0.0", "candidate 0.1"]


def test_candidates_that_were_not_scored_at_every_rung_are_no_measure() -> None:
    """Of rounds before a run got other rungs."""
    known = [
        TrialRecord(0, i, "candidate", f"candidate 0.{i}", (i / 10,), 0, COMPLETE, reward=0.5, rungs=rungs)
        for i, rungs in enumerate([{25: 0.1, 50: 0.2}, {50: 0.3}, {}])
    ]
    rungs = Rungs.before(1, known, SearchSettings(pruner="median", rungs=[0.25, 0.5]))
    assert rungs is not None and rungs.earlier == ({25: 0.1, 50: 0.2},) and rungs.gains == ((0.4, 0.3),)


def test_neither_order_nor_interruption_matters(quick_path: Path) -> None:
    small = options(rounds=3, candidates=4, confirm=ConfirmConfig(0, 0))
    whole = search(quick_path / "whole", small, executor=InlineExecutor(Climbing()))
    kept = history(quick_path / "whole")
    assert PRUNED in {r.state for r in kept[4:8]} and PRUNED in {r.state for r in kept[8:]}
    for after in (5, 9):
        path = quick_path / f"run-{after}"
        with pytest.raises(Stop):
            search(path, small, executor=PulledPlug(after, Climbing()))  # which runs each round backwards
        assert search(path, small, executor=CountingExecutor(Climbing())).best == whole.best
        assert essence(path) == essence(quick_path / "whole")
        assert [r.rungs for r in history(path)] == [r.rungs for r in kept]


def test_it_is_optunas_own_rule() -> None:
    """Trial by trial as Optuna would have decided in a study of its own, with each complete one known."""
    rng, decided = np.random.default_rng(0), set()
    for name, pruner in (
        ("median", optuna.pruners.MedianPruner(n_startup_trials=4)),
        ("percentile", optuna.pruners.PercentilePruner(25.0, n_startup_trials=4)),
        ("median", optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=30, interval_steps=15)),
    ):
        study = optuna.create_study(direction="maximize", pruner=pruner)
        options = {key[1:]: getattr(pruner, key) for key in ("_n_startup_trials", "_n_warmup_steps", "_interval_steps")}
        rungs = Rungs(name, (0.2, 0.4, 0.6), options)
        for _ in range(40):
            trial, scores = study.ask(), {}
            for step, score in zip((20, 40, 60), rng.normal(loc=[0, 1, 2]).tolist(), strict=True):  # later ones higher
                trial.report(score, step)
                scores[step] = score
                assert rungs.hopeless(scores) == trial.should_prune()
                if trial.should_prune():
                    break
            else:
                rungs = replace(rungs, earlier=(*rungs.earlier, scores))
            decided.add(len(scores))
            if trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                study.tell(trial, scores[60])
    assert decided == {1, 2, 3}


def test_gains_that_are_not_known_do_not_count() -> None:
    """An own metric may be NaN until a class is found; the median must not depend on where such a candidate stands."""
    for known in itertools.permutations([0.1, 0.2, 0.4, math.nan, -math.inf]):
        assert Rungs(gains=tuple((gain,) for gain in known)).expected([0.5]) == 0.7
    assert math.isnan(Rungs(gains=((math.nan,),)).expected([0.5]))


@pytest.mark.parametrize("odd", [math.nan, -math.inf])
def test_a_score_that_is_not_finite_decides_nothing(odd: float) -> None:
    """It may be of a class that is not found yet, in this candidate or in those that it is compared with."""
    rungs = Rungs("median", (0.2, 0.4), {"n_startup_trials": 1}, earlier=({20: 0.1, 40: 0.5}, {20: odd, 40: 0.7}))
    assert not rungs.hopeless({20: odd}) and not rungs.hopeless({20: 0.05, 40: odd})
    assert rungs.hopeless({20: 0.05}) and not rungs.hopeless({20: 0.2})
    assert rungs.hopeless({20: odd, 40: 0.55}) and not rungs.hopeless({20: odd, 40: 0.65})


def test_without_a_pruner_nothing_is_asked(quick_path: Path) -> None:
    executor = CountingExecutor(Climbing())
    search(quick_path / "run", options(rounds=2, candidates=4, pruner="none"), executor=executor)
    assert len(executor.payloads) > 8 and not any("rungs" in payload for payload in executor.payloads)
    assert all(record.rungs == {} for record in history(quick_path / "run"))


def test_the_ledger_keeps_it_as_optuna_does(quick_path: Path) -> None:
    path, planned = quick_path / "trials.db", TrialRecord(2, 1, "candidate", "candidate 2.1", (0.1, 0.2, 0.3), 5)
    with Ledger(path, NAMES) as ledger:
        stopped = outcome(state="pruned", scores={}, rungs={25: 0.25, 50: 0.3})
        done = ledger.finish("search", ledger.add("search", planned), stopped, 0.4)
        nothing = ledger.add("search", replace(planned, name="candidate 2.2"))
        assert ledger.finish("search", nothing, outcome(state="pruned", rungs={25: 0.1}), math.nan).state == "diverged"
        odd = ledger.add("search", replace(planned, name="candidate 2.3"))
        odd = ledger.finish("search", odd, outcome(rungs={25: -math.inf, 50: 1e200}), 0.5)
    assert (done.state, done.reward, done.rungs) == (PRUNED, 0.4, {25: 0.25, 50: 0.3})
    assert list(map(math.isnan, odd.rungs.values())) == [True, True]
    with Ledger(path, NAMES) as again:
        assert again.records("search")[0] == done
        assert list(map(math.isnan, again.records("search")[2].rungs.values())) == [True, True]
    trial = optuna.load_study(study_name="search", storage=f"sqlite:///{path}").trials[0]
    assert trial.state == optuna.trial.TrialState.PRUNED
    assert trial.intermediate_values == {25: 0.25, 50: 0.3} and trial.value == 0.4


def test_the_terminal_and_watch_say_how_many(pruned: Pruned, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = pruned.observer
    terminal = Terminal(plain_console())
    for record, progress in recorder.of("trained"):
        terminal.trained(record, progress)
    for summary, progress in recorder.of("round_done"):
        terminal.round_done(summary, progress)
    printed = capsys.readouterr().out.splitlines()
    records, config = history(pruned.path), {"search": {"rounds": 4, "candidates": 6}}
    status = Status("search", config, "running", {"search": tuple(records)}, 24, 0.0)
    for number in range(4):
        stopped = sum(r.state == PRUNED for r in records if r.round == number)
        for line in (printed[number], round_line(status, number) or ""):
            assert (f"stopped early {stopped}" in line) == (stopped > 0) and "failed" not in line
    assert len(printed) == 4  # no line for each that is stopped


class Few(CrossEntropy):
    calls = 0

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(logits, labels)


def test_no_rung_is_before_the_first_iteration() -> None:
    assert Rungs(shares=(0.01, 0.5)).iterations(10) == [1, 5]


def test_looking_does_not_disturb_the_training(task: ProxyTask) -> None:
    plain = task(CrossEntropy(), 0)
    watch = Watch(Rungs(shares=(0.3, 0.7)), "biou")
    assert replace(task, watch=watch)(CrossEntropy(), 0) == plain
    assert list(watch.scores) == [1, 2] and all(math.isfinite(score) for score in watch.scores.values())


def test_a_stopped_training_ends_there(task: ProxyTask) -> None:
    rungs = Rungs("median", (0.4,), {"n_startup_trials": 1}, earlier=({1: 2.0},))
    loss, watched = Few(), replace(task, watch=Watch(rungs, "miou"))
    with pytest.raises(Stopped):
        watched(loss, 0)
    assert loss.calls == 1


def test_a_run_whose_options_counted_rungs_is_another_search() -> None:
    parts: Any = SimpleNamespace(data=SimpleNamespace(fingerprint="x"), space=build_space("default", metric="miou"))
    for option, more in (("n_warmup_steps", {"steps": "iterations"}), ("n_startup_trials", {})):
        words = ["search.pruner=median", f"search.pruner_options.{option}=5"]
        config = compose.compose("search", SearchConfig, words)
        assert fingerprint(config, parts)["pruner_options"] == {option: 5, **more}
