"""Runs one search. `search` shows the whole way from a configuration to a found loss."""

from __future__ import annotations

import shutil
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from autoseg.cli.configuration import stored
from autoseg.cli.configuration.named_code import resume_arguments
from autoseg.cli.configuration.unread import without_effect
from autoseg.cli.faults import INTERRUPTED
from autoseg.cli.jobs import finish, running
from autoseg.config import SearchConfig, comparable_settings
from autoseg.controllers import Controller, build_controller
from autoseg.data import SegData, open_data, remarks_on
from autoseg.errors import InputError
from autoseg.evidence.comparison import rivals
from autoseg.execution import Executor, Standby
from autoseg.imports import import_modules
from autoseg.losses import check_own_losses
from autoseg.metrics import MetricOptions, build_metric, names, parse
from autoseg.proxy.predictions import KeepPredictions
from autoseg.proxy.shared import SHARED, described
from autoseg.proxy.task import ProxyTask
from autoseg.search.confirm import fresh_seeds
from autoseg.search.loop import Problem, run_search
from autoseg.search.publish import CardPublisher
from autoseg.search.target import check_options, check_settings, hand_made_rivals, space_of, start_theta
from autoseg.search.timing import TimedTask, seconds_per_training
from autoseg.store.records import RETRYABLE, SearchResult, sentence, table
from autoseg.store.run_folder import RunFolder, new_run_path
from autoseg.store.user_code import formulas, network_of
from autoseg.store.versions import versions
from autoseg.surrogates import SearchSpace, check_own_metrics
from autoseg.tracking import build_observers
from autoseg.tracking.status import FINISHED, read_status
from autoseg.training import check_loss
from autoseg.training.layers.native import why_not

STEPS = {"n_warmup_steps", "interval_steps"}


@dataclass(frozen=True)
class Parts:
    """Everything that a configuration names, before anything has been trained."""

    data: SegData
    space: SearchSpace
    controller: Controller
    task: TimedTask


def search(config: SearchConfig, workers: Standby) -> int:
    """Run a search on workers without a task and print the found loss; return the exit status."""
    parts = build(config)
    config = _resolved(config, parts)
    for text in [*without_effect(config), *remarks_on(parts.data, config.data, config.proxy.crop)]:
        print(f"warning: {text}")
    path = Path(config.run_dir) if config.run_dir else new_run_path(Path("runs"), config.metric, config.data.name)
    result = running.resumable("search", path, lambda: _search(config, parts, path, workers), resume_arguments(config))
    if result is None:
        return INTERRUPTED
    for line in [*table(result), sentence(result), *finish.next_step(path, config, result.best)]:
        print(line)
    return 0


def build(config: SearchConfig) -> Parts:
    """Build everything a search needs from its configuration; nothing is written, except the image cache.

    Raises:
        InputError: as in `resolve_names`; data that cannot be used, a metric of the user's that fails on their classes.
    """
    space, controller = resolve_names(config)
    data = open_data(config.data, config.proxy.size)
    proxy = ProxyTask.of(config, [*names(), config.metric], data.fingerprint)
    options = config.boundary_options
    trained = [name for _, name in parse(space.metric)]
    check_own_metrics(names(), trained, MetricOptions(data.num_classes, data.ignore_index, **options))
    task = TimedTask(
        config.metric,
        space.to_dict(),
        data.num_classes,
        proxy,
        data.ignore_index,
        options,
        texts=_texts_of_rivals(config),
    )
    for name, key in hand_made_rivals(config.search).items():
        built = task.build({"loss": name})
        check_loss(built, config.proxy.labels, key)
        check_own_losses(built)
    return Parts(data, space, controller, task)


def resolve_names(config: SearchConfig) -> tuple[SearchSpace, Controller]:
    """Return the space and the controller that a configuration names, without reading its data.

    Raises:
        InputError: an unknown metric, space, controller, rival or floor.
    """
    import_modules(config.imports)
    build_metric(config.metric, num_classes=2)
    space = space_of(config.space.name, config.metric)
    begin = start_theta(space, config.search.start, config.controller.name)
    check_options(config.controller)
    controller = build_controller(
        config.controller.name, space.dim, begin, seed=config.seed, **config.controller.options
    )
    check_settings(config.search, controller, [*names(), config.metric], _texts_of_rivals(config))
    return space, controller


def _texts_of_rivals(config: SearchConfig) -> dict[str, str]:
    return {} if config.resume is None else rivals.texts_of(Path(config.resume), config.metric)


def _resolved(config: SearchConfig, parts: Parts) -> SearchConfig:
    """Replace the loss at which the search starts by its θ, and a teacher's work dir by its newest checkpoint.

    So the run can go on if that file is moved or changed, or another checkpoint follows.
    """
    if config.resume is None:
        config = replace(config, proxy=parts.task.train.proxy)
    if config.search.start is None:
        return config
    theta = list(parts.controller.settings.mean)
    return replace(config, search=replace(config.search, start=theta))


def _search(config: SearchConfig, parts: Parts, path: Path, workers: Standby) -> SearchResult:
    """Open the run folder, give the workers their task, start trackers, search, draw the figures."""
    space, data = parts.space, parts.data
    problem = Problem(config.metric, space.names, space.identity.tolist(), config.seed, config.proxy.iters)
    publish = CardPublisher(
        path / "loss.json",
        space,
        data.num_classes,
        data.ignore_index,
        config.boundary_options,
        provenance(config, data),
    )
    with ExitStack() as stack:
        folder = stack.enter_context(_folder(config, parts, path))
        task = replace(parts.task, texts=rivals.keep(config.search, config.metric, folder.path))
        executor = stack.enter_context(_executor(config, task, workers, folder))
        try:
            observers = build_observers(config.tracker, folder.path, folder.log, stored.plain(config))
            stack.callback(observers.close)
            each = None
            if not _over(folder.path):  # with a large network a minute, in which nothing else would be said
                print("Measuring how long a training takes, before the search begins.", flush=True)
                each = seconds_per_training(executor, problem.identity, config.seed)
        except InputError:  # no W&B account, or an error that only a worker can see, as weights that do not fit
            if config.resume is None:
                _discard(folder.path)
            raise
        if each is not None and "cpu" in workers.slots and (why := why_not()) is not None:
            print(f"warning: {why} Scores differ from those with one by rounding, also within a resumed run.")
        iters = config.search.confirm.iters or config.proxy.iters
        if said := described(folder.path / SHARED, iters / config.proxy.iters):
            print(said)
        result = run_search(folder, problem, parts.controller, executor, config.search, publish, observers, each)
        from autoseg.evidence.drawn import draw  # matplotlib: only now

        missing = draw(result, space.names)
        if missing is not None:
            print(f"warning: {missing}")
    return result


def _discard(path: Path) -> None:
    """Remove the content of a folder and the folder itself, unless it is a link or a mount point."""
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink()
    with suppress(OSError):
        path.rmdir()


def _over(path: Path) -> bool:
    """Return whether the search in a run folder has nothing left to train."""
    status = read_status(path)
    if status is None or status.state != FINISHED:
        return False
    return not any(record.state in RETRYABLE for record in status.records if record.round < 0)


def _folder(config: SearchConfig, parts: Parts, path: Path) -> RunFolder:
    """Open the locked run folder, new or resumed."""
    plain, fixed = stored.plain(replace(config, resume=None)), fingerprint(config, parts)
    if config.resume is None:
        return RunFolder.create(path, plain, fixed)
    folder = RunFolder.open(path, fixed, config.search.rounds)
    folder.write_config(plain)
    return folder


def _executor(config: SearchConfig, task: TimedTask, workers: Standby, folder: RunFolder) -> Executor:
    fresh = fresh_seeds(config.seed, 1, config.search.confirm.iters)
    keep = KeepPredictions(str(folder.path), fresh[0])  # those of the confirmation's first seed
    proxy = replace(task.train, shared=str(folder.path / SHARED))
    return running.build(config, workers, replace(task, train=proxy, keep=keep), folder)


def fingerprint(config: SearchConfig, parts: Parts) -> dict[str, Any]:
    """Return all that must be the same when a run is resumed, as flat plain data."""
    return {
        "metric": config.metric,
        **formulas({name for target in (config.metric, parts.space.metric) for _, name in parse(target)}),
        "seed": config.seed,
        "candidates": config.search.candidates,
        **({"start": config.search.start} if config.search.start is not None else {}),
        "floor": config.search.floor,
        "pruner": config.search.pruner,
        "rungs": config.search.rungs,
        "pruner_options": {
            **config.search.pruner_options,
            # what these options count: rungs until December 2026
            **({"steps": "iterations"} if STEPS & config.search.pruner_options.keys() else {}),
        },
        "data": parts.data.fingerprint,
        "holdout": config.data.holdout,
        **({"groups": config.data.groups} if config.data.groups is not None else {}),
        "model": network_of(config.model),
        "proxy": comparable_settings(config.proxy),
        "space": parts.space.to_dict(),
        "controller": {"name": config.controller.name, **config.controller.options},
        **config.boundary_options,
    }


def provenance(config: SearchConfig, data: SegData) -> dict[str, Any]:
    """Return where a found loss comes from, for its card."""
    return {
        "target": config.metric,
        "data": {"name": config.data.name, "fingerprint": data.fingerprint, "classes": data.classes},
        "model": config.model.name,
        "proxy": asdict(config.proxy),
        "controller": config.controller.name,
        "seed": config.seed,
        "versions": versions(),
        **({"imports": config.imports} if config.imports else {}),
    }
