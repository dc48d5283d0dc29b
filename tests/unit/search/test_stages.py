from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from toy_search import NAMES, PROBLEM, PulledPlug, Recorder, Stop, ToyTask, search, settings

from autoseg.config import ConfirmConfig
from autoseg.controllers import build_controller
from autoseg.errors import InputError
from autoseg.execution import InlineExecutor
from autoseg.search.confirm import fresh_seeds
from autoseg.search.loop import run_search
from autoseg.search.observer import Amount
from autoseg.search.stages import stages_of
from autoseg.store.records import TrialRecord
from autoseg.store.run_folder import RunFolder
from autoseg.tracking.status import FINISHED, read_status


@pytest.mark.parametrize(
    ("controller", "changes", "rounds", "confirming"),
    [
        ("gp", {}, 3 * 4, 4 * 5),
        ("ppo", {}, 3 * 4, 5 * 5),  # and its mean
        ("gp", {"floor": "miou>=0.9*dice"}, 3 * 4 + 1, 5 * 5),  # dice is confirmed too, trained as long
        ("gp", {"floor": "miou>=0.2"}, 3 * 4, 4 * 5),  # nothing is trained for it
        ("gp", {"confirm": {"top": 0, "seeds": 5, "rivals": ["ce"], "iters": None}}, 3 * 4, 0),
    ],
)
def test_all_trainings_are_counted(controller: str, changes: dict[str, Any], rounds: int, confirming: int) -> None:
    confirm = {"top": 2, "seeds": 5, "rivals": ["ce", "lovasz", "ce"], "iters": 30}
    options = {"rounds": 3, "candidates": 4, "floor": None, "confirm": confirm, **changes}
    config = {"search": options, "controller": {"name": controller}, "proxy": {"iters": 10}, "seed": 0}
    longer = 1.0 if "confirm" in changes else 3.0
    assert stages_of(config, {}).amount == Amount(rounds + confirming, confirming, longer, together=4)


def test_of_a_confirmation_that_is_planned_what_is_recorded_counts() -> None:
    """Two candidates of one θ are one finalist: fewer are confirmed than could have been expected."""
    confirm = {"top": 2, "seeds": 2, "rivals": ["ce"], "iters": None}
    options = {"rounds": 1, "candidates": 2, "floor": None, "confirm": confirm}
    config = {"search": options, "controller": {"name": "gp"}, "seed": 0}
    done = [TrialRecord(0, i, "candidate", f"candidate 0.{i}", (0.5,), 0, "complete", reward=0.5) for i in range(2)]
    assert stages_of(config, {"search": done}).amount == Amount(2 + 6, 6, together=2)
    recorded = [TrialRecord(-1, 0, "", name, None, s) for s in fresh_seeds(0, 2) for name in ("candidate 0.0", "ce")]
    there = stages_of(config, {"search": done, "confirm": recorded})
    assert there.planned and there.confirmation == recorded and there.amount == Amount(2 + 4, 4, together=2)
    assert not stages_of(config, {"search": done, "confirm": recorded[:3]}).planned


class Onlooker(Recorder):
    """Reads the folder's state after each training."""

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.run, self.seen = run, list[tuple[int, int, float, str]]()

    def trained(self, record: Any, progress: Any) -> None:
        super().trained(record, progress)
        status = read_status(self.run)
        assert status is not None
        self.seen.append((len(status.done), status.total, status.amount.longer, status.state))


@pytest.mark.parametrize("floor", [None, "miou>=0.5*ce"])
@pytest.mark.parametrize(("controller", "entries"), [("ppo", 6), ("random", 5)])
def test_who_looks_from_outside_counts_as_the_search_does(
    quick_path: Path, floor: str | None, controller: str, entries: int
) -> None:
    run, options = quick_path / "run", settings(2, 4, floor=floor, confirm=ConfirmConfig(3, 2, ["identity", "ce"], 25))
    config = {"metric": "biou", "seed": PROBLEM.seed, "search": asdict(options), "controller": {"name": controller}}
    onlooker, problem = Onlooker(run), replace(PROBLEM, iters=10)
    chosen = build_controller(controller, len(NAMES), seed=3, **({"epochs": 6} if controller == "ppo" else {}))
    with RunFolder.create(run, {**config, "proxy": {"iters": 10}}, {}) as folder:
        run_search(folder, problem, chosen, InlineExecutor(ToyTask()), options, lambda _: None, onlooker)
    progress = [progress for _, progress in onlooker.of("trained")]
    total = (floor is not None) + 2 * 4 + entries * 2
    assert progress[-1].total == total == len(onlooker.seen)
    states = ["running"] * (total - 1) + [FINISHED]
    assert onlooker.seen == [(p.done, p.total, 2.5, state) for p, state in zip(progress, states, strict=True)]


def test_a_round_that_was_begun_is_not_given_up(quick_path: Path) -> None:
    """Its candidates would be finalists of fewer rounds, or wait for a result for ever."""
    run, options = quick_path / "run", settings(4, 3)
    with pytest.raises(Stop):
        search(run, options, executor=PulledPlug(8))
    before = (run / "config.yaml").read_text()
    with pytest.raises(InputError, match=r"search\.rounds: expected at least 3, which were begun, got 2"):
        search(run, settings(2, 3))
    assert (run / "config.yaml").read_text() == before
    fewer = search(run, settings(3, 3))
    assert replace(fewer, run_dir=run) == replace(search(quick_path / "whole", settings(3, 3)), run_dir=run)
