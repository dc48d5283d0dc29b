from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_search import (
    IDENTITY,
    NAMES,
    PROBLEM,
    TARGET,
    CountingExecutor,
    PulledPlug,
    Recorder,
    Stop,
    ToyController,
    ToyTask,
    search,
    settings,
)

from autoseg.config import ConfirmConfig
from autoseg.controllers import build_controller
from autoseg.errors import AutosegError, InputError
from autoseg.execution import InlineExecutor, Outcome, ProcessExecutor
from autoseg.search.confirm import fresh_seeds
from autoseg.search.observer import Amount, Observer, Observers
from autoseg.store.ledger import Ledger
from autoseg.store.records import Finding, SearchResult, TrialRecord

Essence = list[tuple[Any, ...]]


def essence(path: Path) -> tuple[Essence, dict[str, Any]]:
    """What must be the same in a run that was interrupted: candidates with their scores, controller states."""
    with Ledger(path / "trials.db", NAMES, read_only=True) as ledger:
        ran = [(r.round, r.index, r.theta, r.state, str(r.scores), str(r.reward)) for r in ledger.records("search")]
    return ran, {file.name: json.loads(file.read_text()) for file in sorted(path.glob("controller/*.json"))}


def test_a_search_finds_what_it_looks_for(quick_path: Path) -> None:
    published: list[Finding] = []
    result = search(quick_path / "run", settings(rounds=8, candidates=6), published=published)
    assert np.linalg.norm(np.array(result.best.theta) - TARGET) < 0.2
    assert result.best.confirmed and len(result.best.seeds) == 2 and 5 not in result.best.seeds
    assert [finding.confirmed for finding in published] == [False] * 8 + [True]
    assert published[-1] == result.best
    assert {row.name for row in result.rows if row.kind == "rival"} == {"identity", "ce"}
    assert all(comparison.mean > 0 for comparison in result.comparisons)
    ran, states = essence(quick_path / "run")
    assert [entry[:2] for entry in ran] == [(r, i) for r in range(8) for i in range(6)]
    assert list(states) == [f"round_{r:04d}.json" for r in range(9)]


@pytest.mark.parametrize("none", [ConfirmConfig(top=0), ConfirmConfig(seeds=0)])
def test_a_search_without_confirmation_says_so(quick_path: Path, none: ConfirmConfig) -> None:
    result = search(quick_path / "run", settings(confirm=none))
    assert not result.best.confirmed and result.rows == () and result.best.seeds == (5,)
    assert essence(quick_path / "run")[0][-1][:2] == (2, 2), "nine candidates, and nothing else was trained"


@pytest.fixture(scope="module")
def told() -> Recorder:
    """What the observer of `whole` was told."""
    return Recorder()


@pytest.fixture(scope="module")
def whole(kept_path: Path, told: Recorder) -> SearchResult:
    """Of a search that was never stopped; its folder is only read."""
    return search(kept_path / "whole", settings(), observer=told)


@pytest.fixture
def copied(quick_path: Path, whole: SearchResult) -> Path:
    """A copy of the folder of `whole`, to go on in."""
    return shutil.copytree(whole.run_dir, quick_path / "copied")


def same(result: SearchResult, other: SearchResult) -> bool:
    """Whether the results of two folders are equal."""
    return dataclasses.replace(result, run_dir=other.run_dir) == other


@pytest.fixture(scope="module")
def backwards(kept_path: Path) -> tuple[SearchResult, CountingExecutor]:
    """The same search with each round's trainings run backwards, and what ran them."""
    executor = CountingExecutor(ToyTask())
    return search(kept_path / "backwards", settings(), executor=executor), executor


def test_the_order_in_which_trainings_end_does_not_matter(whole: SearchResult, backwards: Any) -> None:
    assert same(backwards[0], whole)
    assert essence(backwards[0].run_dir) == essence(whole.run_dir)


@pytest.mark.parametrize("after", [0, 1, 3, 7, 9, 12, 16])  # of 3 rounds of 3 and 8 that confirm
def test_stopped_and_resumed_equals_never_stopped(quick_path: Path, whole: SearchResult, after: int) -> None:
    with pytest.raises(Stop):
        search(quick_path / "run", settings(), executor=PulledPlug(after))
    rest = CountingExecutor(ToyTask())
    resumed = search(quick_path / "run", settings(), executor=rest)
    assert essence(quick_path / "run") == essence(whole.run_dir)
    assert same(resumed, whole)
    assert len(rest.payloads) == 9 + 4 * 2 - after  # nothing that had a result was trained again


def test_with_real_workers(quick_path: Path, whole: SearchResult) -> None:
    with ProcessExecutor(ToyTask(0.002), ["cpu", "cpu"]) as executor:
        processes = search(quick_path / "run", settings(), executor=executor)
    assert essence(quick_path / "run") == essence(whole.run_dir)
    assert processes.best == whole.best


@pytest.mark.parametrize("name", ["ppo", "cmaes", "tpe", "gp", "random"])
def test_so_it_is_with_every_controller(quick_path: Path, name: str) -> None:
    def controller() -> Any:
        return build_controller(name, len(NAMES), seed=3, **({"epochs": 6} if name == "ppo" else {}))

    options = settings(candidates=3, confirm=ConfirmConfig(0, 0))
    whole = search(quick_path / "whole", options, controller=controller())
    with pytest.raises(Stop):
        search(quick_path / "run", options, executor=PulledPlug(7), controller=controller())
    assert search(quick_path / "run", options, controller=controller()).best == whole.best
    assert essence(quick_path / "run") == essence(quick_path / "whole")


def test_a_finished_run_is_only_read(copied: Path, whole: SearchResult) -> None:
    executor = CountingExecutor(ToyTask())
    assert same(search(copied, settings(), executor=executor), whole)
    assert executor.payloads == []


def test_more_rounds_go_on_and_fewer_are_refused(quick_path: Path, whole: SearchResult) -> None:
    search(quick_path / "run", settings(rounds=1))
    more = search(quick_path / "run", settings())
    assert essence(quick_path / "run") == essence(whole.run_dir)
    names = {row.name for row in more.rows}
    earlier = names - {row.name for row in whole.rows}
    assert earlier == {"candidate 0.1", "mean 1"}  # the finalists of one round stay
    assert [row for row in more.rows if row.name not in earlier] == list(whole.rows) and more.best == whole.best
    with pytest.raises(InputError, match=r"search\.rounds: expected at least 3"):
        search(quick_path / "run", settings(rounds=2))


def test_a_ledger_without_what_the_controller_was_told_is_refused(copied: Path) -> None:
    """Or a search would go on with the rounds that are left, and its winner be the best of these."""
    (copied / "trials.db").unlink()
    with pytest.raises(InputError, match=r"trials\.db: expected the 9 trainings of rounds that are over, got 0\."):
        search(copied, settings(rounds=4))


def test_a_deleted_checkpoint_is_replayed_without_training(copied: Path, whole: SearchResult) -> None:
    for name in ("round_0003.json", "round_0002.json"):
        (copied / "controller" / name).unlink()
    executor = CountingExecutor(ToyTask())
    assert same(search(copied, settings(), executor=executor), whole)
    assert essence(copied) == essence(whole.run_dir) and executor.payloads == []


def test_a_ledger_of_another_search_is_noticed(copied: Path) -> None:
    for file in (copied / "controller").iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"run folder, candidate 0\.0: expected one θ for one candidate"):
        search(copied, settings(), controller=ToyController(seed=1))


def rounding_otherwise(controller: Any, by: float = 1e-12) -> Any:
    """The controller on a processor that computes with other last bits."""
    propose = controller.ask

    def ask(n: int) -> Any:
        thetas = propose(n)
        return np.where(thetas < 0.5, thetas + by, thetas - by)

    controller.ask = ask
    return controller


@pytest.mark.parametrize(
    ("name", "by"), [("ppo", 1e-12), ("cmaes", 1e-12), ("tpe", 1e-12), ("gp", 1e-12), ("tpe", 0.3)]
)
def test_a_round_that_was_begun_goes_on_on_another_processor(quick_path: Path, name: str, by: float) -> None:
    """The ledger says what was asked, and what the controller is told is what was trained.

    After an upgrade of Optuna, "tpe" proposes candidates elsewhere.
    """
    run, options = quick_path / "run", settings(candidates=4, confirm=ConfirmConfig(0, 0))

    def controller() -> Any:
        return build_controller(name, len(NAMES), seed=3, **({"epochs": 6} if name == "ppo" else {}))

    with pytest.raises(Stop):
        search(run, options, executor=PulledPlug(6), controller=controller())
    with Ledger(run / "trials.db", NAMES, read_only=True) as ledger:
        before = [record.theta for record in ledger.records("search")]
    moved = rounding_otherwise(controller(), by)
    search(run, options, controller=moved)
    with Ledger(run / "trials.db", NAMES, read_only=True) as ledger:
        records = ledger.records("search")
    assert len(before) == 8 and [record.theta for record in records[:8]] == before
    assert len(records) == 12 and {record.state for record in records} == {"complete"}
    if name == "tpe":  # none waits for a reward that is never told: it would count as a poor one
        assert [trial.state.name for trial in moved._optimizer._study.trials].count("RUNNING") == 0


def test_a_candidate_elsewhere_is_of_another_search_unless_its_controller_jumps(quick_path: Path) -> None:
    run, options = quick_path / "run", settings(candidates=4, confirm=ConfirmConfig(0, 0))
    with pytest.raises(Stop):
        search(run, options, executor=PulledPlug(6))
    ran, _ = essence(run)
    with pytest.raises(InputError, match=r"candidate 1\.0: expected one θ for one candidate"):
        search(run, options, controller=rounding_otherwise(ToyController(), by=0.01))
    jumping = rounding_otherwise(ToyController(), by=0.01)
    jumping.jumps = True
    search(run, options, controller=jumping)
    assert [entry[:3] for entry in essence(run)[0][:8]] == [entry[:3] for entry in ran]


def test_a_mean_is_confirmed_with_the_theta_that_it_had(quick_path: Path) -> None:
    run, options = quick_path / "run", settings(confirm=ConfirmConfig(1, 2, []))

    class Rounds(ToyController):
        def load_state_dict(self, state: Any) -> None:
            super().load_state_dict(state)
            self.mean = np.nextafter(self.mean, 0.0)

    with pytest.raises(Stop):
        search(run, options, executor=PulledPlug(10))
    search(run, options, controller=Rounds())
    with Ledger(run / "trials.db", NAMES, read_only=True) as ledger:
        assert len({record.theta for record in ledger.records("confirm") if record.name == "mean 3"}) == 1


class Witness(ToyController):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def tell(self, thetas: Any, rewards: Any) -> None:
        self.told.append(rewards)
        super().tell(thetas, rewards)


@pytest.mark.parametrize(("fault", "state"), [("diverge_above", "diverged"), ("raise_above", "failed")])
def test_failed_candidates_are_told_as_nan(quick_path: Path, fault: str, state: str) -> None:
    controller, recorder = Witness(), Recorder()
    executor = InlineExecutor(ToyTask(**{fault: 0.6}))
    options = settings(rounds=3, candidates=4, confirm=ConfirmConfig(1, 1, ["ce"]))
    result = search(quick_path / "run", options, executor=executor, controller=controller, observer=recorder)
    ran, _ = essence(quick_path / "run")
    states = np.array([entry[3] for entry in ran]).reshape(3, 4)
    assert set(states.flat) == {"complete", state}
    assert (np.isnan(np.array(controller.told)) == (states == state)).all()
    assert math.isfinite(result.best.reward)
    assert len(recorder.of("trained")) == 3 * 4 + 3


def test_a_search_in_which_all_take_too_long_stops_after_a_round(quick_path: Path) -> None:
    class Slow(CountingExecutor):
        def run(self, jobs: Any) -> Any:
            for job, _ in super().run(jobs):
                yield job, Outcome("timeout", error="no result after 1 s")

    executor = Slow(ToyTask())
    with pytest.raises(AutosegError, match=r"No candidate completed. The first one \(timeout\): no result after 1 s"):
        search(quick_path / "run", settings(), executor=executor)
    assert len(executor.payloads) == 3


def test_a_search_in_which_nothing_works_stops_after_a_round(quick_path: Path) -> None:
    executor = CountingExecutor(ToyTask(raise_above=-1))
    with pytest.raises(AutosegError, match=r"No candidate completed. The first one \(failed\): .*\n(.*\n)*.*a bug"):
        search(quick_path / "run", settings(), executor=executor)
    assert len(executor.payloads) == 3


@dataclasses.dataclass(frozen=True)
class Full(ToyTask):
    """From its second round on the disk is full."""

    def __call__(self, payload: dict[str, Any], device: str) -> dict[str, float]:
        if payload["theta"] not in FIRST:
            raise OSError("no space")
        return super().__call__(payload, device)


FIRST = ToyController().ask(3).tolist()


def test_a_later_round_in_which_nothing_works_is_repeated(quick_path: Path, whole: SearchResult) -> None:
    """Or all others would be taken for poor ones, and a full disk for the end of a search."""
    executor = CountingExecutor(Full())
    with pytest.raises(AutosegError, match=r"No candidate of round 2 completed\. .* The first one \(failed\)"):
        search(quick_path / "run", settings(), executor=executor)
    assert len(executor.payloads) == 6
    assert same(search(quick_path / "run", settings()), whole)
    assert essence(quick_path / "run")[1] == essence(whole.run_dir)[1]


@pytest.mark.parametrize("floor", [None, "miou>=0.5*ce"])
def test_a_search_in_which_nothing_worked_goes_on_once_it_does(
    quick_path: Path, whole: SearchResult, floor: str | None
) -> None:
    options = settings(floor=floor)
    with pytest.raises(AutosegError, match="a bug"):
        search(quick_path / "run", options, executor=InlineExecutor(ToyTask(raise_above=-1)))
    executor = CountingExecutor(ToyTask())
    mended = search(quick_path / "run", options, executor=executor)
    assert same(mended, whole) and len(executor.payloads) == 9 + 8 + (floor is not None)


def test_a_confirmation_that_failed_is_not_done(copied: Path, whole: SearchResult) -> None:
    confirm = ConfirmConfig(1, 2, ["identity", "ce"], 25)
    problem, told, lost = dataclasses.replace(PROBLEM, iters=10), Recorder(), InlineExecutor(ToyTask(raise_above=0.0))
    assert not search(copied, settings(confirm=confirm), executor=lost, problem=problem).best.confirmed
    result = search(copied, settings(confirm=confirm), problem=problem, observer=told)
    assert told.of("started")[0].done == 9 and result.best.confirmed


@pytest.mark.parametrize("replayed", [False, True])
def test_a_failure_that_the_controller_was_told_of_stays_one(quick_path: Path, replayed: bool) -> None:
    """It has gone on from there: another past would be another search."""
    run, options = quick_path / "run", settings(rounds=2, candidates=4, confirm=ConfirmConfig(1, 1, ["ce"]))
    with pytest.raises(Stop):
        search(run, options, executor=PulledPlug(5, ToyTask(raise_above=0.6)))
    before = essence(run)[0]
    assert "failed" in {entry[3] for entry in before[:4]} and before[4][0] == 1
    if replayed:  # as is said of a damaged checkpoint
        (run / "controller" / "round_0001.json").unlink()
    search(run, options)
    assert essence(run)[0][:4] == before[:4] and len(essence(run)[0]) == 8


def test_a_floor_trains_its_rival_once_with_the_seed_of_the_search(quick_path: Path) -> None:
    executor = CountingExecutor(ToyTask())
    result = search(quick_path / "run", settings(floor="miou>=1.5*ce"), executor=executor)
    assert executor.payloads[0] == {"loss": "ce", "seed": 5}
    with Ledger(quick_path / "run" / "trials.db", NAMES, read_only=True) as ledger:
        (reference,) = ledger.records("floor")
        for record in ledger.records("search"):
            share = record.scores["miou"] / (1.5 * reference.scores["miou"])
            assert record.reward == pytest.approx(record.scores["biou"] * min(1.0, share))
    assert result.best.theta[1] > 0.3  # pulled up from the target's 0.2
    again = CountingExecutor(ToyTask())
    search(quick_path / "run", settings(floor="miou>=1.5*ce", rounds=4), executor=again)
    assert all(payload["seed"] != 5 or "theta" in payload for payload in again.payloads)


def test_a_floor_whose_rival_fails(quick_path: Path) -> None:
    with pytest.raises(AutosegError, match=r"training of ce, which search\.floor needs \(diverged\)"):
        search(quick_path / "run", settings(floor="miou>=ce"), executor=InlineExecutor(ToyTask(diverge_above=0.55)))


def test_what_the_observer_is_told(copied: Path, whole: SearchResult, told: Recorder) -> None:
    (plan,) = told.of("started")
    assert (plan.total, plan.done, plan.first_round, plan.workers) == (17, 0, 0, 1)
    progress = [progress for _, progress in told.of("trained")]
    assert [p.done for p in progress] == list(range(1, 18)) and all(p.total == 17 for p in progress)
    assert progress[-1].seconds_left == 0
    summaries = [summary for summary, _ in told.of("round_done")]
    assert [s.round for s in summaries] == [0, 1, 2]
    assert all(s.best_reward == max(r.reward for r in s.records) for s in summaries)
    assert told.of("finished") == [whole]
    resumed = Recorder()
    search(copied, settings(rounds=4), observer=resumed)
    assert (resumed.of("started")[0].done, resumed.of("started")[0].first_round) == (9, 3)
    progress = [progress for _, progress in resumed.of("trained")]
    assert (progress[-1].done, [p.total for p in progress]) == (22, [20] * 3 + [22] * 2)  # of 3 rounds, finalists stay
    finished = Recorder()
    search(copied, settings(rounds=4), observer=finished)
    assert (finished.of("started")[0].done, finished.of("started")[0].total) == (22, 22)


def test_a_confirmed_candidate_stays_when_a_later_one_has_a_higher_reward(quick_path: Path) -> None:
    """Its mean with fresh seeds is known, and may be the best."""

    class Lucky(ToyTask):
        """Curves score higher with the search's own seed, and with it alone."""

        def __call__(self, payload: dict[str, Any], device: str) -> dict[str, float]:
            scores = super().__call__(payload, device)
            return {**scores, "biou": scores["biou"] + (payload["seed"] == PROBLEM.seed)}

    confirm = ConfirmConfig(1, 2, [])
    first = search(quick_path / "run", settings(1, confirm=confirm))
    executor = CountingExecutor(Lucky())
    more = search(quick_path / "run", settings(2, confirm=confirm), executor=executor)
    assert more.best == first.best
    assert {row.name for row in first.rows} < {row.name for row in more.rows}
    assert any(row.name.startswith("candidate 1.") and row.reward < more.best.reward for row in more.rows)
    assert len(executor.payloads) == 3 + 2 * 2  # a round, the best of it and the new mean: none is trained again


def test_an_observer_that_fails_does_not_stop_the_search(quick_path: Path) -> None:
    class Broken(Observer):
        calls = 0

        def trained(self, record: Any, progress: Any) -> None:
            self.calls += 1
            raise ConnectionError("no network")

    broken, recorder = Broken(), Recorder()
    short = settings(rounds=1, confirm=ConfirmConfig(0, 0))
    search(quick_path / "run", short, observer=Observers([broken, recorder]))
    assert broken.calls == 1 and len(recorder.of("trained")) == 3


@pytest.mark.parametrize(
    ("amount", "done", "seconds", "left"),
    [
        (Amount(7), 0, 0.0, None),
        (Amount(6), 2, 30.0, 15.0 * 4 / 2),
        (Amount(6, 2, 3.0), 2, 30.0, 15.0 * (2 + 2 * 3) / 2),  # the last two take three times as long
        (Amount(6, 2, 3.0, together=1), 2, 30.0, 15.0 * (2 + 2 * 3 / 2)),  # a round of one leaves a worker idle
        (Amount(6, 2, 3.0, together=1), 5, 70.0, 10.0 * 3 / 2),
        (Amount(6, 2, 3.0), 5, 70.0, 10.0 * 3 / 2),
        (Amount(6, 2, 3.0), 7, 90.0, 0.0),  # more than were expected
    ],
)
def test_estimate(amount: Amount, done: int, seconds: float, left: float | None) -> None:
    assert amount.seconds_left(done, seconds, workers=2) == left


def test_a_longer_confirmation(copied: Path, whole: SearchResult) -> None:
    problem, told = dataclasses.replace(PROBLEM, iters=10), Recorder()
    longer, longest = (settings(confirm=ConfirmConfig(1, 2, ["identity", "ce"], iters)) for iters in (25, 40))
    executor = CountingExecutor(ToyTask())
    result = search(copied, longer, executor=executor, problem=problem, observer=told)
    assert len(executor.payloads) == 4 * 2 and all(payload["iters"] == 25 for payload in executor.payloads)
    assert result.best.iters == 25 and whole.best.iters is None
    assert not set(result.best.seeds) & set(whole.best.seeds)  # the ledger has the shorter ones too
    (plan,) = told.of("started")
    assert (plan.done, plan.amount) == (9, Amount(17, 8, 2.5, together=3))

    floored = dataclasses.replace(longest, floor="miou>=0.9*ce")  # a floor's rival is trained as long as what it judges
    executor = CountingExecutor(ToyTask())
    search(copied, floored, executor=executor, problem=problem, observer=told)
    trained = [(payload.get("loss"), payload.get("iters")) for payload in executor.payloads]
    assert trained[:2] == [("ce", None), ("ce", 40)] and len(trained) == 1 + 4 * 2  # it is one of the confirmation's
    assert {iters for _, iters in trained[1:]} == {40}
    assert told.of("started")[1].total == 9 + 1 + 8

    other = dataclasses.replace(longest, floor="miou>=0.9*ce", confirm=ConfirmConfig(1, 2, ["identity"], 55))
    executor = CountingExecutor(ToyTask())
    beside = search(copied, other, executor=executor, problem=problem, observer=told)
    assert {row.name for row in beside.rows if row.kind == "rival"} == {"identity", "ce"}  # though it was no rival
    assert told.of("started")[2].total == 9 + 1 + 8 and len(executor.payloads) == 8

    failed: list[Any] = []  # its card would be of the best candidate, unconfirmed: the one before is worth more
    bare = settings(confirm=ConfirmConfig(1, 2, [], 50))
    lost = search(copied, bare, executor=InlineExecutor(ToyTask(raise_above=0.0)), problem=problem, published=failed)
    assert not lost.best.confirmed and lost.warnings and failed == []

    none = dataclasses.replace(floored, confirm=ConfirmConfig(0, 2, [], 60))
    search(copied, none, problem=problem, observer=told)
    assert told.of("started")[3].total == 9 + 1

    again = CountingExecutor(ToyTask())
    assert same(search(copied, longer, executor=again, problem=problem), result) and not again.payloads


@pytest.mark.parametrize("less", [ConfirmConfig(1, 2, ["identity"]), ConfirmConfig(1, 0, [])])
def test_trainings_that_are_no_longer_asked_for_do_not_run_for_ever(quick_path: Path, less: ConfirmConfig) -> None:
    with pytest.raises(Stop):
        search(quick_path / "run", settings(), executor=PulledPlug(10))
    search(quick_path / "run", settings(confirm=less))
    with Ledger(quick_path / "run" / "trials.db", NAMES, read_only=True) as ledger:
        states = {record.state for study in ledger.studies for record in ledger.records(study)}
    assert states == {"complete"}


def test_fresh_seeds_are_fresh() -> None:
    seeds = fresh_seeds(5, 50)
    assert len(set(seeds)) == 50 and 5 not in seeds
    assert seeds[:3] == fresh_seeds(5, 3) and seeds[:3] != fresh_seeds(6, 3)


def test_identity_is_the_spaces_own_and_rivals_go_by_their_names(backwards: Any) -> None:
    payloads = backwards[1].payloads
    for seed in fresh_seeds(PROBLEM.seed, 2):
        assert {"theta": list(IDENTITY), "seed": seed} in payloads
        assert {"loss": "ce", "seed": seed} in payloads
    assert TrialRecord(0, 0, "rival", "ce", None, 1).payload == {"loss": "ce", "seed": 1}
