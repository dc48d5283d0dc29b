"""Checks arguments against their annotations before a constructor uses them: one check for all options."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from numbers import Integral, Real
from typing import Any, Literal, Self

from autoseg.errors import InputError, did_you_mean

NOUNS = {int: "whole number", float: "number", str: "text"}


class CheckedArguments:
    """Base of classes whose constructor refuses arguments that do not match its annotations.

    Checked are None, booleans, numbers, text, `Literal`, lists and mappings; any other annotation accepts everything.
    """

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Check the arguments, then create the object.

        Raises:
            InputError: for the first argument that does not match its annotation.
        """
        check_kinds(cls, dict(zip(_kinds(cls), args, strict=False)) | options)  # type: ignore[arg-type]  # of its own class
        return super().__new__(cls)


def check_kinds(cls: type, given: Mapping[str, object]) -> None:
    """Raise if an argument does not match the annotations of a class's constructor and those of its bases.

    Raises:
        InputError: for the first such argument.
    """
    for name, kinds in _kinds(cls).items():
        if name in given and not any(_is(given[name], kind) for kind in kinds):
            *words, last = dict.fromkeys(map(_word, kinds))
            hint = did_you_mean(str(given[name]), map(_word, filter(_is_literal, kinds)))
            raise InputError(name, " or ".join(filter(None, [", ".join(words), last])), repr(given[name]), hint)


@cache
def _kinds(cls: type) -> dict[str, tuple[Any, ...]]:
    """Return the allowed types of each parameter, in order; also of parameters that are passed on to a base."""
    found: dict[str, tuple[Any, ...]] = {}
    for owner in cls.__mro__:
        try:
            hints = typing.get_type_hints(vars(owner).get("__init__"))
        except (NameError, TypeError):  # a user's class may name types that do not exist, or have no constructor
            continue
        for name, hint in hints.items():
            found.setdefault(name, tuple(_alternatives(hint)))
    return found


def _alternatives(hint: Any) -> Iterator[Any]:
    """Yield the members of a union, with literals and booleans as single values."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    for kind in typing.get_args(hint) if union else (hint,):
        if kind is bool:
            yield from (Literal[True], Literal[False])
        elif _is_literal(kind):
            yield from (Literal[value] for value in typing.get_args(kind))
        else:
            yield kind


def _is(value: Any, kind: Any) -> bool:
    origin, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin is Literal:
        return type(value) is type(inner[0]) and bool(value == inner[0])
    if origin in (int, float):
        torch_takes = not isinstance(value, Integral) or abs(int(value)) < 2**63
        whole = Integral if origin is int else Real
        return type(value) is not bool and isinstance(value, whole) and torch_takes
    if origin in (Sequence, list, tuple):
        members = value.tolist() if hasattr(value, "tolist") else value  # an array, a tensor
        listed = isinstance(members, Sequence) and not isinstance(members, str)
        return listed and (len(inner) != 1 or all(_is_any(each, inner[0]) for each in members))
    if origin in (Mapping, dict):
        return isinstance(value, Mapping) and (
            not inner or all(_is_any(k, inner[0]) and _is_any(v, inner[1]) for k, v in value.items())
        )
    return isinstance(value, origin) if origin in (str, types.NoneType) else True


def _is_literal(kind: Any) -> bool:
    return typing.get_origin(kind) is Literal


def _is_any(value: Any, hint: Any) -> bool:
    return any(_is(value, kind) for kind in _alternatives(hint))


def _word(kind: Any) -> str:
    origin, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin is Literal:
        return str(inner[0])
    if origin in (Sequence, list, tuple):
        return "a list" + (f" of {NOUNS[inner[0]]}s" if inner and inner[0] in NOUNS else "")
    if origin in (Mapping, dict):
        return "a mapping" + (f" to {NOUNS[inner[1]]}s" if inner and inner[1] in NOUNS else "")
    return "None" if origin is types.NoneType else "text" if origin is str else f"a {NOUNS[origin]}"
