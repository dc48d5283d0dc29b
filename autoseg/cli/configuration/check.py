"""Values that have the right type and still make no sense, found before anything starts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path

from autoseg.cli.configuration import stored
from autoseg.cli.configuration.stored import at, put
from autoseg.config import CompareConfig, RetrainConfig, SearchConfig, TrustConfig
from autoseg.errors import InputError, unknown_name
from autoseg.imports import located
from autoseg.mmconfigs import KEYS, config_path
from autoseg.mmconfigs import located as located_config
from autoseg.search.proxy import check_proxy
from autoseg.search.rungs import NONE, PRUNERS, Rungs, build_pruner

Config = SearchConfig | CompareConfig | RetrainConfig

_AT_LEAST: Mapping[int, tuple[str, ...]] = {
    0: (
        "tolerance", "seed", "retries", "data.seed", "data.ignore_index",
        "proxy.warmup", "proxy.weight_decay", "proxy.aux_weight",
        "search.retries", "search.confirm.top", "search.confirm.seeds",
        "train.weight_decay", "train.min_lr", "train.warmup_iters", "train.aux_weight",
    ),
    1: (
        "proxy.iters", "proxy.threads", "proxy.eval_batch_size",
        "search.rounds", "search.candidates", "executor.per_device", "full.seeds",
        "train.iters", "train.val_interval", "train.keep_checkpoints", "train.batch_size",
    ),
    2: ("candidates", "full.iters"),
    16: ("proxy.crop",),
}  # fmt: skip

_ONE_OF: Mapping[str, tuple[str, ...]] = {
    "data.kind": ("builtin", "folder", "mmseg"),
    "proxy.backbone": ("trained", "frozen"),
    "proxy.optimizer": ("adamw", "sgd"),
    "proxy.amp": ("auto", "off", "bf16", "fp16"),
    "proxy.channels_last": ("auto", "on", "off"),
    "proxy.compile": ("auto", "on", "off"),
    "proxy.labels": ("hard", "smooth", "boundary_smooth", "distill", "annotators", "pseudo"),
    "search.pruner": PRUNERS,
    "interval": ("t", "bootstrap"),
    "executor.name": ("inline", "processes", "ray"),
    "tracker.wandb": ("disabled", "offline", "online"),
    "train.optimizer": ("adamw", "sgd"),
    "train.amp": ("off", "auto", "fp16", "bf16"),
    "train.sync_bn": ("auto", "on", "off"),
    "sync_counts": ("auto", "on", "off"),
    "split": ("auto", "val", "test"),
}

_SIZES, _FACTORS = ("train.size", "train.crop", "proxy.size"), ("train.ratio", "proxy.scale")

_ABOVE_ZERO = (
    "proxy.lr", "proxy.head_lr_mult", "proxy.frozen_gb", "search.timeout_s", "timeout_s",
    "train.lr", "train.head_lr_mult", "train.clip_grad", "train.ema",
)  # fmt: skip


PATHS = ("data.root", "data.cache_dir", "model.weights", "proxy.soft.teacher", "load_from")


def absolute_paths(config: Config | TrustConfig) -> None:
    """Expand `~` and make the user's paths absolute, so that a run can be resumed from another folder."""
    space = str(at(config, "space.name")).endswith((".yaml", ".yml"))
    for key in (*PATHS, "space.name") if space else PATHS:
        if (value := at(config, key)) is not None:
            put(config, key, str(Path(value).expanduser().absolute()))
    for key in KEYS:
        if (value := at(config, key)) is not None:
            put(config, key, located_config(value))
    config.imports = located(config.imports)
    if config.run_dir is not None:
        config.run_dir = str(Path(config.run_dir).expanduser())


def check(config: Config | TrustConfig) -> None:
    """Refuse values out of range; names that a room knows best are checked by that room.

    Raises:
        InputError: the first value that is wrong.
    """
    _check_ranges(config)
    if isinstance(config, TrustConfig):
        return
    _check_shared(config)
    if not isinstance(config, RetrainConfig):
        check_proxy(config.proxy, config.tolerance)
    elif config.config is not None:
        config_path(config.config, "config")
    elif config.train.warmup_iters >= config.train.iters:
        expected = f"fewer than the {config.train.iters} of train.iters"
        raise InputError("train.warmup_iters", expected, config.train.warmup_iters, "0 is none.")
    if isinstance(config, SearchConfig):
        _check_search(config)


def _check_ranges(config: Config | TrustConfig) -> None:
    """Refuse single values out of range; a command lacks some of the keys."""
    for key in stored.keys(type(config)):
        value = at(config, key)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):  # nan passes every comparison below
                raise InputError(key, "a finite number", number)
    for least, keys in _AT_LEAST.items():
        for key in keys:
            if (value := at(config, key)) is not None and value < least:
                raise InputError(key, f"at least {least}", value)
    for key in _ABOVE_ZERO:
        if (value := at(config, key)) is not None and value <= 0:
            raise InputError(key, "more than 0", value)
    for key, names in _ONE_OF.items():
        if (value := at(config, key)) is not None and value not in names:
            raise unknown_name(key, value, names)
    for key in _SIZES:
        if (value := at(config, key)) is not None and (len(value) != 2 or min(value) < 16):
            raise InputError(key, "[height,width] in pixels, each at least 16", value)
    for key in _FACTORS:
        if (value := at(config, key)) is not None and (len(value) != 2 or not 0 < value[0] <= value[1]):
            raise InputError(key, "[smallest,largest] factor, both above 0", value)


def _check_shared(config: Config) -> None:
    """What all but trust have."""
    data, model = config.data, config.model
    if not 0 < data.holdout < 1:
        raise InputError("data.holdout", "a share between 0 and 1", data.holdout)
    if len(data.count) != 3 or min(data.count) < 0:
        raise InputError("data.count", "[train,val,test] images", data.count)
    for key, value in (("model.mean", model.mean), ("model.std", model.std)):
        if len(value) != 3:
            raise InputError(key, "three numbers, for red, green and blue", value)
    if min(model.std) <= 0:
        raise InputError("model.std", "three numbers above 0", model.std)
    config_path(model.config, "model.config")


def _check_search(config: SearchConfig) -> None:
    iters = config.search.confirm.iters
    if iters is not None and iters <= config.proxy.iters:
        hint = "null: as many as a candidate has."
        raise InputError("search.confirm.iters", f"more than the {config.proxy.iters} of proxy.iters", iters, hint)
    if config.search.pruner != NONE:
        _check_rungs(config)


def _check_rungs(config: SearchConfig) -> None:
    build_pruner(config.search.pruner, config.search.pruner_options)
    rungs, proxy = Rungs(shares=tuple(config.search.rungs)).iterations(config.proxy.iters), config.proxy
    where = [proxy.warmup, *rungs, proxy.iters]
    if not rungs or any(later <= earlier for earlier, later in itertools.pairwise(where)):
        after = f" after the {proxy.warmup} of proxy.warmup" if proxy.warmup else ""
        hint = "At each, candidates are scored on the held-out images."
        expected = f"ascending shares of the {proxy.iters} iterations{after}, between 0 and 1"
        raise InputError("search.rungs", expected, config.search.rungs, hint)
