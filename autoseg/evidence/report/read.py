"""Reads run folders, without locking or changing them, into the data of a report: a search or a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.errors import InputError
from autoseg.evidence.comparison.compare import STUDY, bootstrap_of, parse_seeds, planned
from autoseg.evidence.comparison.contenders import Contender, Recipe, contenders, reference_of
from autoseg.evidence.comparison.matrix import Matrix
from autoseg.losses import LossCard
from autoseg.search.confirm import concluded
from autoseg.search.stages import stages_of
from autoseg.store.ledger import Ledger
from autoseg.store.records import COMPLETE, RUNNING, SearchResult, TrialRecord
from autoseg.store.run_files import all_settings, differences, kind_of, read_config, read_fingerprint
from autoseg.store.user_code import FORMULA
from autoseg.surrogates.space import SearchSpace

OF_A_SEARCH = (  # all other keys are its budget
    "metric", "seed", "candidates", "floor", "space", "controller", "start", "pruner", "rungs", "pruner_options",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """The data that searches and comparisons share."""

    path: Path  # the run folder
    config: Mapping[str, Any]  # `config.yaml`, plain data
    fixed: Mapping[str, Any]  # `fingerprint.json`
    records: Sequence[TrialRecord]  # records of all trainings, in the order in which they were planned
    total: int  # number of trainings, those to come included

    @property
    def done(self) -> list[TrialRecord]:
        """The trainings that have a result, complete or not."""
        return [record for record in self.records if record.state != RUNNING]

    @property
    def finished(self) -> bool:
        """Whether every training has its result."""
        return len(self.done) >= self.total

    @property
    def data_name(self) -> str:
        """The name of the data set; "your own training" if only a training function knows it."""
        return str(self.config["data"]["name"]) if "data" in self.config else "your own training"


@dataclass(frozen=True)
class SearchRun(Run):
    """A search."""

    metric: str  # the target
    space: SearchSpace  # the search space
    search: Sequence[TrialRecord]  # records of the candidates
    confirmation: Sequence[TrialRecord]  # those of the confirmation of all rounds, in the order of its plan
    result: SearchResult  # its result, so far if it is not finished
    card: LossCard | None  # `loss.json`; None if there is none yet

    @property
    def rounds(self) -> int:
        """All rounds, those to come included."""
        return int(self.config["search"]["rounds"])


@dataclass(frozen=True)
class ComparisonRun(Run):
    """A comparison."""

    among: Sequence[Contender]  # the losses
    recipe: Recipe  # builds them
    metrics: Sequence[str]  # the metrics that are shown
    seeds: Sequence[int]  # all of them
    matrix: Matrix | None  # the seeds with which every loss has been trained; None if there are none
    reference: str  # name of the loss all others are compared with
    classes: Sequence[str]  # names; empty if no training has been scored by class


def open_run(path: Path) -> SearchRun | ComparisonRun:
    """Read a run folder.

    Raises:
        InputError: not a run folder, another kind of run, damaged, or none of its trainings has completed.
    """
    config = read_config(path)
    kind, fixed = kind_of(config, path, ("search", "compare")), read_fingerprint(path)
    with all_settings(path):
        return _comparison(path, config, fixed) if kind == "compare" else _search(path, config, fixed)


def _some_complete(path: Path, records: Sequence[TrialRecord]) -> None:
    """Raise if a run has nothing to show.

    Raises:
        InputError: no training of `records` completed.
    """
    if any(record.state == COMPLETE for record in records):
        return
    why = next((f"; the first one ({r.state}): {r.why}" for r in records if r.why), "")
    hint = "Report it once its first training has ended well."
    raise InputError("RUN", "a run with a completed training", f"{path} without any among {len(records)}{why}", hint)


# ------------------------------------------------------------------------------------------ a search


def _search(path: Path, config: dict[str, Any], fixed: dict[str, Any]) -> SearchRun:
    space, metric = SearchSpace.from_dict(fixed["space"]), str(fixed["metric"])
    with Ledger(path / "trials.db", space.names, read_only=True) as ledger:
        there = stages_of(config, {study: ledger.records(study) for study in ledger.studies})
    _some_complete(path, there.search)
    card = LossCard.load(path / "loss.json") if (path / "loss.json").is_file() else None
    result = concluded(path, config, there.search, there.confirmation if there.planned else ())
    total, confirmation = there.amount.total, there.confirmation
    return SearchRun(path, config, fixed, there.records, total, metric, space, there.search, confirmation, result, card)


# ------------------------------------------------------------------------------------------ a comparison


def _comparison(path: Path, config: dict[str, Any], fixed: dict[str, Any]) -> ComparisonRun:
    with Ledger(path / "trials.db", (), read_only=True, studies=(STUDY,)) as ledger:
        known = {record.key: record for record in ledger.records(STUDY)}
    classes, seeds = _classes(list(known.values())), parse_seeds(config["seeds"])
    options = {key: fixed[key] for key in ("tolerance", "drop_background")}
    recipe = Recipe(len(classes) or 2, space=config["space"]["name"], options=options)
    among = contenders(config["losses"], config["metrics"], path)
    reference = reference_of(config["reference"], among).name
    records = [known.get(record.key, record) for record in planned(among, seeds)]
    _some_complete(path, records)  # of those that are asked for now: others may be complete
    open_seeds = {record.seed for record in records if record.state == RUNNING}
    whole = [seed for seed in seeds if seed not in open_seeds]
    bootstrap = bootstrap_of(path, config["interval"], config["metrics"], recipe)
    matrix = Matrix(among, config["metrics"], whole, reference, records, classes, bootstrap) if whole else None
    return ComparisonRun(
        path, config, fixed, records, len(records),
        among, recipe, config["metrics"], seeds, matrix, reference, classes,
    )  # fmt: skip


def _classes(records: Sequence[TrialRecord]) -> list[str]:
    """Return the names of the classes, in order, from the scores of a training under any metric that has them."""
    for record in records:
        metrics = [name.partition("/")[0] for name in record.scores if "/" in name]
        if metrics:
            return [name.partition("/")[2] for name in record.scores if name.startswith(metrics[0] + "/")]
    return []


# ------------------------------------------------------------------------------------------ several


def open_runs(paths: Sequence[Path], *, force: bool = False) -> list[SearchRun | ComparisonRun]:
    """Read the runs of one report.

    Args:
        paths: the run folders.
        force: accept runs of different budgets too.

    Raises:
        InputError: one that cannot be read or is given twice; different budgets.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError("RUN", "each run once", ", ".join(map(str, paths)))
    runs = [open_run(path) for path in paths]
    if (differing := differing_budgets(runs)) and not force:
        hint = "Their scores cannot be compared; --force puts them into one report all the same."
        raise InputError("RUN", "runs of one budget", "; ".join(differing), hint)
    return runs


def differing_budgets(runs: Sequence[Run]) -> list[str]:
    """Return a line for each run whose budget differs from that of the first run of its kind."""
    texts = []
    for kind, skipped in ((SearchRun, OF_A_SEARCH), (ComparisonRun, ("space",))):
        alike = [run for run in runs if isinstance(run, kind)]
        for run in alike[1:]:
            one, other = ({k: v for k, v in _budget(each).items() if k not in skipped} for each in (alike[0], run))
            found = [
                f"{key} ({_short(first)}, {_short(then)})"
                for key, then, first in differences(other, one)
                if not (key.startswith(FORMULA) and ... in (then, first))  # of a metric that only one was searched for
            ]
            more = [f"{len(found) - 4} more"] if len(found) > 4 else []
            if found:
                told = ", ".join([*found[:4], *more])
                texts.append(f"{alike[0].path.name} and {run.path.name} differ in {told}")
    return texts


def _budget(run: Run) -> dict[str, Any]:
    """Return the fingerprint and the length of a confirmation, which a resumed search may change."""
    confirm = run.config.get("search", {}).get("confirm", {})
    return {**run.fixed, "search.confirm.iters": confirm.get("iters")}


def _short(value: object) -> str:
    text = "None" if value is ... else str(value)
    return text if len(text) <= 24 else text[:12] + "…"
