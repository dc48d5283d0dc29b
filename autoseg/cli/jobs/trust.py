"""Runs one check of a proxy. `trust` shows the whole way from a configuration to a verdict."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autoseg.cli.configuration import compose, stored
from autoseg.cli.configuration.check import check
from autoseg.cli.configuration.named_code import resume_arguments
from autoseg.cli.configuration.resume import searched, written
from autoseg.cli.faults import INTERRUPTED
from autoseg.cli.jobs import running
from autoseg.cli.jobs.trust_source import Source, kept_entries, kept_seeds
from autoseg.config import ProxyConfig, SearchConfig, TrustConfig, comparable_settings
from autoseg.errors import InputError
from autoseg.evidence.trust.documents import lines, write
from autoseg.evidence.trust.rankings import (
    AGAIN,
    FULL,
    PROXY,
    Entry,
    Trust,
    TrustTask,
    Variant,
    plan,
    train_all,
    training,
)
from autoseg.execution import Standby
from autoseg.imports import import_modules
from autoseg.metrics import names
from autoseg.search.confirm import fresh_seeds, rival
from autoseg.store.records import COMPLETE
from autoseg.store.run_files import RESULTS
from autoseg.store.run_folder import RunFolder, new_run_path

LONGER = 4  # the fuller training has so many times the proxy's iterations
SHORTER = (2, 4)  # cheaper proxies have a half and a quarter of them


@dataclass(frozen=True)
class Parts:
    """Everything that a configuration names, before anything has been trained."""

    source: Source
    entries: list[Entry]
    variants: list[Variant]
    proxies: dict[str, ProxyConfig]
    path: Path

    @property
    def search(self) -> SearchConfig:
        """The search's configuration."""
        return self.source.search


def trust(config: TrustConfig, workers: Standby) -> int:
    """Check a proxy on workers without a task and print the verdict; return the exit status."""
    parts = build(config)
    code = resume_arguments(dataclasses.replace(parts.search, imports=config.imports, executor=config.executor))
    found = running.resumable("trust", parts.path, lambda: _trained(config, parts, workers), code)
    if found is None:
        return INTERRUPTED
    for line in ["", *lines(found)]:
        print(line)
    print(
        f"Tables: {parts.path / 'trust.md'}, trust.csv, agreement.csv   figure: {parts.path / 'figures' / 'trust.png'}"
    )
    return 0


def _trained(config: TrustConfig, parts: Parts, workers: Standby) -> Trust:
    """Open the folder, give the workers their task, train what is missing, write tables and figure."""
    search, proxy, metric = parts.search, parts.search.proxy, parts.search.metric
    planned = plan(parts.entries, parts.variants)
    with (
        _folder(config, parts) as folder,
        running.executor(config, workers, task(parts), metric, folder) as (executor, observers),
    ):
        print(
            f"{len(parts.entries)} losses of {Path(config.run).name}, {len(planned)} trainings "
            f"({', '.join(variant.name for variant in parts.variants)}) in {folder.path}"
        )
        records = train_all(folder, planned, metric, executor, observers)
        found = Trust(parts.entries, parts.variants, records)
        about = (
            f"Search {Path(config.run).name}: {metric} on {search.data.name}, {search.model.name}, "
            f"proxy of {proxy.iters} iterations of {proxy.batch_size} crops of {proxy.crop} px."
        )
        write(found, about, metric, parts.path)  # before the folder is closed: without them the run is not finished
    return found


def _folder(config: TrustConfig, parts: Parts) -> RunFolder:
    """Open the locked folder, new or resumed; without a table that could be taken for the result of what is to come."""
    fixed = fingerprint(config, parts)
    kept = stored.plain(dataclasses.replace(config, resume=None, run_dir=str(parts.path)))
    folder = RunFolder.create_or_open(parts.path, kept, fixed)
    (parts.path / RESULTS["trust"]).unlink(missing_ok=True)
    return folder


def build(config: TrustConfig) -> Parts:
    """Build everything that is needed; the search is only read.

    Raises:
        InputError: as in `resolve_names`; data that has changed since the search.
    """
    proxies, source = resolve_names(config), Source.open(Path(config.run))
    search = source.search
    path = Path(config.run_dir) if config.run_dir else new_run_path(Path("runs"), "trust", search.data.name)
    if (path / "config.yaml").is_file():  # the search may have gone on since: the losses stay, and the seeds
        entries, seeds = kept_entries(path), kept_seeds(path)
    else:
        entries, used = [*source.candidates(config.candidates), *_rivals(source)], search.search.confirm.seeds
        seeds = fresh_seeds(search.seed, used + 1 + config.full.seeds)[used:]
    variants = [Variant(PROXY, (search.seed,)), Variant(AGAIN, (seeds[0],))]
    variants += [Variant(name, (seeds[0],)) for name in proxies if name not in (PROXY, AGAIN, FULL)]
    return Parts(source, entries, [*variants, Variant(FULL, tuple(seeds[1:]))], proxies, path)


def resolve_names(config: TrustConfig) -> dict[str, ProxyConfig]:
    """Return every variant's training settings, from the names in a configuration, without reading the search's data.

    Raises:
        InputError: not the folder of a search by command, a change that is not of a proxy, or a `run_dir` of another
            kind of run.
    """
    import_modules(config.imports)
    if config.run_dir and (Path(config.run_dir) / "config.yaml").is_file():
        written(Path(config.run_dir), TrustConfig, "run_dir")
    return _proxies(config, searched(Path(config.run)))


def _rivals(source: Source) -> list[Entry]:
    """Return the search's rivals, with a score if its floor needed one."""
    search = source.search
    with source.ledger() as ledger:
        known = {record.name: record for record in ledger.records("floor") if record.state == COMPLETE}
    entries = []
    for name in dict.fromkeys(search.search.confirm.rivals):
        planned, found = rival(name, source.space.identity.tolist(), 0, search.seed), known.get(name)
        score, seconds = (found.scores[search.metric], found.seconds) if found else (None, 0.0)
        entries.append(Entry(name, "rival", planned.theta, score, seconds))
    return entries


def _proxies(config: TrustConfig, search: SearchConfig) -> dict[str, ProxyConfig]:
    """Return every variant's training settings."""
    own = search.proxy
    texts = config.cheaper or [_shorter(own, part) for part in SHORTER if own.iters // part]
    longer = dataclasses.replace(own, iters=config.full.iters or LONGER * own.iters)
    longer = dataclasses.replace(longer, warmup=0, backbone="trained")  # nothing is saved here
    if longer.iters <= own.iters:
        raise InputError("full.iters", f"more than the proxy's {own.iters}", longer.iters)
    found = {PROXY: own, AGAIN: own, FULL: longer}
    for text in texts:
        changes = text.split()
        if not changes or any(not change.startswith("proxy.") for change in changes):
            raise InputError("cheaper", 'changes of the proxy, such as "proxy.iters=75"', repr(text))
        if text in found:
            raise InputError("cheaper", "each once", f"{text} more than once")
        changed = compose.changed("search", search, changes)
        check(changed, again=True)
        found[text] = changed.proxy
    return found


def _shorter(own: ProxyConfig, part: int) -> str:
    """Return the change that divides the iterations by `part`, and those with cross-entropy too."""
    warmup = f" proxy.warmup={own.warmup // part}" if own.warmup else ""
    return f"proxy.iters={own.iters // part}{warmup}"


def task(parts: Parts) -> TrustTask:
    """Return the workers' task."""
    jobs = {
        training(variant.name, entry.name): (variant.name, entry.payload)
        for variant in parts.variants
        for entry in parts.entries
    }
    metrics = tuple(dict.fromkeys([*names(), parts.search.metric]))
    return parts.source.task(parts.proxies, jobs, metrics, parts.path)


def fingerprint(config: TrustConfig, parts: Parts) -> dict[str, Any]:
    """Return all that must be the same when it is resumed."""
    return {
        "run": config.run,
        "candidates": config.candidates,
        "full": asdict(config.full),
        "seeds": [seed for one in parts.variants if one.name in (AGAIN, FULL) for seed in one.seeds],
        "proxy": comparable_settings(parts.search.proxy),
        "entries": [asdict(entry) for entry in parts.entries],
    }
