"""Checks that values make sense, beyond their types, before anything starts."""

from __future__ import annotations

import itertools
from pathlib import Path

from autoseg import limits
from autoseg.cli.configuration.stored import at, put
from autoseg.cli.configuration.unread import check_read
from autoseg.config import CompareConfig, ProxyConfig, RetrainConfig, SearchConfig, TrainConfig, TrustConfig
from autoseg.errors import InputError
from autoseg.imports import resolve_paths
from autoseg.mmconfigs import KEYS, config_path
from autoseg.mmconfigs import located as located_config
from autoseg.proxy.rungs import NONE, Rungs, build_pruner
from autoseg.proxy.task import check_proxy

Config = SearchConfig | CompareConfig | RetrainConfig

PATHS = ("data.root", "data.cache_dir", "model.weights", "proxy.soft.teacher", "train.soft.teacher", "load_from")


def absolute_paths(config: Config | TrustConfig) -> None:
    """Expand `~` and make the user's paths absolute, so that a run can be resumed from another folder."""
    space = str(at(config, "space.name")).endswith((".yaml", ".yml"))
    for key in (*PATHS, "space.name") if space else PATHS:
        if (value := at(config, key)) is not None:
            put(config, key, str(Path(value).expanduser().absolute()))
    for key in KEYS:
        if (value := at(config, key)) is not None:
            put(config, key, located_config(value))
    config.imports = resolve_paths(config.imports)
    if config.run_dir is not None:
        config.run_dir = str(Path(config.run_dir).expanduser())


def check(config: Config | TrustConfig, again: bool = False) -> None:
    """Raise for values out of range or in conflict; names are checked by the package that knows them.

    Args:
        config: any command's.
        again: whether the settings are of a run there is.

    Raises:
        InputError: the first value that is wrong.
    """
    limits.check(config)
    if isinstance(config, TrustConfig):
        return
    config_path(config.model.config, "model.config")
    # A run of an earlier version, which took rates that rise and keys that nothing reads, goes on.
    fresh = not (again or config.resume or getattr(config, "like", None))
    if fresh and getattr(config, "config", None) is None:  # `retrain config=FILE` says itself what it takes
        check_read(config)
    if not isinstance(config, RetrainConfig):
        check_proxy(config.proxy, config.tolerance)
        if fresh:
            _check_rates(config.proxy, "proxy.")
    elif config.config is not None:
        config_path(config.config, "config")
    else:
        _check_warmup(config.train)
        if fresh:
            _check_rates(config.train, "train.")
    if isinstance(config, SearchConfig):
        _check_search(config)


def _check_warmup(train: TrainConfig) -> None:
    if train.warmup_iters >= train.iters:
        expected = f"fewer than the {train.iters} of train.iters"
        raise InputError("train.warmup_iters", expected, train.warmup_iters, "0 is none.")


def _check_rates(settings: ProxyConfig | TrainConfig, head: str) -> None:
    """Raise for a schedule that would rise from its rate to its last one; keys begin with `head` in the message."""
    if settings.poly_power and settings.min_lr > settings.lr:  # with a power of 0 it stays
        hint = f"The rate falls from {head}lr to it; 0 is always possible."
        raise InputError(f"{head}min_lr", f"at most {settings.lr:g}, which is {head}lr", settings.min_lr, hint)


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
