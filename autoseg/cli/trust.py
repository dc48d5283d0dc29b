"""`autoseg trust`: joins the rooms that ask whether a proxy may be trusted. Read `run_one` first."""

from __future__ import annotations

import dataclasses
import math
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autoseg.cli import compose
from autoseg.cli.arguments import Arguments
from autoseg.cli.check import check, check_ranges
from autoseg.cli.faults import INTERRUPTED
from autoseg.cli.resume import resumed
from autoseg.config import ProxyConfig, SearchConfig, TrustConfig
from autoseg.data import SegData, open_data
from autoseg.errors import InputError
from autoseg.evidence.trust import (
    AGAIN,
    FULL,
    PROXY,
    Entry,
    Trust,
    TrustTask,
    Variant,
    plan,
    spread,
    train_all,
    training,
)
from autoseg.execution import slots
from autoseg.execution.build import build_executor
from autoseg.metrics import names
from autoseg.search.candidate import CandidateTask
from autoseg.search.confirm import fresh_seeds, rival
from autoseg.search.ledger import Ledger
from autoseg.search.observer import Observers
from autoseg.search.proxy import ProxyTask
from autoseg.search.records import COMPLETE
from autoseg.search.run_folder import RunFolder, new_run_path, read_config, read_fingerprint
from autoseg.search.shared import SHARED
from autoseg.surrogates import SearchSpace
from autoseg.tracking.lines import Lines, Quieter

HELP = """
Says whether a search's proxy ranks losses as a fuller training does, or which cheaper one may.

usage: autoseg trust RUN [KEY=VALUE ...] [--cfg]
       autoseg trust resume=TRUST      goes on with an interrupted one, or adds cheaper proxies

  RUN                 the folder of a search; it is only read
  candidates=12       of the search, spread over its scores; its rivals come on top
  cheaper=[...]       proxies that are tried, each "proxy.KEY=VALUE" or several with a blank
                      between; default: half and a quarter of the iterations
  full.iters=N        the fuller training; default: four times the proxy's
  full.seeds=1        how many of it; their mean ranks
  workers=auto  device=auto  run_dir=DIR

After a search; then with cheaper proxies of your own (mind the quotes):
  autoseg trust runs/NAME
  autoseg trust runs/NAME 'cheaper=["proxy.iters=75","proxy.iters=150 proxy.size=[90,120]"]'
"""

FREE = ("cheaper", "workers", "device", "executor", "timeout_s", "retries")
LONGER = 4  # times the proxy's iterations
SHORTER = (2, 4)  # parts of them that are tried


def run(command: str, argv: list[str]) -> int:
    """Compose and look."""
    parser = Arguments(command, HELP)
    parser.add_argument("--cfg", action="store_true")
    parser.add_argument("words", nargs="*")
    given = parser.parse_intermixed_args(argv)
    runs = [word for word in given.words if "=" not in word]
    overrides = [word for word in given.words if "=" in word]
    config = compose.compose("trust", TrustConfig, overrides)
    if config.resume is not None:
        if runs:
            raise InputError("RUN", "none beside resume", runs[0])
        if "run" not in read_config(Path(config.resume).expanduser()):
            raise InputError("resume", "the folder of a trust run", config.resume)
        config = resumed(config, compose.typed_keys(overrides), FREE)
    elif len(runs) != 1:
        raise InputError("RUN", "the folder of one search", " ".join(runs) or "none", "Type autoseg trust --help.")
    else:
        config.run = str(Path(runs[0]).expanduser().absolute())
    check_ranges(config)
    if given.cfg:
        print(compose.as_yaml(config), end="")
        return 0
    return run_one(config)


@dataclass(frozen=True)
class Parts:
    """What a configuration stands for, before anything has been trained."""

    search: SearchConfig
    data: SegData
    space: SearchSpace
    entries: list[Entry]
    variants: list[Variant]
    proxies: dict[str, ProxyConfig]
    path: Path


def run_one(config: TrustConfig) -> int:
    """From a configuration to a verdict; returns the exit status."""
    from autoseg.evidence.trust_documents import lines, write  # matplotlib: only once the arguments are right

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stopped cluster job ends as Ctrl-C does
    parts = build(config)
    try:
        trust = _trained(config, parts)
    except KeyboardInterrupt:
        again = compose.typed("resume", str(parts.path))
        print(f"\nInterrupted; nothing finished is lost. Go on with: autoseg trust {again}")
        return INTERRUPTED
    search, proxy = parts.search, parts.search.proxy
    about = (
        f"Search {Path(config.run).name}: {search.metric} on {search.data.name}, {search.model.name}, "
        f"proxy of {proxy.iters} iterations of {proxy.batch_size} crops of {proxy.crop} px."
    )
    write(trust, about, parts.search.metric, parts.path)
    for line in ["", *lines(trust)]:
        print(line)
    print(
        f"Tables: {parts.path / 'trust.md'}, trust.csv, agreement.csv   figure: {parts.path / 'figures' / 'trust.png'}"
    )
    return 0


def build(config: TrustConfig) -> Parts:
    """Everything that is needed; the search is only read.

    Raises:
        InputError: not the folder of such a search, data that has changed since, or a change that is not of a proxy.
    """
    run = Path(config.run)
    kept = read_config(run)
    if not all(key in kept for key in ("metric", "search", "proxy", "data")):
        raise InputError("RUN", "the folder of a search by command", f"{run}, which is of something else")
    search = compose.load(SearchConfig, kept)
    fixed = read_fingerprint(run)
    height, width = search.proxy.size
    data = open_data(search.data, (height, width))
    if data.fingerprint != fixed["data"]:
        raise InputError("data of the search", "the images it had", "others", f"Look into {search.data.root}.")
    space = SearchSpace.from_dict(fixed["space"])
    path = Path(config.run_dir) if config.run_dir else new_run_path(Path("runs"), "trust", search.data.name)
    entries = _entries(run, search, space, config.candidates)
    if (path / "config.yaml").is_file():  # the search may have gone on since: the losses stay
        entries = [_entry(plain) for plain in read_fingerprint(path)["entries"]]
    proxies = _proxies(config, search)
    seeds = fresh_seeds(search.seed, search.search.confirm.seeds + 1 + config.full.seeds)[search.search.confirm.seeds :]
    variants = [Variant(PROXY, (search.seed,)), Variant(AGAIN, (seeds[0],))]
    variants += [Variant(name, (seeds[0],)) for name in proxies if name not in (PROXY, AGAIN, FULL)]
    return Parts(search, data, space, entries, [*variants, Variant(FULL, tuple(seeds[1:]))], proxies, path)


def _entries(run: Path, search: SearchConfig, space: SearchSpace, count: int) -> list[Entry]:
    """Candidates spread over the search's scores, and its rivals."""
    with Ledger(run / "trials.db", space.names, read_only=True) as ledger:
        history, floor = ledger.records("search"), ledger.records("floor")
    known = {record.name: record for record in floor if record.state == COMPLETE}
    entries = spread(history, search.metric, count)
    for name in dict.fromkeys(search.search.confirm.rivals):
        planned, found = rival(name, space.identity.tolist(), 0, search.seed), known.get(name)
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


def _trained(config: TrustConfig, parts: Parts) -> Trust:
    """Open the folder, start workers, train what is missing."""
    threads = parts.search.proxy.threads
    devices = slots(config.workers, config.device, config.executor.per_device, threads)
    planned = plan(parts.entries, parts.variants)
    with ExitStack() as stack:
        folder = stack.enter_context(_folder(config, parts))
        observers = Observers([Quieter(folder.log), Lines(parts.search.metric)])
        stack.callback(observers.close)
        executor = stack.enter_context(
            build_executor(
                config.executor.name,
                _task(parts),
                devices,
                threads=threads,
                timeout_s=config.timeout_s,
                retries=config.retries,
                log=folder.log,
            )
        )
        print(
            f"{len(parts.entries)} losses of {Path(config.run).name}, {len(planned)} trainings "
            f"({', '.join(variant.name for variant in parts.variants)}) in {folder.path}"
        )
        records = train_all(folder, planned, parts.search.metric, executor, observers)
    return Trust(parts.entries, parts.variants, records)


def _task(parts: Parts) -> TrustTask:
    search, data = parts.search, parts.data
    metrics = tuple(dict.fromkeys([*names(), search.metric]))
    trains = {
        name: ProxyTask(
            search.data, search.model, proxy, metrics, search.tolerance, search.drop_background,
            shared=str(parts.path / SHARED),
        )
        for name, proxy in parts.proxies.items()
    }  # fmt: skip
    options = {"tolerance": search.tolerance, "drop_background": search.drop_background}
    task = CandidateTask(
        search.metric, parts.space.to_dict(), data.num_classes, trains[PROXY], data.ignore_index, options
    )
    jobs = {
        training(variant.name, entry.name): (variant.name, entry.payload)
        for variant in parts.variants
        for entry in parts.entries
    }
    return TrustTask(task, trains, jobs)


def _folder(config: TrustConfig, parts: Parts) -> RunFolder:
    """The locked folder, new or gone on with."""
    fixed = fingerprint(config, parts.entries, parts.search)
    kept = compose.plain(dataclasses.replace(config, resume=None, run_dir=str(parts.path)))
    if not (parts.path / "config.yaml").is_file():
        return RunFolder.create(parts.path, kept, fixed)
    folder = RunFolder.open(parts.path, fixed)
    folder.write_config(kept)
    return folder


def fingerprint(config: TrustConfig, entries: Sequence[Entry], search: SearchConfig) -> dict[str, Any]:
    """All that must be the same when it is resumed. A score that there is none of is written as null."""
    return {
        "run": config.run,
        "candidates": config.candidates,
        "full": asdict(config.full),
        "proxy": asdict(search.proxy),
        "entries": [{**asdict(e), "score": None if math.isnan(e.score) else e.score} for e in entries],
    }


def _entry(plain: dict[str, Any]) -> Entry:
    """The reverse, of one entry."""
    theta = None if plain["theta"] is None else tuple(plain["theta"])
    return Entry(**{**plain, "theta": theta, "score": math.nan if plain["score"] is None else plain["score"]})
