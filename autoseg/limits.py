"""Limits of settings, declared at their fields, and the one check that reads them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from typing import Any, TypeVar

from autoseg.errors import InputError, unknown_name

T = TypeVar("T")


@dataclass(frozen=True)
class Limit:
    """The allowed values of a setting; None is always allowed if its type has it."""

    expected: str  # in the user's words
    holds: Callable[[Any], bool]
    hint: str = ""  # a full sentence


def limited(default: T, limit: Limit) -> T:
    """Return the field of a setting with a limit; a list is copied for each configuration."""
    said = {"limit": limit}
    if isinstance(default, list):
        return field(default_factory=partial(list, default), metadata=said)  # type: ignore[return-value]
    return field(default=default, metadata=said)


def number(
    default: T,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
    hint: str = "",
) -> T:
    """Return the field of a number with bounds.

    `least` and `most` are allowed themselves, `above` and `below` are not.
    """
    bounds = {"at least": least, "at most": most, "more than": above, "less than": below}
    expected = " and ".join(f"{words} {bound:g}" for words, bound in bounds.items() if math.isfinite(bound))
    return limited(default, Limit(expected, lambda value: least <= value <= most and above < value < below, hint))


def choice(default: str, *others: str) -> str:
    """Return the field of a name among a few."""
    return field(default=default, metadata={"one_of": (default, *others)})


def check(config: Any, head: str = "") -> None:
    """Raise for the first value that is outside its limit, or that holds a number which is not finite.

    Args:
        config: any class of `autoseg.config`, its sections too.
        head: prefix of the keys in messages, such as "proxy.".

    Raises:
        InputError: there is one.
    """
    for setting in fields(config):
        key, value = f"{head}{setting.name}", getattr(config, setting.name)
        if is_dataclass(value):
            check(value, f"{key}.")
        elif value is not None:
            if setting.type in ("list[str]", "list[int]", "list[float]"):
                _check_plain(key, value)
            _check(key, value, setting.metadata.get("one_of"), setting.metadata.get("limit"))


def _check_plain(key: str, values: list[Any]) -> None:
    nested = next((one for one in values if isinstance(one, list | dict)), None)
    if nested is not None:
        raise InputError(key, "a list without brackets or braces in it", nested)


def _check(key: str, value: Any, names: tuple[str, ...] | None, limit: Limit | None) -> None:
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, float) and not math.isfinite(one):  # NaN passes many comparisons
            raise InputError(key, "a finite number", one)
    if names is not None and value not in names:
        raise unknown_name(key, value, names)
    if limit is not None and not limit.holds(value):
        raise InputError(key, limit.expected, value, limit.hint)
