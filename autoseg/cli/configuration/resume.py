"""Configurations from a run: `resume=RUN` goes on with it, `like=RUN` uses its budget."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from autoseg.cli.configuration import compose, overrides, stored
from autoseg.cli.configuration.check import absolute_paths
from autoseg.cli.configuration.named_code import own_configs, refuse_code, require, require_imports, require_reaching
from autoseg.cli.configuration.overrides import typed_keys
from autoseg.cli.configuration.stored import at, put, same
from autoseg.config import FORCIBLE, CompareConfig, RetrainConfig, SearchConfig, TrustConfig
from autoseg.errors import InputError
from autoseg.store.run_files import kind_of, read_config

FREE = (  # a search's results so far do not depend on these keys
    "workers", "device", "tracker", "executor", "search.rounds", "search.confirm", "search.timeout_s", "search.retries",
    "proxy.frozen_gb", "data.root", "data.cache_dir",
)  # fmt: skip
NAMED_ANEW = "imports"  # whatever the run lists, only modules on the command line are imported

T = TypeVar("T", SearchConfig, CompareConfig, RetrainConfig, TrustConfig)

RUNS: dict[type, str] = {
    SearchConfig: "search",
    CompareConfig: "compare",
    TrustConfig: "trust",
    RetrainConfig: "retrain",
}


def written(path: Path, schema: type, field: str = "resume") -> dict[str, Any]:
    """Return the plain configuration in a run's folder, after checking that it is a run of this schema.

    Args:
        path: the folder.
        schema: the schema of its command.
        field: the argument in which the user named it.

    Raises:
        InputError: no run folder, or one of another kind.
    """
    kept = read_config(path, field)
    if kind_of(kept, path, [RUNS[schema]], field) == "search" and "data" not in kept:
        raise InputError(field, "the folder of a search by command", f"{path}, which is of a search from Python")
    return kept


def resumed(given: T, words: Sequence[str], free: Sequence[str] = FREE) -> T:
    """Return the run's own configuration, with the typed keys that a resumed run may change.

    Args:
        given: the configuration of the command line; `resume` is set.
        words: what the user typed, `key=value` each.
        free: the keys that may change.

    Raises:
        InputError: not a run folder, one with code that is not typed, or a typed key would make it another search.
    """
    run = Path(str(given.resume)).expanduser()
    if given.run_dir is not None and Path(str(given.run_dir)).expanduser().resolve() != run.resolve():
        raise InputError("run_dir", "none beside resume", given.run_dir, "A run stays in its folder.")
    kept: T = stored.load(type(given), written(run, type(given)))
    refuse_code(kept, run)
    typed = typed_keys(words)
    require(kept, {key: at(given, key) for key in typed}, run)
    whole = {key for key in typed if dataclasses.is_dataclass(at(kept, key))}  # groups, with all that is typed of them
    changes = []
    for key, word in zip(typed, words, strict=True):
        if key in ("resume", "run_dir", *own_configs(kept)):
            continue
        old, new = (None, key) if key == "experiment" else (at(kept, key), at(given, key))
        if any(key == name or key.startswith(f"{name}.") for name in (*free, NAMED_ANEW)):
            if key in whole:
                put(kept, key, new)
            elif key.partition(".")[0] not in whole:
                changes.append(_written_out(key, word, new))
        elif not same(old, new) and (key == "experiment" or dataclasses.is_dataclass(old)):
            hint = "The run keeps its own; of single keys it takes new values of"
            raise InputError(key, "none beside resume", "one", f"{hint} {', '.join(free)}.")
        elif not same(old, new):
            hint = f"A resumed run takes new values of {', '.join(free)}."
            if isinstance(kept, CompareConfig) and key.startswith(FORCIBLE):
                hint += " With force=true it adds trainings under another budget: its table then says so."
            if isinstance(kept, RetrainConfig):
                hint += " A new run can begin with its weights: load_from=" + shlex.quote(str(run))
            then = "none" if old is None else repr(old)
            raise InputError(key, f"{then}, as when the run began", repr(new), hint)
    kept = compose.changed(RUNS[type(given)], kept, changes)
    absolute_paths(kept)
    require_reaching(kept, given, run)
    return dataclasses.replace(kept, resume=str(run), run_dir=str(run))


def _written_out(key: str, word: str, value: Any) -> str:
    """Return what the user typed beside a run, with the value of the environment in the place of `${oc.env:NAME}`.

    Raises:
        InputError: it refers to another key, of which the run may have another value than the command line.
    """
    if re.search(r"\$\{[^:}]*\}", word):
        raise InputError(key, "a value beside a run", word.partition("=")[2], "Write it out.")
    if "${" not in word:
        return word
    return shlex.split(overrides.typed(key, value.name if key == "space" else value))[0]


def searched(run: Path) -> SearchConfig:
    """Return the configuration of a search that was started by command.

    Raises:
        InputError: not the folder of such a search.
    """
    here = Path.cwd()
    told = run.relative_to(here) if run.is_relative_to(here) else run  # as it was typed
    config = stored.load(SearchConfig, written(told, SearchConfig, "RUN"))
    refuse_code(config, run)
    return config


BUDGET = ("data", "model", "proxy", "space", "tolerance", "drop_background")


def like(given: CompareConfig, words: Sequence[str]) -> CompareConfig:
    """Return a comparison's configuration with the budget of another run; keys the user typed override that run's.

    Args:
        given: the configuration of the command line; `like` is set.
        words: what the user typed, `key=value` each. Without `metrics`, a search's target is shown.

    Raises:
        InputError: not a run folder, one without a budget or with code that is not typed, or a group typed beside it.
    """
    run, typed = Path(str(given.like)).expanduser(), typed_keys(words)
    kept = read_config(run, "like")
    if not all(key in kept for key in BUDGET):
        raise InputError("like", "the run folder of a search or a comparison", f"{run}, which has no budget in it")
    for key in typed:
        if key in ("data", "model", "proxy"):
            hint = f"That run has its own; single keys such as {key}.{_FIRST[key]}=... may change."
            raise InputError(key, "none beside like", "one", hint)
    require_imports(kept.get("imports"), given.imports, run)
    taken = stored.load(CompareConfig, {**stored.plain(given), **{key: kept[key] for key in BUDGET}})
    refuse_code(taken, run)
    pairs = [pair for pair in zip(typed, words, strict=True) if pair[0].partition(".")[0] in BUDGET]
    changes = [_written_out(key, word, at(given, key)) for key, word in pairs]
    taken = compose.changed("compare", taken, changes)
    absolute_paths(taken)
    require(taken, {key: at(given, key) for key in typed}, run)
    if "metrics" not in typed and isinstance(kept.get("metric"), str):
        taken.metrics = [kept["metric"]]
    return dataclasses.replace(taken, like=None)


_FIRST = {"data": "root", "model": "weights", "proxy": "iters"}
