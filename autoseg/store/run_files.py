"""Reads the files of a run folder as plain data, to go on with a run or to look at one.

Such a folder may come from anybody: no file can expand beyond its limits when it is read, and none can run code.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from autoseg.config import CompareConfig, SearchConfig, SearchSettings
from autoseg.errors import InputError

SCHEMA = 1
RESULTS = {"compare": "table.csv", "trust": "trust.csv"}  # the file that says that such a run is finished
KINDS = {"search": "a search", "compare": "a comparison", "trust": "a trust run", "retrain": "a training by retrain"}
VALUES, DEPTH = 100_000, 100  # no configuration has more, or is nested deeper; classes and colours are thousands

# Errors of PyYAML for a text: ValueError for the 45th of a month, the last four for a value that its tag does not fit.
UNREADABLE = (
    yaml.YAMLError, ValueError, RecursionError, OverflowError, KeyError, IndexError, AttributeError
)  # fmt: skip


def read_config(path: Path, field: str = "run folder") -> dict[str, Any]:
    """Return the configuration of a run, without its schema version. Takes no lock, for commands that only read.

    Settings that an earlier version did not have get their defaults, which are what it did.

    Args:
        path: the run folder.
        field: the argument in which the user named it.

    Raises:
        InputError: not a run folder, or one of another version.
    """
    file = path / "config.yaml"
    try:
        text = read_file(file)
    except FileNotFoundError as error:
        if path.is_dir():
            raise InputError(
                field, "a folder with a config.yaml, as a run has it", f"{path}, which has none"
            ) from error
        raise InputError(field, "the folder of a run", f"{path}, which does not exist") from error
    except (OSError, ValueError) as error:
        raise InputError(field, "a folder with a readable config.yaml", f"{path} ({error})") from error
    try:
        content = yaml.load(text, Loader=_Bounded)
    except UNREADABLE as error:
        said = " ".join(str(error).split())
        raise InputError(field, "a folder with a readable config.yaml", f"{path} ({said})") from error
    schema = content.pop("schema", None) if isinstance(content, dict) else None
    if schema != SCHEMA:
        hint = "It was written by another version of autoseg; use that one."
        if not text.strip():
            raise InputError(field, "a folder with a readable config.yaml", f"{path}, where it is empty")
        raise InputError(field, f"version {SCHEMA}", f"version {schema} in {path}", hint)
    return _whole(content)


def _whole(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a search or a comparison with all settings; others, and a damaged one, as they are.

    A search from Python has the section `search` alone, beside the arguments of its call.
    """
    kind = _kind(config)
    if kind == "compare" or (kind == "search" and "data" in config):
        return _filled(config, CompareConfig() if kind == "compare" else SearchConfig())
    if kind == "search" and isinstance(config.get("search"), dict):
        return {**config, "search": _filled(config["search"], SearchSettings())}
    return dict(config)


def _filled(given: dict[str, Any], default: Any) -> dict[str, Any]:
    found = {**asdict(default), **given}
    for field in fields(default):
        section, value = getattr(default, field.name), found[field.name]
        if is_dataclass(section) and isinstance(value, dict):
            found[field.name] = _filled(value, section)
    return found


class _Bounded(yaml.SafeLoader):
    """A YAML loader of plain data that limits the number of values: with aliases, a few lines can make billions."""

    def get_single_node(self) -> Any:
        """Compose the whole text.

        Raises:
            YAMLError: it has too many values, or a list that contains itself.
        """
        node = super().get_single_node()
        values, depth = _measured(node, {})
        if values > VALUES or depth > DEPTH:
            raise yaml.YAMLError(f"more than {VALUES:,} values, or nested deeper than {DEPTH}, aliases filled in")
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Return a whole number of 64 bits, as all settings that count something are.

        Raises:
            YAMLError: it is larger.
        """
        if len(node.value) > 100:  # in base 60, with colons, they take long to compute
            raise yaml.YAMLError("a whole number of more than 64 bits")
        value: int = super().construct_yaml_int(node)
        if abs(value) >= 2**63:
            raise yaml.YAMLError("a whole number of more than 64 bits")
        return value


_Bounded.add_constructor("tag:yaml.org,2002:int", _Bounded.construct_yaml_int)


def _measured(node: yaml.Node | None, known: dict[int, tuple[float, float]]) -> tuple[float, float]:
    """Return the number of values in a node and its depth, with each alias counted as a full copy."""
    if id(node) not in known:
        known[id(node)] = (math.inf, math.inf)  # a node that contains itself has no end
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [one for pair in parts for one in pair] if isinstance(node, yaml.MappingNode) else parts
        found = [_measured(part, known) for part in parts]
        known[id(node)] = 1.0 + sum(n for n, _ in found), 1 + max((deep for _, deep in found), default=0)
    return known[id(node)]


@contextlib.contextmanager
def all_settings(path: Path) -> Iterator[None]:
    """Turn a missing or wrong setting in a run's files into an error for the user; an `InputError` passes unchanged."""
    try:
        yield
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, OverflowError) as error:
        hint = "It was changed, or written by another version of autoseg."
        got = f"{path}, in which {error!r} is missing or wrong"
        raise InputError("run folder", "one with all its settings", got, hint) from error


def kind_of(config: Mapping[str, Any], path: Path, among: Collection[str], field: str = "RUN") -> str:
    """Return which command made the run with this configuration: one of `KINDS`.

    Args:
        config: from `read_config`.
        path: the run folder.
        among: the kinds that are accepted.
        field: the argument in which the user named the run.

    Raises:
        InputError: it is of another kind.
    """
    kind = _kind(config)
    if kind not in among:
        expected = " or ".join(KINDS[one] for one in among)
        raise InputError(field, f"the folder of {expected}", f"{path}, which is of {KINDS[kind]}")
    return kind


def _kind(config: Mapping[str, Any]) -> str:
    marks = {"compare": {"losses"}, "trust": {"run"}, "retrain": {"train", "loss"}}
    return next((kind for kind, keys in marks.items() if keys <= config.keys()), "search")


def read_fingerprint(path: Path) -> dict[str, Any]:
    """Return the data that may not change between a run and its continuation. Takes no lock.

    Raises:
        InputError: the file is missing or damaged.
    """
    hint = "The run cannot go on without it; of a search, autoseg export still writes the loss found."
    return read_json(path / "fingerprint.json", hint)


def changed_data(path: Path, hint: str) -> InputError:
    """What is said when the data is not what the run in `path` began with: a digest tells nobody what to put back."""
    kept = read_config(path).get("data")
    known = kept if isinstance(kept, dict) else {}
    where = next((f" of {known[key]}" for key in ("root", "mmseg_config", "name") if known.get(key)), "")
    return InputError("data", f"the images, masks and classes{where} as when the run began", "others", hint)


def differences(then: Mapping[str, Any], now: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted key and both values wherever two fingerprints differ; `...` stands for a missing key."""
    for key in [*now, *sorted(then.keys() - now.keys())]:
        one, other = then.get(key, ...), now.get(key, ...)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from differences(one, other, f"{at}{key}.")
        elif one != other:
            yield at + key, one, other


def read_file(path: Path) -> str:
    """Return the text of a file; raise `OSError` for a pipe or a device, since reading one could never end."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a file", str(path))
    return path.read_text(encoding="utf-8")


def read_json(path: Path, hint: str = "") -> dict[str, Any]:
    """Return the JSON object in a file; raise an `InputError` that names the file if there is none."""
    try:
        content = json.loads(read_file(path))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(str(path), "a readable JSON file", str(error), hint) from error
    if not isinstance(content, dict):
        raise InputError(str(path), "a JSON object", type(content).__name__, hint)
    return content
