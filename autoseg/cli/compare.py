"""`autoseg compare`: joins the rooms for a comparison. Read `run_one` for the way from a configuration to a table."""

from __future__ import annotations

import dataclasses
import shlex
import signal
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autoseg.cli import compose
from autoseg.cli.arguments import Arguments
from autoseg.cli.check import absolute_paths, check
from autoseg.cli.faults import INTERRUPTED
from autoseg.cli.resume import like, resumed
from autoseg.config import CompareConfig
from autoseg.data import SegData, open_data
from autoseg.errors import InputError, unknown_name
from autoseg.evidence import budgets
from autoseg.evidence.bootstrap import Bootstrap
from autoseg.evidence.compare import COUNTS, ComparisonTask, counts_file, parse_seeds, run_comparison
from autoseg.evidence.contenders import Contender, Recipe, contenders, find, keep_cards, warnings_about
from autoseg.evidence.documents import About, write
from autoseg.evidence.matrix import Matrix
from autoseg.evidence.tables import legend, sentences, terminal
from autoseg.execution import slots
from autoseg.execution.build import build_executor
from autoseg.metrics import MetricOptions, names, parse
from autoseg.metrics.images import load_parts
from autoseg.search.keepsakes import Keepsakes
from autoseg.search.observer import Observers
from autoseg.search.proxy import ProxyTask
from autoseg.search.records import TrialRecord
from autoseg.search.run_folder import RunFolder, new_run_path, read_config
from autoseg.search.shared import SHARED
from autoseg.surrogates import build_space
from autoseg.tracking.lines import Lines, Quieter
from autoseg.training import check_loss

HELP = """
Trains every loss with every seed under one budget and says which differences are sure.

usage: autoseg compare losses=[LOSS,LOSS,...] [KEY=VALUE ...] [--cfg]
       autoseg compare resume=RUN [losses=[...]]     goes on with a comparison, or adds to it

  losses=[...]         names (autoseg losses), sums "0.25*ce+0.75*jml", found losses (loss.json or a
                       run folder), published ones (asl2021/miou), identity curves (identity)
  metrics=[miou,biou]  what is shown (autoseg metrics); all are scored
  seeds=5              how many, or a list; below 5 no difference is marked
  interval=t           over seeds; bootstrap: over seeds and images     split=auto: val, test
  reference=ce         what all others are compared with, beside the best hand-made loss
  like=RUN             the budget of that run: its data, model, proxy; or each of them:
  data=NAME  model=NAME  proxy=NAME  proxy.iters=250  workers=auto  device=auto
  run_dir=DIR          a new folder, or a comparison of the same budget (force=true: any) to add to

Three losses on built-in data; then your found loss on your own images:
  autoseg compare losses=[ce,lovasz,jml] metrics=[miou,biou] proxy.size=[96,128] proxy.crop=64
  autoseg compare losses=[ce,lovasz,runs/NAME] like=runs/NAME
"""

FREE = ("losses", "metrics", "seeds", "reference", "interval", "workers", "device", "executor", "timeout_s", "retries",
        "force")  # fmt: skip


def run(command: str, argv: list[str]) -> int:
    """Compose and compare."""
    parser = Arguments(command, HELP)
    parser.add_argument("--cfg", action="store_true")
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args(argv)
    _refuse(given.overrides)
    config = compose.compose("compare", CompareConfig, given.overrides)
    typed = compose.typed_keys(given.overrides)
    if config.resume is not None:
        if config.like is not None:
            raise InputError("like", "none beside resume", config.like, "The run keeps its own budget.")
        _is_comparison(Path(config.resume).expanduser())
        config = resumed(config, typed, (*FREE, "model", "proxy") if config.force else FREE)
    elif config.like is not None:
        config = like(config, typed)
    check(config)
    absolute_paths(config)
    if given.cfg:
        print(compose.as_yaml(config), end="")
        return 0
    return run_one(config)


@dataclass(frozen=True)
class Parts:
    """What a configuration stands for, before anything has been trained."""

    data: SegData
    split: str
    seeds: list[int]
    recipe: Recipe
    among: list[Contender]
    reference: str
    path: Path


def run_one(config: CompareConfig) -> int:
    """One comparison, from its configuration to its tables; returns the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stopped cluster job ends as Ctrl-C does
    parts = build(config)
    for text in warnings_about(parts.among, config.metrics, parts.data.num_classes, parts.seeds):
        print(f"warning: {text}")
    try:
        matrix = _compare(config, parts)
    except KeyboardInterrupt:
        again = compose.typed("resume", str(parts.path))
        print(f"\nInterrupted; nothing finished is lost. Go on with: autoseg compare {again}")
        return INTERRUPTED
    heading = f"{config.data.name}, {parts.split} split, {len(parts.seeds)} seeds"
    for line in ["", heading, *terminal(matrix), "", *legend(matrix, "*"), *sentences(matrix)]:
        print(line)
    print(f"Tables: {parts.path / 'table.md'}, table.csv, table.tex   figure: {parts.path / 'figures' / 'forest.png'}")
    print(f"Next: autoseg report {shlex.quote(str(parts.path))}")
    return 0


def build(config: CompareConfig) -> Parts:
    """Everything a comparison needs; nothing has been written yet, except the image cache.

    Raises:
        InputError: an unknown loss, metric, split or reference; seeds or data that cannot be used.
    """
    seeds = parse_seeds(config.seeds)
    for metric in config.metrics:
        parse(metric)
    if not config.metrics or len(set(config.metrics)) < len(config.metrics):
        raise InputError("metrics", "one or more, each once", config.metrics)
    path = Path(config.run_dir) if config.run_dir else new_run_path(Path("runs"), "compare", config.data.name)
    home = path if (path / "config.yaml").is_file() else None
    height, width = config.proxy.size
    data = open_data(config.data, (height, width))
    recipe = Recipe(data.num_classes, data.ignore_index, config.space.name, _options(config))
    among = contenders(config.losses, config.metrics, recipe, home)
    for loss in among:
        if not loss.cards:  # a surrogate takes labels of every kind
            check_loss(recipe.build(loss.kept), config.proxy.labels, "losses")
    reference = find("reference", config.reference, among)
    return Parts(data, _split(config.split, data), seeds, recipe, among, reference.name, path)


def _compare(config: CompareConfig, parts: Parts) -> Matrix:
    """Open the folder, start workers, train, write tables and figure."""
    devices = slots(config.workers, config.device, config.executor.per_device, config.proxy.threads)
    with ExitStack() as stack:
        folder = stack.enter_context(_folder(config, parts))
        observers = Observers([Quieter(folder.log), Lines(config.metrics[0])])
        stack.callback(observers.close)
        executor = stack.enter_context(
            build_executor(
                config.executor.name,
                _task(config, parts, keep_cards(parts.among, folder.path), folder.path),
                devices,
                threads=config.proxy.threads,
                timeout_s=config.timeout_s,
                retries=config.retries,
                log=folder.log,
            )
        )
        print(f"Comparing {len(parts.among)} losses with {len(parts.seeds)} seeds in {folder.path}")
        records = run_comparison(folder, parts.among, parts.seeds, config.metrics[0], executor, observers)
        matrix = _matrix(config, parts, records)
        about = _about(config, parts, records)
        write(matrix, about, folder.path)
    if about.mixed:
        print(f"warning: {about.mixed}")
    return matrix


def _matrix(config: CompareConfig, parts: Parts, records: list[TrialRecord]) -> Matrix:
    bootstrap = None
    if config.interval == "bootstrap":
        terms = {name for metric in config.metrics for _, name in parse(metric)}
        options = MetricOptions(parts.data.num_classes, parts.data.ignore_index, **_options(config))  # type: ignore[arg-type]
        bootstrap = Bootstrap(
            lambda loss, seed: load_parts(counts_file(parts.path / COUNTS, loss, seed), terms), options
        )
    return Matrix(
        parts.among, config.metrics, parts.seeds, parts.reference, records, parts.data.classes, bootstrap
    )  # fmt: skip


def _task(config: CompareConfig, parts: Parts, texts: dict[str, str], folder: Path) -> ComparisonTask:
    proxy = ProxyTask(
        config.data,
        config.model,
        config.proxy,
        tuple(dict.fromkeys([*names(), *(term for metric in config.metrics for _, term in parse(metric))])),
        config.tolerance,
        config.drop_background,
        final_split=parts.split,
        per_class=True,
        shared=str((folder / SHARED).absolute()),
    )
    keepsakes = Keepsakes(str(parts.path), parts.seeds[0])
    return ComparisonTask(texts, parts.recipe, proxy, keepsakes, str((folder / COUNTS).absolute()))


def _folder(config: CompareConfig, parts: Parts) -> RunFolder:
    """The locked folder: a new one, or a comparison of the same budget."""
    losses = [contender.kept for contender in parts.among]
    kept = dataclasses.replace(config, losses=losses, reference=parts.reference, resume=None, run_dir=str(parts.path))
    fixed = fingerprint(config, parts)
    if not (parts.path / "config.yaml").is_file():
        return RunFolder.create(parts.path, compose.plain(kept), fixed)
    _is_comparison(parts.path)
    folder = RunFolder.open(parts.path, budgets.admit(parts.path, fixed, config.force))
    try:
        budgets.note(folder, fixed)
        folder.write_config(compose.plain(kept))
    except BaseException:
        folder.close()
        raise
    return folder


def fingerprint(config: CompareConfig, parts: Parts) -> dict[str, Any]:
    """The budget: all that two trainings must share to stand in one table, as flat plain data."""
    return {
        "data": parts.data.fingerprint,
        "split": parts.split,
        **{f"model.{key}": value for key, value in asdict(config.model).items()},
        **{f"proxy.{key}": value for key, value in asdict(config.proxy).items()},
        "space": build_space(config.space.name, metric="miou").to_dict(),
        **_options(config),
    }


def _about(config: CompareConfig, parts: Parts, records: list[TrialRecord]) -> About:
    proxy, data = config.proxy, parts.data
    budget = (
        f"{config.model.name}, {len(data.images('train'))} training images, {proxy.iters} iterations of "
        f"{proxy.batch_size} crops of {proxy.crop} px, images of {proxy.size[0]}x{proxy.size[1]} px"
    )
    sources = [
        (name, f"cards/{name}.json, searched for {card.metric}, found in run {card.provenance.get('run', 'unknown')}")
        for contender in parts.among
        for name, card in contender.cards.items()
    ]
    mixed = budgets.described(parts.path, records)
    return About(config.data.name, parts.split, len(data.images(parts.split)), budget, tuple(sources), mixed)


def _options(config: CompareConfig) -> dict[str, int]:
    return {"tolerance": config.tolerance, "drop_background": config.drop_background}


def _split(wanted: str, data: SegData) -> str:
    there = [split for split in data.splits if split != "train"]
    if wanted == "auto":
        return "test" if "test" in there else "val"
    if wanted not in there:
        raise unknown_name("split", wanted, ["auto", *there])
    return wanted


def _refuse(overrides: list[str]) -> None:
    """What another command takes, or a list without its brackets."""
    for text in overrides:
        key, _, value = text.partition("=")
        if key in ("losses", "metrics", "seeds") and "," in value and value.lstrip()[:1] not in ("[", '"', "'"):
            raise InputError(key, "a list in brackets", value, f"Type {key}=[{value}].")
        if key in ("experiment", "controller", "tracker"):
            raise InputError("argument", "keys of a comparison", text, "It takes data=, model=, proxy= and executor=.")


def _is_comparison(path: Path) -> None:
    if "losses" not in read_config(path):
        raise InputError("run folder", "one of a comparison", f"{path}, which is of a search")
