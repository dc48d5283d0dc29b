"""Runs a comparison: every loss with every seed under one budget, each training recorded, then one matrix of scores.

All losses share the seed's initial weights, batches and augmentation, so that differences are paired. The trainings
run on the search's executor and are recorded in the same kind of ledger: a comparison that is killed anywhere goes on
where it was, and more losses, seeds or metrics can be added to it later. All metrics are scored; which of them are
shown is decided when the matrix is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from autoseg.config import MOST_SEEDS
from autoseg.errors import InputError
from autoseg.evidence.comparison.bootstrap import Bootstrap
from autoseg.evidence.comparison.contenders import Contender, Recipe
from autoseg.execution import Executor
from autoseg.metrics import MetricOptions, parse, score_of
from autoseg.metrics.images import load_parts
from autoseg.proxy.predictions import KeepPredictions
from autoseg.search.observer import Observer
from autoseg.search.trials import train_list
from autoseg.store.ledger import Ledger
from autoseg.store.records import COMPLETE, TrialRecord
from autoseg.store.run_folder import RunFolder, slug

STUDY = "compare"
COUNTS = "counts"  # folder of a comparison with the counts of each image
FIRST_SEED = 1001  # the first seed if only their number is given; searches rarely use seeds from here on


def counts_file(folder: Path, name: str, seed: int) -> Path:
    """Return the path of a training's counts; every file system accepts the name."""
    return folder / f"{slug(name)}-{hashlib.sha256(name.encode()).hexdigest()[:6]}-{seed}.npz"


def bootstrap_of(folder: Path, interval: str, metrics: Sequence[str], recipe: Recipe) -> Bootstrap | None:
    """Return the bootstrap over the images of a comparison's trainings; None if its intervals are over seeds alone."""
    if interval != "bootstrap":
        return None
    options = MetricOptions(recipe.num_classes, recipe.ignore_index, **recipe.options)
    terms = {name for metric in metrics for _, name in parse(metric)}
    return Bootstrap(lambda loss, seed: load_parts(counts_file(folder / COUNTS, loss, seed), terms), options)


@dataclass(frozen=True)
class ComparisonTask:
    """The workers' task: builds the loss of a payload and trains with it."""

    texts: Mapping[str, str]  # contender name to the text it is built from
    recipe: Recipe  # builds it
    # `train(loss, seed, device)` returns {metric: score}, classes as "<metric>/<class>"; a dataclass, as `ProxyTask` is
    train: Callable[[nn.Module, int, str], Mapping[str, float]]
    keep: KeepPredictions | None = None  # which trainings save predictions; None: none
    counts: str | None = None  # folder for the counts of each image in each training; None: do not save them

    def __call__(self, payload: dict[str, Any], device: str) -> Mapping[str, float]:
        """Return the scores of `{"loss": name, "seed": n}`."""
        loss = self.recipe.build(self.texts[payload["loss"]]).to(device)
        changes: dict[str, Any] = {} if self.keep is None else self.keep.changes(payload)
        if self.counts is not None:
            changes["counts_to"] = str(counts_file(Path(self.counts), payload["loss"], payload["seed"]))
        train = replace(self.train, **changes) if changes else self.train  # type: ignore[type-var]
        return train(loss, payload["seed"], device)


def parse_seeds(given: object) -> list[int]:
    """Return the seeds, given their number or a list of them.

    Raises:
        InputError: neither, none at all, more than `MOST_SEEDS`, a negative one, or one twice.
    """
    many = len(given) if isinstance(given, Sequence) else given
    if isinstance(many, int) and many > MOST_SEEDS:
        raise InputError("seeds", f"at most {MOST_SEEDS}", many)
    if isinstance(given, int) and not isinstance(given, bool) and given > 0:
        return list(range(FIRST_SEED, FIRST_SEED + given))
    plain = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else []
    if not plain or any(not isinstance(seed, int) or isinstance(seed, bool) or seed < 0 for seed in plain):
        raise InputError("seeds", "how many, or a list of whole numbers from 0 on", repr(given), "For example seeds=5.")
    if twice := sorted({seed for seed in plain if plain.count(seed) > 1}):
        hint = "A seed counts once: twice the same training is no more evidence."
        raise InputError("seeds", "each seed once", f"{', '.join(map(str, twice))} more than once", hint)
    return plain


def run_comparison(
    folder: RunFolder,
    among: Sequence[Contender],
    seeds: Sequence[int],
    metric: str,
    executor: Executor,
    observer: Observer,
) -> list[TrialRecord]:
    """Run the trainings that the ledger does not have yet; return the record of every loss and seed.

    Args:
        folder: the locked folder of the comparison.
        among: the losses.
        seeds: seeds of the trainings, run seed by seed, so that an interrupted comparison has complete pairs.
        metric: name of the score that the ledger shows as the trial's value.
        executor: an executor of a `ComparisonTask`.
        observer: receives every training that ends.

    Raises:
        AutosegError: no training completed.
    """
    return train_list(folder, STUDY, planned(among, seeds), lambda scores: score_of(scores, metric), executor, observer)


def not_shown(folder: Path, among: Sequence[Contender]) -> list[str]:
    """Return the names of losses that a comparison has results of but that are not among those named now."""
    with Ledger(folder / "trials.db", (), read_only=True, studies=(STUDY,)) as ledger:
        known = dict.fromkeys(record.name for record in ledger.records(STUDY) if record.state == COMPLETE)
    return [name for name in known if name not in {loss.name for loss in among}]


def planned(among: Sequence[Contender], seeds: Sequence[int]) -> list[TrialRecord]:
    """Return the trainings of every loss with every seed, seed by seed."""
    return [
        TrialRecord(-1, index, "searched" if loss.searched else "hand-made", loss.name, None, seed)
        for seed in seeds
        for index, loss in enumerate(among)
    ]
