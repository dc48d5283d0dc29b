"""`autoseg compare`: joins the rooms for a comparison. Read `run_one` for the way from a configuration to a table."""

from __future__ import annotations

import dataclasses
import shlex
import signal
from pathlib import Path

from autoseg.cli import compose, grid
from autoseg.cli.arguments import Arguments
from autoseg.cli.check import absolute_paths, check
from autoseg.cli.compare_parts import Parts, about, build, fingerprint, matrix, task
from autoseg.cli.faults import INTERRUPTED
from autoseg.cli.resume import like, resumed
from autoseg.config import CompareConfig
from autoseg.errors import InputError
from autoseg.evidence import budgets, made_with
from autoseg.evidence.compare import run_comparison
from autoseg.evidence.contenders import keep_cards, warnings_about
from autoseg.evidence.documents import write
from autoseg.evidence.matrix import Matrix
from autoseg.evidence.tables import legend, sentences, terminal
from autoseg.search.run_folder import RunFolder, read_config

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


def run_one(config: CompareConfig) -> int:
    """One comparison, from its configuration to its tables; returns the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stopped cluster job ends as Ctrl-C does
    parts = build(config)
    for text in warnings_about(parts.among, config.metrics, parts.data.num_classes, parts.seeds):
        print(f"warning: {text}")
    found = grid.resumable("compare", parts.path, lambda: _compare(config, parts))
    if found is None:
        return INTERRUPTED
    heading = f"{config.data.name}, {parts.split} split, {len(parts.seeds)} seeds"
    for line in ["", heading, *terminal(found), "", *legend(found, "*"), *sentences(found)]:
        print(line)
    print(f"Tables: {parts.path / 'table.md'}, table.csv, table.tex   figure: {parts.path / 'figures' / 'forest.png'}")
    print(f"Next: autoseg report {shlex.quote(str(parts.path))}")
    return 0


def _compare(config: CompareConfig, parts: Parts) -> Matrix:
    """Open the folder, start workers, train, write tables and figure."""
    threads, shown = config.proxy.threads, config.metrics[0]
    devices = grid.devices(config, threads)
    with _folder(config, parts) as folder:
        made_with.note(folder)
        work = task(config, parts, keep_cards(parts.among, folder.path))
        with grid.workers(config, devices, threads, work, shown, folder) as (executor, observers):
            print(f"Comparing {len(parts.among)} losses with {len(parts.seeds)} seeds in {folder.path}")
            records = run_comparison(folder, parts.among, parts.seeds, shown, executor, observers)
        found, told = matrix(config, parts, records), about(config, parts, records)
        write(found, told, folder.path)
    if told.mixed:
        print(f"warning: {told.mixed}")
    return found


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
