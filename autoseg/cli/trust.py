"""`autoseg trust`: turns the command line into a checked configuration, and starts workers, which import meanwhile.

Nothing heavy is imported here, so that the workers start first. `jobs/trust.py` does the rest.
"""

from __future__ import annotations

from pathlib import Path

from autoseg.cli import prestart
from autoseg.cli.arguments import Arguments, code_named, print_configs
from autoseg.cli.configuration import compose
from autoseg.cli.configuration.check import absolute_paths, check
from autoseg.cli.configuration.named_code import require
from autoseg.cli.configuration.resume import resumed, searched
from autoseg.config import TrustConfig
from autoseg.errors import InputError
from autoseg.mmconfigs import KEYS

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
  workers=auto  device=auto  run_dir=DIR  imports=[FILE.py]

After a search; then with cheaper proxies of your own (mind the quotes):
  autoseg trust runs/NAME
  autoseg trust runs/NAME 'cheaper=["proxy.iters=75","proxy.iters=150 proxy.size=[90,120]"]'
"""

FREE = ("cheaper", "workers", "device", "executor", "timeout_s", "retries")


def run(command: str, argv: list[str]) -> int:
    """Compose the configuration and check the proxy."""
    given = Arguments(command, HELP).keys(argv)
    runs = [word for word in given.words if "=" not in word]
    named, overrides = code_named(command, [word for word in given.words if "=" in word], KEYS)
    config = compose.compose("trust", TrustConfig, overrides)
    if config.resume is not None:
        if runs:
            raise InputError("RUN", "none beside resume", runs[0])
        config = resumed(config, overrides, FREE)
    elif len(runs) != 1:
        raise InputError("RUN", "the folder of one search", " ".join(runs) or "none", "Type autoseg trust --help.")
    else:
        config.run = str(Path(runs[0]).expanduser().absolute())
    absolute_paths(config)
    check(config)
    source = searched(Path(config.run))
    require(source, {**named, "imports": config.imports}, config.run)
    if given.cfg:
        return print_configs(command, config)
    return prestart.job(command, config, source.proxy.threads)
