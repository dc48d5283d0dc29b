"""Values that have the right type and still make no sense, found before anything starts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path

from autoseg.cli.configuration import stored
from autoseg.cli.configuration.stored import at, put
from autoseg.config import CompareConfig, ProxyConfig, RetrainConfig, SearchConfig, TrustConfig
from autoseg.errors import InputError, unknown_name
from autoseg.imports import located
from autoseg.mmconfigs import KEYS, config_path
from autoseg.mmconfigs import located as located_config
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

_ABOVE_ZERO = (
    "proxy.lr", "proxy.head_lr_mult", "proxy.frozen_gb", "search.timeout_s", "timeout_s",
    "train.lr", "train.head_lr_mult", "train.clip_grad", "train.ema",
)  # fmt: skip


PATHS = ("data.root", "data.cache_dir", "model.weights", "proxy.soft.teacher", "load_from")


def check(config: Config | TrustConfig) -> None:
    """Refuse values out of range; names that a room knows best are checked by that room.

    Raises:
        InputError: the first value that is wrong.
    """
    _check_ranges(config)
    if isinstance(config, TrustConfig):
        return
    if not 0 < config.data.holdout < 1:
        raise InputError("data.holdout", "a share between 0 and 1", config.data.holdout)
    _check_sizes(config)
    config_path(config.model.config, "model.config")
    if isinstance(config, RetrainConfig):
        warmup, iters = config.train.warmup_iters, config.train.iters
        if config.config is not None:
            config_path(config.config, "config")
        elif warmup >= iters:
            raise InputError("train.warmup_iters", f"fewer than the {iters} of train.iters", warmup, "0 is none.")
    else:
        _check_savings(config.proxy)
    if isinstance(config, SearchConfig) and config.search.pruner != NONE:
        _check_rungs(config)


def _check_ranges(config: Config | TrustConfig) -> None:
    """Refuse single values out of range."""
    known = stored.keys(type(config))
    for key in known:
        value = at(config, key)
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, float) and not math.isfinite(number):  # nan passes every comparison below
                raise InputError(key, "a finite number", number)
    for key, least in ((key, least) for least, of in _AT_LEAST.items() for key in of if key in known):
        value = at(config, key)
        if value is not None and value < least:
            raise InputError(key, f"at least {least}", value)
    for key in (key for key in _ABOVE_ZERO if key in known):
        value = at(config, key)
        if value is not None and value <= 0:
            raise InputError(key, "more than 0", value)
    for key, names in _ONE_OF.items():
        if key in known and at(config, key) not in names:
            raise unknown_name(key, at(config, key), names)


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


def _check_sizes(config: Config) -> None:
    if isinstance(config, RetrainConfig):
        sizes, factors = {"train.size": config.train.size, "train.crop": config.train.crop}, "train.ratio"
    else:
        sizes, factors = {"proxy.size": config.proxy.size}, "proxy.scale"
    for key, size in sizes.items():
        if size is not None and (len(size) != 2 or min(size) < 16):
            raise InputError(key, "[height,width] in pixels, each at least 16", size)
    scale, count = at(config, factors), config.data.count
    if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
        raise InputError(factors, "[smallest,largest] factor, both above 0", scale)
    if len(count) != 3 or min(count) < 1:
        raise InputError("data.count", "[train,val,test] images, each at least 1", count)
    for key in ("model.mean", "model.std"):
        if len(at(config, key)) != 3:
            raise InputError(key, "three numbers, for red, green and blue", at(config, key))
    if min(config.model.std) <= 0:
        raise InputError("model.std", "three numbers above 0", config.model.std)
    if not isinstance(config, RetrainConfig):
        _check_proxy_sizes(config)


def _check_proxy_sizes(config: SearchConfig | CompareConfig) -> None:
    proxy = config.proxy
    if config.tolerance >= max(proxy.size):
        hint = "It is in pixels at that size; a wider one finds a boundary everywhere, and takes long."
        raise InputError("tolerance", f"less than the sides of proxy.size={proxy.size}", config.tolerance, hint)
    if proxy.batch_size < 2:
        raise InputError("proxy.batch_size", "at least 2", proxy.batch_size, "Batch norm needs more than one image.")


def _check_savings(proxy: ProxyConfig) -> None:
    if proxy.warmup >= proxy.iters:
        hint = "It is a part of them; 0 is none."
        raise InputError("proxy.warmup", f"fewer than the {proxy.iters} of proxy.iters", proxy.warmup, hint)
    if proxy.backbone == "frozen" and proxy.labels in ("distill", "pseudo"):
        hint = "Its teacher looks at the images, of which only the features are kept."
        raise InputError("proxy.backbone", f"trained, with proxy.labels={proxy.labels}", proxy.backbone, hint)


def _check_rungs(config: SearchConfig) -> None:
    build_pruner(config.search.pruner, config.search.pruner_options)
    rungs, proxy = Rungs(shares=tuple(config.search.rungs)).iterations(config.proxy.iters), config.proxy
    where = [proxy.warmup, *rungs, proxy.iters]
    if not rungs or any(later <= earlier for earlier, later in itertools.pairwise(where)):
        after = f" after the {proxy.warmup} of proxy.warmup" if proxy.warmup else ""
        hint = "At each, candidates are scored on the held-out images."
        expected = f"ascending shares of the {proxy.iters} iterations{after}, between 0 and 1"
        raise InputError("search.rungs", expected, config.search.rungs, hint)
