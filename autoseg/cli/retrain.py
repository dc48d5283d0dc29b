"""`autoseg retrain`: turns the command line into a checked configuration. `jobs/retrain.py` does the rest."""

from __future__ import annotations

from autoseg.cli.arguments import Arguments, print_configs
from autoseg.cli.configuration import compose
from autoseg.cli.configuration.check import absolute_paths, check
from autoseg.cli.configuration.overrides import typed_keys
from autoseg.cli.configuration.resume import resumed
from autoseg.config import RetrainConfig
from autoseg.errors import InputError

HELP = """
Trains a full model with a loss through mmengine: checkpoints, resume, AMP, EMA, many GPUs, W&B.

usage: autoseg retrain [loss=LOSS] [data=NAME] [model=NAME] [KEY=VALUE ...] [--cfg]
       autoseg retrain resume=RUN       goes on from the last checkpoint
       torchrun --nproc-per-node=4 --no-python autoseg retrain ...

  loss=LOSS            ce, or any of autoseg losses, a sum, loss.json, a search's run, identity/miou
  data=NAME  model=NAME  model.weights=FILE (backbone)  load_from=FILE (whole network)
  config=FILE          a whole mmsegmentation config instead; only its loss and metrics change
  experiment=voc_r101_miou   the paper's recipes: voc_r101, cityscapes_r101, each _METRIC
  train.iters=20000  train.batch_size=16 (all GPUs)  train.crop=[512,512]  train.lr=0.01
  train.amp=auto  train.ema=0.0002  tracker=wandb  seed=0  run_dir=DIR
  metrics=[miou,biou]  default: the paper's, and what the loss was searched for
  imports=[FILE.py]    metrics and losses of your own
  overrides.KEY=VALUE  anything else of the mmengine config
  --cfg                print every key with its value, and stop

On built-in data in a minute; then a found loss on your own images:
  autoseg retrain loss=asl2021/miou train.iters=60 train.batch_size=4 train.crop=[64,64]
  autoseg retrain loss=runs/NAME data=folder data.root=DIR data.classes=[road,car] \\
      model=deeplabv3plus_r50 model.weights=resnet50_v1c.pth
"""

FREE = ("device", "workers", "tracker")  # what a resumed training may change
OF_A_CONFIG = ("model.weights", "data.root", "train.labels", "train.soft")  # of these groups, may be given with config=


def run(command: str, argv: list[str]) -> int:
    """Compose the configuration and train."""
    given = Arguments(command, HELP).keys(argv)
    overrides = expand(given.words)
    config = compose.compose("retrain", RetrainConfig, overrides)
    typed = typed_keys(overrides)
    absolute_paths(config)
    if config.resume is not None:
        config = resumed(config, overrides, FREE)
    elif config.config is not None:
        _refuse_beside_config(typed)
    check(config)
    if given.cfg:
        return print_configs(command, config)
    from autoseg.cli.jobs.retrain import retrain  # torch: only once the arguments are right

    return retrain(config, chosen="metrics" in typed or config.resume is not None)


def expand(overrides: list[str]) -> list[str]:
    """Replace `experiment=RECIPE_METRIC` by `experiment=RECIPE loss=asl2021/METRIC`, before all other arguments."""
    if not any(text.startswith("experiment=") for text in overrides):
        return overrides
    from autoseg.surrogates import known_losses  # torch: only if a name may be among them

    recipes = compose.options("experiment", RetrainConfig)
    expanded: list[str] = []
    for text in overrides:
        key, _, value = text.partition("=")
        recipe, _, metric = value.rpartition("_")
        if key != "experiment" or value in recipes:
            expanded.append(text)
        elif recipe in recipes and f"asl2021/{metric}" in known_losses():
            of_bf1 = "(drop_background=false)" if metric == "bf1" else ""  # the release's scores alone drop it
            expanded = [f"experiment={recipe}", f"loss='asl2021/{metric}{of_bf1}'", *expanded]
        else:
            metrics = [name.removeprefix("asl2021/") for name in known_losses() if name.startswith("asl2021/")]
            known = f"{', '.join(recipes)}, each alone or with _METRIC of {', '.join(metrics)}"
            raise InputError("experiment", known, repr(value))
    return expanded


def _refuse_beside_config(typed: list[str]) -> None:
    for key in typed:
        ours = any(key == known or key.startswith(f"{known}.") for known in OF_A_CONFIG)
        if key.split(".")[0] in ("data", "model", "train", "experiment") and not ours:
            hint = f"It brings its own; beside it go {', '.join(OF_A_CONFIG)} and overrides.KEY=VALUE."
            if key.split(".")[0] == "data":
                hint += " For that network with your own data: model.config=FILE data=folder data.root=DIR."
            raise InputError(key, "none beside config=", "one", hint)
