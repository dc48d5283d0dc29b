"""One look at a proxy: joins the rooms that ask whether it may be trusted. Read `trust` first."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from autoseg.cli import compose, grid
from autoseg.cli.faults import INTERRUPTED
from autoseg.cli.trust_parts import Parts, build, fingerprint, task
from autoseg.config import TrustConfig
from autoseg.evidence.trust import Trust, plan, train_all
from autoseg.evidence.trust_documents import lines, write
from autoseg.execution import Standby
from autoseg.imports import load
from autoseg.search.run_folder import RunFolder


def trust(config: TrustConfig, workers: Standby) -> int:
    """From a configuration and workers without a task to a verdict; returns the exit status."""
    load(config.imports)
    parts = build(config)
    found = grid.resumable("trust", parts.path, lambda: _trained(config, parts, workers), config.imports)
    if found is None:
        return INTERRUPTED
    search, proxy = parts.search, parts.search.proxy
    about = (
        f"Search {Path(config.run).name}: {search.metric} on {search.data.name}, {search.model.name}, "
        f"proxy of {proxy.iters} iterations of {proxy.batch_size} crops of {proxy.crop} px."
    )
    write(found, about, parts.search.metric, parts.path)
    for line in ["", *lines(found)]:
        print(line)
    print(
        f"Tables: {parts.path / 'trust.md'}, trust.csv, agreement.csv   figure: {parts.path / 'figures' / 'trust.png'}"
    )
    return 0


def _trained(config: TrustConfig, parts: Parts, workers: Standby) -> Trust:
    """Open the folder, give the workers their task, train what is missing."""
    metric = parts.search.metric
    planned = plan(parts.entries, parts.variants)
    with (
        _folder(config, parts) as folder,
        grid.executor(config, workers, task(parts), metric, folder) as (executor, observers),
    ):
        print(
            f"{len(parts.entries)} losses of {Path(config.run).name}, {len(planned)} trainings "
            f"({', '.join(variant.name for variant in parts.variants)}) in {folder.path}"
        )
        records = train_all(folder, planned, metric, executor, observers)
    return Trust(parts.entries, parts.variants, records)


def _folder(config: TrustConfig, parts: Parts) -> RunFolder:
    """The locked folder, new or gone on with."""
    fixed = fingerprint(config, parts)
    kept = compose.plain(dataclasses.replace(config, resume=None, run_dir=str(parts.path)))
    return RunFolder.create_or_open(parts.path, kept, fixed)
