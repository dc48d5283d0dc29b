"""Runs one comparison. `compare` shows the whole way from a configuration to a table."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.cli.configuration import stored
from autoseg.cli.configuration.named_code import resume_arguments
from autoseg.cli.configuration.resume import written
from autoseg.cli.configuration.unread import without_effect
from autoseg.cli.faults import INTERRUPTED
from autoseg.cli.jobs import running
from autoseg.config import CompareConfig, comparable_settings
from autoseg.data import SegData, open_data, remarks_on
from autoseg.errors import InputError, unknown_name
from autoseg.evidence.comparison import made_with
from autoseg.evidence.comparison.compare import (
    COUNTS,
    ComparisonTask,
    bootstrap_of,
    not_shown,
    parse_seeds,
    run_comparison,
)
from autoseg.evidence.comparison.contenders import (
    Contender,
    Recipe,
    built_from,
    contenders,
    keep_cards,
    key_of,
    reference_of,
    sources,
    warnings_about,
    words_of,
)
from autoseg.evidence.comparison.documents import About, write
from autoseg.evidence.comparison.matrix import Matrix
from autoseg.evidence.comparison.tables import aligned, legend, rows_of, sentences
from autoseg.execution import Standby
from autoseg.imports import import_modules
from autoseg.losses import check_own_losses
from autoseg.metrics import MetricOptions, names, parse
from autoseg.mmconfigs import OF_A_REPORT
from autoseg.proxy.predictions import KeepPredictions
from autoseg.proxy.shared import SHARED
from autoseg.proxy.task import ProxyTask, settled
from autoseg.store.records import TrialRecord, counted
from autoseg.store.run_files import RESULTS, read_fingerprint
from autoseg.store.run_folder import RunFolder, new_run_path
from autoseg.store.user_code import formulas, network_of
from autoseg.surrogates import build_space, check_own_metrics
from autoseg.training import check_loss


@dataclass(frozen=True)
class Parts:
    """Everything that a configuration names, before anything has been trained."""

    data: SegData
    split: str
    seeds: list[int]
    recipe: Recipe
    among: list[Contender]
    reference: str
    path: Path


def compare(config: CompareConfig, workers: Standby) -> int:
    """Run a comparison on workers without a task and print its tables; return the exit status."""
    if config.resume is None:  # a teacher's work dir may get further checkpoints
        config = dataclasses.replace(config, proxy=settled(config.proxy))
    parts = build(config)
    odd = without_effect(config) + remarks_on(parts.data, config.data, config.proxy.crop, parts.split)
    for text in [*odd, *warnings_about(parts.among, config.metrics, parts.data.num_classes, parts.seeds)]:
        print(f"warning: {text}")
    found = running.resumable("compare", parts.path, lambda: _compare(config, parts, workers), resume_arguments(config))
    if found is None:
        return INTERRUPTED
    heading = f"{config.data.name}, {parts.split} split, {counted(len(parts.seeds), 'seed')}"
    rows = aligned(*rows_of(found, "{}*"))
    for line in ["", heading, *rows, "", *key_of(parts.among), *legend(found, "*"), *sentences(found)]:
        print(line)
    if rest := not_shown(parts.path, parts.among):
        print(f"Kept from before and not shown, since losses= names all that are: {', '.join(rest)}.")
    print(f"Tables: {parts.path / 'table.md'}, table.csv, table.tex   figure: {parts.path / 'figures' / 'forest.png'}")
    print(f"Next: autoseg report {shlex.quote(str(parts.path))}{resume_arguments(config, OF_A_REPORT)}")
    return 0


def _compare(config: CompareConfig, parts: Parts, workers: Standby) -> Matrix:
    """Open the folder, give the workers their task, train, write tables and figure."""
    shown = config.metrics[0]
    with _folder(config, parts) as folder:
        work = task(config, parts, {one.name: built_from(one, folder.path) for one in parts.among})
        with running.executor(config, workers, work, shown, folder) as (executor, observers):
            print(f"Comparing {len(parts.among)} losses with {counted(len(parts.seeds), 'seed')} in {folder.path}")
            records = run_comparison(folder, parts.among, parts.seeds, shown, executor, observers)
        bootstrap = bootstrap_of(folder.path, config.interval, config.metrics, parts.recipe)
        classes = parts.data.classes
        found = Matrix(parts.among, config.metrics, parts.seeds, parts.reference, records, classes, bootstrap)
        told = about(config, parts, records)
        write(found, told, folder.path)
    if told.mixed:
        print(f"warning: {told.mixed}")
    return found


@contextmanager
def _folder(config: CompareConfig, parts: Parts) -> Iterator[RunFolder]:
    """Open the locked folder, a new one or a comparison of the same budget.

    The software that goes on with it is recorded. Whenever it is killed, the run can be gone on with: its configuration
    names no card that is not there yet, and it has no table that could be taken for its result.
    """
    plain, fixed = stored.plain(_kept(config, parts, [one.kept for one in parts.among])), fingerprint(config, parts)
    if (parts.path / "config.yaml").is_file():
        written(parts.path, CompareConfig, "run_dir")
        folder = RunFolder.open(parts.path, made_with.admit(parts.path, fixed, config.force))
    else:
        first = _kept(config, parts, [one.text for one in parts.among])  # cards as the user's own files
        folder = RunFolder.create(parts.path, stored.plain(first), fixed)
    with folder:
        words = {one.name: words_of([one]) for one in parts.among}
        made_with.note(folder, fixed, formulas(names(), words_of(parts.among)), words)
        keep_cards(parts.among, folder.path)
        (parts.path / RESULTS["compare"]).unlink(missing_ok=True)
        folder.write_config(plain)
        yield folder


def _kept(config: CompareConfig, parts: Parts, losses: list[str]) -> CompareConfig:
    """Return the configuration for the run's file."""
    return dataclasses.replace(config, losses=losses, reference=parts.reference, resume=None, run_dir=str(parts.path))


def resolve_names(config: CompareConfig) -> tuple[list[int], list[Contender], str, Path]:
    """Return seeds, losses, the name of the reference and the folder that a configuration names, without reading its
    data.

    Raises:
        InputError: an unknown loss, metric, space or reference, or invalid seeds.
    """
    import_modules(config.imports)
    for metric in config.metrics:
        parse(metric)
    if not config.metrics or len(set(config.metrics)) < len(config.metrics):
        raise InputError("metrics", "one or more, each once", config.metrics)
    build_space(config.space.name, metric="miou")
    path = Path(config.run_dir) if config.run_dir else new_run_path(Path("runs"), "compare", config.data.name)
    home = path if (path / "config.yaml").is_file() else None
    among = contenders(config.losses, config.metrics, home)
    return parse_seeds(config.seeds), among, reference_of(config.reference, among).name, path


def build(config: CompareConfig) -> Parts:
    """Build everything a comparison needs; nothing is written, except the image cache.

    Raises:
        InputError: as in `resolve_names`; data or a split that cannot be used, a loss that does not fit them.
    """
    seeds, among, reference, path = resolve_names(config)
    data = open_data(config.data, config.proxy.size)
    check_own_metrics(names(), [], MetricOptions(data.num_classes, data.ignore_index, **config.boundary_options))
    recipe = Recipe(data.num_classes, data.ignore_index, config.space.name, config.boundary_options)
    for loss in among:
        if not loss.cards:  # a surrogate takes labels of every kind
            built = recipe.build(loss.kept)
            check_loss(built, config.proxy.labels, "losses")
            check_own_losses(built)
    return Parts(data, _split(config.split, data, path), seeds, recipe, among, reference, path)


def task(config: CompareConfig, parts: Parts, texts: Mapping[str, str]) -> ComparisonTask:
    """Return the workers' task; `texts` maps a contender's name to the text it is built from."""
    terms = [term for metric in config.metrics for _, term in parse(metric)]
    shared = str((parts.path / SHARED).absolute())
    scored, data = [*names(), *terms], parts.data.fingerprint
    proxy = ProxyTask.of(config, scored, data, final_split=parts.split, per_class=True, shared=shared)
    keep = KeepPredictions(str(parts.path), parts.seeds[0])
    return ComparisonTask(texts, parts.recipe, proxy, keep, str((parts.path / COUNTS).absolute()))


def fingerprint(config: CompareConfig, parts: Parts) -> dict[str, Any]:
    """Return the budget: all settings that two trainings must share to be in one table, as flat plain data."""
    budget = {
        "data": parts.data.fingerprint,
        "split": parts.split,
        **{f"model.{key}": value for key, value in network_of(config.model).items()},
        **{f"proxy.{key}": value for key, value in comparable_settings(config.proxy).items()},
        "space": build_space(config.space.name, metric="miou").to_dict(),
        **config.boundary_options,
    }
    plain: dict[str, Any] = json.loads(json.dumps(budget))  # tuples are lists, as a file gives them back
    return plain


def about(config: CompareConfig, parts: Parts, records: list[TrialRecord]) -> About:
    """Return the text above the tables."""
    proxy, data = config.proxy, parts.data
    budget = (
        f"{config.model.name}, {len(data.images('train'))} training images, {proxy.iters} iterations of "
        f"{proxy.batch_size} crops of {proxy.crop} px, images of {proxy.size[0]}x{proxy.size[1]} px"
    )
    images, mixed = len(data.images(parts.split)), made_with.budgets_of(parts.path, records)
    made = made_with.versions_of(parts.path)
    return About(config.data.name, parts.split, images, budget, sources(parts.among), mixed, made)


def _split(wanted: str, data: SegData, path: Path) -> str:
    """Return the split that is scored; a comparison at `path`, which may be older than this default, keeps its own."""
    there = [split for split in data.splits if split != "train"]
    if wanted == "auto":
        old = (path / "config.yaml").is_file()
        wanted = str(read_fingerprint(path).get("split", "val")) if old else "val"
    if wanted not in there:
        raise unknown_name("split", wanted, ["auto", *there])
    return wanted
