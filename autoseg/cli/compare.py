"""`autoseg compare`: turns the command line into a checked configuration, and starts workers, which import meanwhile.

Nothing heavy is imported here, so that the workers start first. `jobs/compare.py` does the rest.
"""

from __future__ import annotations

from autoseg.cli import prestart
from autoseg.cli.arguments import Arguments, print_configs
from autoseg.cli.configuration import compose
from autoseg.cli.configuration.check import absolute_paths, check
from autoseg.cli.configuration.resume import like, resumed
from autoseg.config import CompareConfig
from autoseg.errors import InputError

HELP = """
Trains every loss with every seed under one budget and says which differences are sure.

usage: autoseg compare losses=[LOSS,LOSS,...] [KEY=VALUE ...] [--cfg]
       autoseg compare resume=RUN [losses=[...]]   goes on; losses= names all that are shown

  losses=[...]         names (autoseg losses), sums "0.25*ce+0.75*jml", found losses (loss.json or a
                       run folder), published ones (asl2021/miou), identity curves (identity)
  metrics=[miou,biou]  what is shown (autoseg metrics); all are scored
  seeds=5              how many, or a list; below 5 no difference is marked
  interval=t           over seeds; bootstrap: over seeds and images     split=val: or test
  reference=ce         what all others are compared with, beside the best hand-made loss
  like=RUN             the budget of that run: its data, model, proxy; or each of them:
  data=NAME  model=NAME  proxy=NAME  proxy.iters=250  workers=auto  device=auto
  imports=[FILE.py]    metrics and losses of your own
  run_dir=DIR          a new folder, or a comparison of the same budget (force=true: any) to add to

Three losses on built-in data; then your found loss on your own images:
  autoseg compare losses=[ce,tversky,lovasz] metrics=[miou,biou] proxy=builtin
  autoseg compare losses=[ce,lovasz,runs/NAME] like=runs/NAME
"""

FREE = ("losses", "metrics", "seeds", "reference", "interval", "workers", "device", "executor", "timeout_s", "retries",
        "data.root", "data.cache_dir", "proxy.frozen_gb", "force")  # fmt: skip


def run(command: str, argv: list[str]) -> int:
    """Compose the configuration and run the comparison."""
    given = Arguments(command, HELP).keys(argv)
    config = compose.compose("compare", CompareConfig, given.words)
    absolute_paths(config)
    if config.resume is not None:
        if config.like is not None:
            raise InputError("like", "none beside resume", config.like, "The run keeps its own budget.")
        config = resumed(config, given.words, (*FREE, "model", "proxy") if config.force else FREE)
    of_a_run = config.like is not None
    if of_a_run:
        config = like(config, given.words)
    check(config, again=of_a_run)
    if given.cfg:
        return print_configs(command, config)
    return prestart.job(command, config, config.proxy.threads)
