"""A whole search without its trainings: what its orchestration costs, how fast it starts, what a worker needs.

* Orchestration: a real search (PPO, ledger, a worker process) over a task that only sleeps; what the search takes
  beyond the sleep, for each training, as a share of a training of 30 s.
* Start-up: from `python` to the first call of the loss in a worker: imports, configuration, data, workers, the
  network. DeepLabV3+ with MobileNetV2 on the images of `benchmarks/proxy.py`, their cache made before. With as many
  workers as the command starts by itself; in the details, with one.
* Memory: the peak of such a worker, after training and scoring.
* History: opening a ledger of 10,000 trainings, beside Optuna reading the same file; and a round of PPO with such a
  ledger, beside one with an empty ledger.
"""

from __future__ import annotations

import json
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from autoseg.config import ConfirmConfig, DataConfig, SearchSettings
from autoseg.controllers import build_controller
from autoseg.execution import InlineExecutor, ProcessExecutor
from autoseg.search.loop import Problem, run_search
from autoseg.search.observer import Amount, Observer
from autoseg.search.trials import TrialRunner
from autoseg.store.ledger import Ledger
from autoseg.store.records import TrialRecord
from autoseg.store.run_folder import RunFolder
from benchmarks.harness import Row, paired

NAMES = ["a", "b", "c", "d", "e", "f"]
HISTORY = 10_000
TRAINING_S = 30.0  # of the proxies that orchestration is compared with
SLEEP_S, ROUNDS, CANDIDATES = 0.25, 3, 8


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        return [orchestration(folder), *worker(folder), *history(folder)]


class Sleeps:
    """A task that takes its time and does nothing."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, payload: dict[str, Any], device: str) -> dict[str, float]:
        """Sleep."""
        time.sleep(self.seconds)
        return {"miou": payload["theta"][0]}


def orchestration(folder: Path) -> Row:
    settings = SearchSettings(ROUNDS, CANDIDATES, confirm=ConfirmConfig(0, 0, []))
    problem = Problem("miou", NAMES, [0.5] * len(NAMES))
    controller = build_controller("ppo", len(NAMES), [0.5] * len(NAMES), seed=0)
    with (
        RunFolder.create(folder / "run", {}, {}) as run,
        ProcessExecutor(Sleeps(SLEEP_S), ["cpu"]) as executor,
    ):
        bench = TrialRunner(Ledger(folder / "warm.db", NAMES), executor, Observer(), Amount(1))
        bench.train("search", plan(0, 1), lambda scores: scores["miou"])  # the worker is up
        start = time.perf_counter()
        run_search(run, problem, controller, executor, settings, lambda finding: None, Observer())
        spent = time.perf_counter() - start
    trainings = ROUNDS * CANDIDATES
    each = spent / trainings - SLEEP_S
    what = "search orchestration per training, as a share of a training"
    detail = {"rounds": ROUNDS, "candidates": CANDIDATES, "sleep_s": SLEEP_S, "seconds": spent}
    return Row(what, "a training of 30 s", each, TRAINING_S, each / TRAINING_S, "s", "<= 0.02", detail)


def worker(folder: Path, repeats: int = 3) -> list[Row]:
    """Start-up and memory, each time in a new interpreter."""
    from benchmarks import proxy

    data = proxy.camvid() or proxy.generated(folder / "images")
    data.cache_dir = str(folder)
    cold, _ = started(data, "auto")  # fills the caches
    runs = [(*started(data, "auto"), started(data, "1")[0]) for _ in range(repeats)]
    seconds, peaks, alone = ([run[part] for run in runs] for part in range(3))
    first, peak = statistics.median(seconds), statistics.median(peaks)
    detail = {"images": data.name, "seconds": seconds, "with one worker": alone, "first, caches cold": cold}
    return [
        Row("start-up of a search to the first training step", "10 s", first, 10.0, first / 10, "s", "<= 1", detail),
        Row("peak resident memory of a worker", "1.3 GB", peak, 1.3, peak / 1.3, "GB", "<= 1", {"peaks": peaks}),
    ]


def started(data: DataConfig, workers: str) -> tuple[float, float]:
    """Seconds to the first step, and the peak of a worker in GB; in a new interpreter, a `start`."""
    call = f"from benchmarks.start import start; start({asdict(data)!r}, {workers!r})"
    begun = time.time()
    out = subprocess.run([sys.executable, "-c", call], check=True, capture_output=True, text=True).stdout
    seen = json.loads(out.splitlines()[-1])
    return seen["first_step"] - begun, seen["peak_gb"]


def history(folder: Path) -> list[Row]:
    long, short = folder / "long.db", folder / "short.db"
    filled(long)

    def opened() -> None:
        Ledger(long, NAMES).close()

    def by_optuna() -> None:
        study = optuna.load_study(study_name="search", storage=f"sqlite:///{long}")
        assert len(study.trials) == HISTORY

    open_s, optuna_s, open_ratio = paired(opened, by_optuna, repeats=3, warmup=1)
    with Ledger(long, NAMES) as full, Ledger(short, NAMES) as empty:
        long_s, short_s, ratio = paired(Round(full), Round(empty), repeats=9, warmup=1)
    detail = {"trainings": HISTORY, "candidates": CANDIDATES}
    return [
        Row(f"opening a ledger of {HISTORY:,} trainings", "Optuna", open_s, optuna_s, open_ratio, "s", "", detail),
        Row(f"a PPO round after {HISTORY:,} trainings", "after none", long_s, short_s, ratio, "s", "<= 1.2", detail),
    ]


class Round:
    """One round of PPO: asked, planned, run (by a task that takes no time), recorded, told."""

    def __init__(self, ledger: Ledger) -> None:
        self.bench = TrialRunner(ledger, InlineExecutor(Sleeps(0.0)), Observer(), Amount(HISTORY))
        self.controller = build_controller("ppo", len(NAMES), [0.5] * len(NAMES), seed=0)
        self.number = HISTORY

    def __call__(self) -> None:
        """Run it."""
        self.number += 1
        thetas = self.controller.ask(CANDIDATES)
        records = self.bench.train("search", plan(self.number, thetas.tolist()), lambda scores: scores["miou"])
        self.controller.tell(thetas, np.array([record.reward for record in records]))


def plan(round: int, thetas: int | Sequence[Sequence[float]]) -> list[TrialRecord]:
    drawn = [[0.5] * len(NAMES)] * thetas if isinstance(thetas, int) else thetas
    return [
        TrialRecord(round, index, "candidate", f"candidate {round}.{index}", tuple(theta), 0)
        for index, theta in enumerate(drawn)
    ]


def filled(path: Path) -> None:
    """A ledger of HISTORY trainings, written into its tables directly: one by one it would take minutes."""
    Ledger(path, NAMES).close()
    draw = random.Random(0)
    axis = json.dumps(
        {"name": "FloatDistribution", "attributes": {"step": None, "low": 0.0, "high": 1.0, "log": False}}
    )
    with sqlite3.connect(path) as base:
        (study,) = base.execute("SELECT study_id FROM studies WHERE study_name = 'search'").fetchone()
        for trial in range(1, HISTORY + 1):
            round, index = divmod(trial - 1, CANDIDATES)
            attributes = {
                "round": round, "index": index, "kind": "candidate", "name": f"candidate {round}.{index}", "seed": 0,
                "scores": {f"score {k}": draw.random() for k in range(25)},
                "outcome": {"state": "complete", "seconds": 30.0, "attempts": 1, "error": "", "ended": 1.767e9},
            }  # fmt: skip
            when = "2026-01-01 00:00:00.000000"
            base.execute("INSERT INTO trials VALUES (?, ?, ?, 'COMPLETE', ?, ?)", (trial, trial - 1, study, when, when))
            base.executemany(
                "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)",
                [(trial, key, json.dumps(value)) for key, value in attributes.items()],
            )
            base.executemany(
                "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) VALUES (?, ?, ?, ?)",
                [(trial, f"theta.{name}", draw.random(), axis) for name in NAMES],
            )
            base.execute(
                "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (?, 0, ?, 'FINITE')",
                (trial, draw.random()),
            )
