"""Reads search spaces and known losses by name from `search_spaces/*.yaml`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from autoseg import metrics
from autoseg.errors import InputError, unknown_name
from autoseg.files import shipped_folder
from autoseg.surrogates.parameterization import CurveSpec, Family, Scalar
from autoseg.surrogates.space import SearchSpace

VERSION = 1
_KEYS = {"version", "summary", "curve", "score", "shared", "absent", "per_metric", "loss", "scalars"}


@dataclass(frozen=True)
class KnownLoss:
    """A loss with curves that comes with autoseg.

    Attributes:
        metric: the metric that it is a surrogate of.
        control_points: decoded coordinates of `space`, see `SearchSpace.decode`.
        stem: the space's name without the metric.
        origin: who found it, and where.
    """

    metric: str
    control_points: tuple[float, ...]
    stem: str
    origin: str

    @property
    def space(self) -> SearchSpace:
        """The space of its curves."""
        return build_space(self.stem, metric=self.metric)


def space_names() -> dict[str, str]:
    """Return {name: one line} of the spaces that come with autoseg; each fits any metric."""
    return {name: str(_read_packaged(name)["summary"]) for name in _packaged()}


@cache
def _packaged() -> tuple[str, ...]:
    """Return the names of the spaces that come with autoseg."""
    return tuple(name for name in _files() if "losses" not in _read_packaged(name))


@cache
def _files() -> tuple[str, ...]:
    names = (file.name for file in shipped_folder("search_spaces").iterdir())
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


@cache
def _read_packaged(name: str) -> dict[str, Any]:
    return _read(shipped_folder("search_spaces") / f"{name}.yaml", name)


def _read(file: Path, where: str) -> dict[str, Any]:
    if file.exists() and not file.is_file():  # a pipe or a device would never end
        raise InputError(f"search space {where}", "a file", "something else")
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        raise InputError(f"search space {where}", "YAML", str(error).replace("\n", " ")) from None
    if not isinstance(data, dict) or data.get("version") != VERSION:
        got = data.get("version") if isinstance(data, dict) else type(data).__name__
        raise InputError(f"search space {where}", f"a mapping with version: {VERSION}", got)
    return data


def build_space(
    name: str | os.PathLike[str],
    parameterization: Family | None = None,
    metric: str | None = None,
) -> SearchSpace:
    """Build a search space by name.

    Args:
        name: a metric ("miou": the paper's space of that metric), a space and metric ("paper-miou"), a space
            ("default", with `metric`), or the path of a .yaml file (with `metric`).
        parameterization: "bezier" or "linear" instead of the space's own, then with three interior points a curve.
        metric: the metric of a space that has none in its name; one that has keeps it, since a search for one metric
            may train with another's surrogate.

    Returns:
        The space; its `names` and `dim` are those of the metric's curves.

    Raises:
        InputError: unknown name, malformed file, or a value out of range.
    """
    data, stem, metric = _find(os.fspath(name) if isinstance(name, os.PathLike) else name, metric)
    unknown = set(data) - _KEYS
    if unknown:
        raise unknown_name(f"search space {stem}", sorted(unknown)[0], _KEYS)
    curve = _mapping(data, "curve", stem) | _mapping(_mapping(data, "per_metric", stem), metric, stem)
    if parameterization is not None and parameterization != curve.get("family", "bezier"):
        stem = f"{stem}-{parameterization}"
        curve["family"] = parameterization
        curve["pieces"] = 4 if parameterization == "linear" else 2  # three interior points either way
    score = data.get("score")
    return SearchSpace(
        name=f"{stem}-{metric}",
        metric=metric,
        curve=_curve(curve, stem),
        score=None if score is None else _curve(score, stem),
        shared=data.get("shared", False),
        absent=data.get("absent", "include"),
        loss=data.get("loss", "surrogate"),
        scalars=_scalars(_mapping(data, "scalars", stem), stem),
    )


def _mapping(data: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    """Return the mapping under a key, which may be missing or empty."""
    found = data.get(key) or {}
    if not isinstance(found, dict):
        raise InputError(f"{key} of search space {where}", "a mapping", repr(found))
    return found


def _curve(fields: dict[str, Any], where: str) -> CurveSpec:
    try:
        return CurveSpec(**fields)
    except TypeError as error:
        raise InputError(
            f"search space {where}", "family, pieces, truth_table, monotone", f"{fields} ({error})"
        ) from None


def _scalars(fields: dict[str, Any], where: str) -> tuple[Scalar, ...]:
    try:
        return tuple(Scalar(name, **{k: float(v) for k, v in given.items()}) for name, given in fields.items())
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"search space {where}", "scalars {name: {low, high, start}}", f"{fields} ({error})") from None


def _find(name: str, metric: str | None) -> tuple[dict[str, Any], str, str]:
    """Return (content, stem, metric) for a space's name."""
    if not isinstance(name, str):
        raise InputError("space", "a name or the path of a .yaml file", repr(name))
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise InputError("space", "an existing .yaml file", repr(name))
        return _read(path, name), path.stem, _needed(metric, name)
    if name in _packaged():
        return _read_packaged(name), name, _needed(metric, name)
    for stem in sorted(_packaged(), key=len, reverse=True):
        tail = name.removeprefix(stem + "-")
        if tail != name and metrics.is_known(tail):
            return _read_packaged(stem), stem, tail
    if metrics.is_known(name):
        return _read_packaged("paper"), "paper", name
    loss = name.replace("-", "/", 1)
    hint = f"{loss} is a loss." if loss in known_losses() else "Or the path of a .yaml file."
    raise unknown_name("space", name, [*space_names(), *metrics.searchable()], hint)


def _needed(metric: str | None, name: str) -> str:
    if metric is None:
        raise InputError("metric", f"the metric that space {name} is for", "none")
    metrics.parse(metric)
    return metric


@cache
def known_losses() -> Mapping[str, KnownLoss]:
    """Return {"asl2021/miou": …, "camvid/miou": …}: the losses of the paper's release, and those that autoseg found."""
    sources = {name: _read_packaged(name) for name in _files() if name not in _packaged()}
    found = {
        f"{source}/{name}": KnownLoss(of["metric"], tuple(of["control_points"]), data["space"], data["summary"])
        for source, data in sources.items()
        for name, of in data["losses"].items()
    }
    return MappingProxyType(found)
