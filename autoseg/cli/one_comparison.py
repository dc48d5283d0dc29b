"""One comparison: joins the rooms. Read `compare` for the way from a configuration to a table."""

from __future__ import annotations

import dataclasses
import shlex

from autoseg.cli import compose, grid
from autoseg.cli.compare_parts import Parts, about, build, fingerprint, matrix, task
from autoseg.cli.faults import INTERRUPTED
from autoseg.cli.resume import is_comparison
from autoseg.cli.typed import and_imports
from autoseg.config import CompareConfig
from autoseg.data import remarks_on
from autoseg.evidence import budgets, made_with
from autoseg.evidence.compare import run_comparison
from autoseg.evidence.contenders import keep_cards, warnings_about
from autoseg.evidence.documents import write
from autoseg.evidence.matrix import Matrix
from autoseg.evidence.tables import legend, sentences, terminal
from autoseg.execution import Standby
from autoseg.imports import load
from autoseg.search.run_folder import RunFolder


def compare(config: CompareConfig, workers: Standby) -> int:
    """From a configuration and workers without a task to its tables; returns the exit status."""
    load(config.imports)
    parts = build(config)
    odd = remarks_on(parts.data, config.data.ignore_index, config.proxy.crop)
    for text in [*odd, *warnings_about(parts.among, config.metrics, parts.data.num_classes, parts.seeds)]:
        print(f"warning: {text}")
    found = grid.resumable("compare", parts.path, lambda: _compare(config, parts, workers), config.imports)
    if found is None:
        return INTERRUPTED
    heading = f"{config.data.name}, {parts.split} split, {len(parts.seeds)} seeds"
    for line in ["", heading, *terminal(found), "", *legend(found, "*"), *sentences(found)]:
        print(line)
    print(f"Tables: {parts.path / 'table.md'}, table.csv, table.tex   figure: {parts.path / 'figures' / 'forest.png'}")
    print(f"Next: autoseg report {shlex.quote(str(parts.path))}{and_imports(config.imports)}")
    return 0


def _compare(config: CompareConfig, parts: Parts, workers: Standby) -> Matrix:
    """Open the folder, give the workers their task, train, write tables and figure."""
    shown = config.metrics[0]
    with _folder(config, parts) as folder:
        made_with.note(folder)
        work = task(config, parts, keep_cards(parts.among, folder.path))
        with grid.executor(config, workers, work, shown, folder) as (executor, observers):
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
    is_comparison(parts.path)
    folder = RunFolder.open(parts.path, budgets.admit(parts.path, fixed, config.force))
    try:
        budgets.note(folder, fixed)
        folder.write_config(compose.plain(kept))
    except BaseException:
        folder.close()
        raise
    return folder
