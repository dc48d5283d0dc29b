"""`autoseg search`: joins all rooms. Read `run_one` for the whole way from a configuration to a found loss."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from autoseg.cli import compose, finish, grid
from autoseg.cli.arguments import Arguments
from autoseg.cli.check import absolute_paths, check
from autoseg.cli.faults import INTERRUPTED
from autoseg.cli.resume import resumed
from autoseg.config import SearchConfig, SearchSettings
from autoseg.controllers import build_controller
from autoseg.data import SegData, open_data
from autoseg.errors import InputError, unknown_name
from autoseg.evidence.found import sentence
from autoseg.execution import Executor, slots
from autoseg.execution.build import build_executor
from autoseg.metrics import build_metric, higher_is_better, names
from autoseg.search.api import start
from autoseg.search.candidate import CandidateTask
from autoseg.search.confirm import fresh_seeds
from autoseg.search.keepsakes import Keepsakes
from autoseg.search.loop import Controller, Problem, run_search
from autoseg.search.proxy import ProxyTask
from autoseg.search.publish import CardPublisher
from autoseg.search.records import SearchResult
from autoseg.search.reward import Floor
from autoseg.search.run_folder import RunFolder, new_run_path
from autoseg.search.rungs import NONE
from autoseg.search.shared import SHARED, described
from autoseg.search.timing import TimedTask, seconds_per_training
from autoseg.search.versions import versions
from autoseg.surrogates import SearchSpace, build_space
from autoseg.tracking import build_observers
from autoseg.training import check_loss

HELP = """
Searches a loss for a metric: proposes losses, judges each by a short training, learns, confirms.

usage: autoseg search [KEY=VALUE ...] [-m] [--cfg]
       autoseg search resume=RUN        goes on with an interrupted run, exactly where it stopped

  metric=NAME          what to maximise (autoseg metrics), or a sum: "metric=miou+0.5*bf1"
  data=NAME            builtin, camvid, ...; data.root=DIR for your own folders
  model=NAME  space=NAME  controller=NAME  proxy=NAME  experiment=NAME
  search.rounds=8  search.candidates=8  proxy.iters=250  workers=auto  device=auto  seed=0
  search.floor=RULE    e.g. 'search.floor="miou>=0.9*ce"': keep another metric up (mind the quotes)
  -m                   sweep: one search for each of several values, metric=miou,biou
  --cfg                print every key with its value, and stop

A whole small search, under a minute; then a real one on your own images:
  autoseg search experiment=smoke
  autoseg search metric=biou data=folder data.root=DIR data.classes=[road,car] model=tiny
"""


def run(command: str, argv: list[str]) -> int:
    """Compose, then search once per combination of values."""
    parser = Arguments(command, HELP)
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--cfg", action="store_true")
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args(argv)
    configs = compose.compose_sweep("search", SearchConfig, given.overrides, sweep=given.multirun)
    if any(config.resume is not None for config in configs):
        typed = compose.typed_keys(given.overrides)
        configs = [resumed(config, typed) for config in configs]
    for config in configs:
        check(config)
        absolute_paths(config)
    if len(configs) > 1 and any(config.run_dir is not None for config in configs):
        raise InputError("run_dir", "none with -m", configs[0].run_dir, "Each search makes its own in runs/.")
    if given.cfg:
        print("---\n".join(compose.as_yaml(config) for config in configs), end="")
        return 0
    for number, config in enumerate(configs, start=1):
        if len(configs) > 1:
            print(f"[{number}/{len(configs)}] metric={config.metric} data={config.data.name} seed={config.seed}")
        status = run_one(config)
        if status:
            return status
    return 0


@dataclass(frozen=True)
class Parts:
    """What a configuration stands for, before anything has been trained."""

    data: SegData
    space: SearchSpace
    controller: Controller
    task: TimedTask


def run_one(config: SearchConfig) -> int:
    """One search, from its configuration to the found loss; returns the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stopped cluster job ends as Ctrl-C does
    parts = build(config)
    path = Path(config.run_dir) if config.run_dir else new_run_path(Path("runs"), config.metric, config.data.name)
    result = grid.resumable("search", path, lambda: _search(config, parts, path))
    if result is None:
        return INTERRUPTED
    for line in [*finish.table(result), sentence(result), *finish.next_step(path)]:
        print(line)
    return 0


def build(config: SearchConfig) -> Parts:
    """Everything a search needs, from its configuration; nothing has been written yet, except the image cache.

    Raises:
        InputError: an unknown metric, space, controller or device; data that cannot be used.
    """
    build_metric(config.metric, num_classes=2)
    space = build_space(config.space.name, metric=config.metric)
    options = config.controller.options
    controller = build_controller(config.controller.name, space.dim, start(space), seed=config.seed, **options)
    height, width = config.proxy.size
    data = open_data(config.data, (height, width))
    proxy = ProxyTask(
        config.data,
        config.model,
        config.proxy,
        tuple(dict.fromkeys([*names(), config.metric])),
        config.tolerance,
        config.drop_background,
    )
    task = CandidateTask(config.metric, space.to_dict(), data.num_classes, proxy, data.ignore_index, _options(config))
    _check_rivals(config, task, proxy.metrics)
    return Parts(data, space, controller, TimedTask(task, proxy))


def _check_rivals(config: SearchConfig, task: CandidateTask, scores: Sequence[str]) -> None:
    """Refuse now what the search would only meet at its end: the losses it is compared with, and its floor."""
    rivals = list(config.search.confirm.rivals)
    if config.search.floor is not None:
        floor = Floor.parse(config.search.floor)
        if floor.metric not in scores:
            raise unknown_name("search.floor", floor.metric, scores)
        if not higher_is_better(floor.metric):
            hint = "A floor is kept from below."
            raise InputError("search.floor", "a metric where higher is better", floor.metric, hint)
        rivals += [floor.rival] if floor.rival is not None else []
    for name in rivals:
        if name != "identity":
            check_loss(task.build({"loss": name}), config.proxy.labels, "search.confirm.rivals")


def _search(config: SearchConfig, parts: Parts, path: Path) -> SearchResult:
    """Open the run folder, start workers and trackers, search, draw."""
    space, data = parts.space, parts.data
    devices = slots(config.workers, config.device, config.executor.per_device, config.proxy.threads)
    problem = Problem(config.metric, space.names, space.identity.tolist(), config.seed)
    publish = CardPublisher(
        path / "loss.json", space, data.num_classes, data.ignore_index, _options(config), provenance(config, data)
    )
    with ExitStack() as stack:
        folder = stack.enter_context(_folder(config, parts, path))
        executor = stack.enter_context(_executor(config, parts.task, devices, folder))
        observers = build_observers(config.tracker, folder.path, folder.log, compose.plain(config))
        stack.callback(observers.close)
        try:
            observers.expect(seconds_per_training(executor, problem.identity, config.seed))
        except InputError:  # what only a worker could see, e.g. weights that do not fit: there is no run yet
            if config.resume is None:
                shutil.rmtree(folder.path)
            raise
        if said := described(folder.path / SHARED):
            print(said)
        result = run_search(folder, problem, parts.controller, executor, config.search, publish, observers)
        finish.draw(result, space.names)
    return result


def _folder(config: SearchConfig, parts: Parts, path: Path) -> RunFolder:
    """The locked run folder, new or resumed."""
    plain, fixed = compose.plain(config), fingerprint(config, parts)
    if config.resume is None:
        return RunFolder.create(path, plain, fixed)
    folder = RunFolder.open(path, fixed)
    folder.write_config(plain)
    return folder


def _executor(config: SearchConfig, task: TimedTask, devices: list[str], folder: RunFolder) -> Executor:
    keepsakes = Keepsakes(str(folder.path), fresh_seeds(config.seed, 1)[0])  # of the confirmation's trainings
    proxy = replace(task.proxy, shared=str(folder.path / SHARED))
    return build_executor(
        config.executor.name,
        TimedTask(replace(task.task, train=proxy, keepsakes=keepsakes), proxy),
        devices,
        threads=config.proxy.threads,
        timeout_s=config.search.timeout_s,
        retries=config.search.retries,
        log=folder.log,
    )


def fingerprint(config: SearchConfig, parts: Parts) -> dict[str, Any]:
    """All that must be the same when a run is resumed, as flat plain data."""
    return {
        "metric": config.metric,
        "seed": config.seed,
        "candidates": config.search.candidates,
        "floor": config.search.floor,
        "confirm": asdict(config.search.confirm),
        **_stopping(config.search),
        "data": parts.data.fingerprint,
        "holdout": config.data.holdout,
        "model": asdict(config.model),
        "proxy": asdict(config.proxy),
        "space": parts.space.to_dict(),
        "controller": {"name": config.controller.name, **config.controller.options},
        **_options(config),
    }


def _stopping(settings: SearchSettings) -> dict[str, Any]:
    if settings.pruner == NONE:
        return {}
    return {"pruner": settings.pruner, "rungs": settings.rungs, "pruner_options": settings.pruner_options}


def provenance(config: SearchConfig, data: SegData) -> dict[str, Any]:
    """Where a found loss comes from, for its card."""
    return {
        "data": {"name": config.data.name, "fingerprint": data.fingerprint, "classes": data.classes},
        "model": config.model.name,
        "proxy": asdict(config.proxy),
        "controller": config.controller.name,
        "seed": config.seed,
        "versions": versions(),
    }


def _options(config: SearchConfig) -> dict[str, Any]:
    return {"tolerance": config.tolerance, "drop_background": config.drop_background}
