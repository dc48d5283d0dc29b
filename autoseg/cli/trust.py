"""`autoseg trust`: joins the rooms that ask whether a proxy may be trusted. Read `run_one` first."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path

from autoseg.cli import compose, grid
from autoseg.cli.arguments import Arguments
from autoseg.cli.check import check_ranges
from autoseg.cli.faults import INTERRUPTED
from autoseg.cli.resume import resumed
from autoseg.cli.trust_parts import Parts, build, fingerprint, task
from autoseg.config import TrustConfig
from autoseg.errors import InputError
from autoseg.evidence.trust import Trust, plan, train_all
from autoseg.search.run_folder import RunFolder, read_config

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


def run_one(config: TrustConfig) -> int:
    """From a configuration to a verdict; returns the exit status."""
    from autoseg.evidence.trust_documents import lines, write  # matplotlib: only once the arguments are right

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stopped cluster job ends as Ctrl-C does
    parts = build(config)
    trust = grid.resumable("trust", parts.path, lambda: _trained(config, parts))
    if trust is None:
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


def _trained(config: TrustConfig, parts: Parts) -> Trust:
    """Open the folder, start workers, train what is missing."""
    threads, metric = parts.search.proxy.threads, parts.search.metric
    devices = grid.devices(config, threads)
    planned = plan(parts.entries, parts.variants)
    with (
        _folder(config, parts) as folder,
        grid.workers(config, devices, threads, task(parts), metric, folder) as (executor, observers),
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
