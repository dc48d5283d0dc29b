"""`autoseg search`: turns the command line into checked configurations, and starts workers, which import meanwhile.

Nothing heavy is imported here, so that the workers start first. `jobs/search.py` does the rest.
"""

from __future__ import annotations

from autoseg.cli import faults, prestart
from autoseg.cli.arguments import Arguments, print_configs
from autoseg.cli.configuration import compose
from autoseg.cli.configuration.check import absolute_paths, check
from autoseg.cli.configuration.overrides import typed
from autoseg.cli.configuration.resume import resumed
from autoseg.cli.outlasting import outlasting
from autoseg.config import SearchConfig
from autoseg.errors import InputError

HELP = """
Searches a loss for a metric: proposes losses, judges each by a short training, learns, confirms.

usage: autoseg search [KEY=VALUE ...] [-m] [--cfg]
       autoseg search resume=RUN        goes on with an interrupted run, exactly where it stopped

  metric=NAME          what to maximise (autoseg metrics), or a sum: "metric=miou+0.5*bf1"
  data=NAME            builtin, camvid, ...; data.root=DIR for your own folders
  model=NAME  space=NAME  controller=NAME  proxy=NAME  experiment=NAME
  search.rounds=8  search.candidates=8  proxy.iters=250  workers=auto  device=auto  seed=0
  search.floor=RULE    e.g. 'search.floor="miou>=0.9*ce"': keep another metric up (mind the quotes)
  imports=[FILE.py]    metrics and losses of your own, known by name from then on
  -m                   sweep: one search for each of several values, metric=miou,biou
  --cfg                print every key with its value, and stop

A whole small search, under a minute; then a real one on your own images:
  autoseg search experiment=smoke
  autoseg search metric=miou data=folder data.root=DIR data.classes=[road,car] \\
    model=deeplabv3plus_mobilenet_v2 model.weights=MOBILENET.pth
"""


def run(command: str, argv: list[str]) -> int:
    """Compose the configurations, then search once per combination of values."""
    parser = Arguments(command, HELP)
    parser.add_argument("-m", "--multirun", action="store_true")
    given = parser.keys(argv)
    composed = compose.compose_sweep("search", SearchConfig, given.words, sweep=given.multirun)
    values, configs = [words for words, _ in composed], [config for _, config in composed]
    for config in configs:
        absolute_paths(config)
        if config.resume is not None and len(configs) > 1:
            hint = f"Go on with one run at a time: autoseg search {typed('resume', config.resume)}."
            raise InputError("resume", "none with -m", config.resume, hint)
    if any(config.resume is not None for config in configs):
        configs = [resumed(config, given.words) for config in configs]
    several_kinds = len({config.data.kind for config in configs}) > 1  # each reads some of the keys of `data`
    for config in configs:
        check(config, again=several_kinds)
    places = [config.run_dir for config in configs if config.run_dir is not None]
    if places and len(set(places)) < len(configs):
        hint = "As in 'run_dir=runs/${metric}-${seed}'; without it, each search makes one in runs/."
        raise InputError("run_dir", "another for each search of -m", places[0], hint)
    if given.cfg:
        return print_configs(command, *configs)
    if len(configs) > 1:  # check all before the first: a sweep may take days
        from autoseg.cli.jobs.search import build

        for config in configs:
            build(config)
        return _sweep(command, values, configs)
    return prestart.job(command, configs[0], configs[0].proxy.threads)


@outlasting()
def _sweep(command: str, values: list[str], configs: list[SearchConfig]) -> int:
    """Run one search after the other, also after one that failed; return the exit status of the first failure."""
    failed: dict[str, int] = {}
    for number, (words, config) in enumerate(zip(values, configs, strict=True), start=1):
        name = f"[{number}/{len(configs)}] {words}"
        print(name, flush=True)
        try:
            status = prestart.job(command, config, config.proxy.threads)
        except BrokenPipeError:  # the reader has closed the pipe
            raise
        except Exception as error:
            failed[name] = faults.report(error)
            continue
        if status == faults.INTERRUPTED:
            return status
    if failed:
        print(f"{len(failed)} of {len(configs)} searches failed, each as it says above: {', '.join(failed)}")
    return next(iter(failed.values()), 0)
