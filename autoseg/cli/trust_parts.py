"""What `trust` trains: from its configuration to losses, ways to train them, and the workers' task."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autoseg.cli import compose
from autoseg.cli.check import check
from autoseg.cli.trust_source import Source, kept_entries, plain_entries
from autoseg.config import ProxyConfig, SearchConfig, TrustConfig
from autoseg.errors import InputError
from autoseg.evidence.trust import AGAIN, FULL, PROXY, Entry, TrustTask, Variant, training
from autoseg.metrics import names
from autoseg.search.confirm import fresh_seeds, rival
from autoseg.search.records import COMPLETE
from autoseg.search.run_folder import new_run_path

LONGER = 4  # times the proxy's iterations
SHORTER = (2, 4)  # parts of them that are tried


@dataclass(frozen=True)
class Parts:
    """What a configuration stands for, before anything has been trained."""

    source: Source
    entries: list[Entry]
    variants: list[Variant]
    proxies: dict[str, ProxyConfig]
    path: Path

    @property
    def search(self) -> SearchConfig:
        """The search's configuration."""
        return self.source.search


def build(config: TrustConfig) -> Parts:
    """Everything that is needed; the search is only read.

    Raises:
        InputError: not the folder of such a search, data that has changed since, or a change that is not of a proxy.
    """
    source = Source.open(Path(config.run))
    search = source.search
    path = Path(config.run_dir) if config.run_dir else new_run_path(Path("runs"), "trust", search.data.name)
    if (path / "config.yaml").is_file():  # the search may have gone on since: the losses stay
        entries = kept_entries(path)
    else:
        entries = [*source.candidates(config.candidates), *_rivals(source)]
    proxies = _proxies(config, search)
    seeds = fresh_seeds(search.seed, search.search.confirm.seeds + 1 + config.full.seeds)[search.search.confirm.seeds :]
    variants = [Variant(PROXY, (search.seed,)), Variant(AGAIN, (seeds[0],))]
    variants += [Variant(name, (seeds[0],)) for name in proxies if name not in (PROXY, AGAIN, FULL)]
    return Parts(source, entries, [*variants, Variant(FULL, tuple(seeds[1:]))], proxies, path)


def _rivals(source: Source) -> list[Entry]:
    """The search's rivals, with their scores where its floor needed them."""
    search = source.search
    with source.ledger() as ledger:
        known = {record.name: record for record in ledger.records("floor") if record.state == COMPLETE}
    entries = []
    for name in dict.fromkeys(search.search.confirm.rivals):
        planned, found = rival(name, source.space.identity.tolist(), 0, search.seed), known.get(name)
        score, seconds = (found.scores[search.metric], found.seconds) if found else (math.nan, 0.0)
        entries.append(Entry(name, "rival", planned.theta, score, seconds))
    return entries


def _proxies(config: TrustConfig, search: SearchConfig) -> dict[str, ProxyConfig]:
    """Every variant's way to train."""
    own = search.proxy
    texts = config.cheaper or [_shorter(own, part) for part in SHORTER if own.iters // part]
    longer = dataclasses.replace(own, iters=config.full.iters or LONGER * own.iters)
    longer = dataclasses.replace(longer, warmup=0, backbone="trained")  # nothing is saved here
    if longer.iters <= own.iters:
        raise InputError("full.iters", f"more than the proxy's {own.iters}", longer.iters)
    found = {PROXY: own, AGAIN: own, FULL: longer}
    for text in texts:
        if twice := text in found:
            raise InputError("cheaper", "each once", f"{text} {1 + twice} times")
        changes = text.split()
        if not changes or any(not change.startswith("proxy.") for change in changes):
            raise InputError("cheaper", 'changes of the proxy, such as "proxy.iters=75"', repr(text))
        changed = compose.changed("search", search, changes)
        check(changed)
        found[text] = changed.proxy
    return found


def _shorter(own: ProxyConfig, part: int) -> str:
    """The change that trains for a part of the iterations, of those with cross-entropy too."""
    warmup = f" proxy.warmup={own.warmup // part}" if own.warmup else ""
    return f"proxy.iters={own.iters // part}{warmup}"


def task(parts: Parts) -> TrustTask:
    """What the workers run."""
    jobs = {
        training(variant.name, entry.name): (variant.name, entry.payload)
        for variant in parts.variants
        for entry in parts.entries
    }
    metrics = tuple(dict.fromkeys([*names(), parts.search.metric]))
    return parts.source.task(parts.proxies, jobs, metrics, parts.path)


def fingerprint(config: TrustConfig, parts: Parts) -> dict[str, Any]:
    """All that must be the same when it is resumed."""
    return {
        "run": config.run,
        "candidates": config.candidates,
        "full": asdict(config.full),
        "proxy": asdict(parts.search.proxy),
        "entries": plain_entries(parts.entries),
    }
