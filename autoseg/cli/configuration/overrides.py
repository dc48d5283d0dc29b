"""Parses one `key=value` in Hydra's grammar, and writes it with the quotes that the shell and Hydra need."""

from __future__ import annotations

import contextlib
import math
import re
import shlex
from collections.abc import Sequence
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from autoseg.errors import InputError


def parse(text: str, command: str) -> Override:
    """Parse an override with Hydra.

    Raises:
        InputError: not in its grammar; the hint says how to quote it, or names the command's help.
    """
    try:
        return OverridesParser.create().parse_override(text)
    except RecursionError:
        key = text.partition("=")[0]
        raise InputError(key, "a value in Hydra's grammar", "brackets in brackets, too deep") from None
    except HydraException as error:
        key, equals, value = text.partition("=")
        if not equals or not key.lstrip("+").replace(".", "").replace("_", "").isalnum():
            apart = "" if equals else _alone(text, command)
            raise InputError("argument", "key=value", repr(text), f"{apart}Type autoseg {command} --help.") from error
        if value.endswith("…"):  # as in examples
            raise InputError(key, "a value", repr(value), "… stands for a value of yours.") from error
        closed = value.count('"') % 2 == 0 and all(value.count(a) == value.count(b) for a, b in ("()", "[]", "{}"))
        repair = f"Quote it, for the shell and for Hydra: {quoted(text)}"
        hint = repair if closed or value[:1] not in "[{" else "A quote or a bracket in it is not closed."
        if hint is not repair and value[-1:] not in "]}":  # [bg, field]: the shell has ended it at the space
            hint += " Write it without spaces, or put quotes around the whole argument."
        raise InputError(key, "a value in Hydra's grammar", repr(value), hint) from error


def _alone(text: str, command: str) -> str:
    """Return a hint at what a word without a key may have been meant as."""
    from autoseg.metrics import is_known  # torch: only once something is wrong

    if command == "search" and is_known(text):
        return f"Did you mean {typed('metric', text)}? "
    return "If it belongs to the argument before, put quotes around the two. "


def typed(key: str, value: Any) -> str:
    """Return `key=value` as the user must type it, with quotes only where they are needed."""
    if isinstance(value, str):
        plain = f"{key}={value}"
        with contextlib.suppress(HydraException, RecursionError):  # too many nested brackets
            if OverridesParser.create().parse_override(plain).value() == value and shlex.quote(plain) == plain:
                return plain
        return shlex.quote(f"{key}={_in_quotes(value)}")
    if value is None or isinstance(value, bool | int | float):
        return f"{key}={_scalar(value)}"
    return shlex.quote(f"{key}={_flow(value)}")


def as_text(key: str, value: str) -> str:
    """Return an override whose value is this text for Hydra, though it looks like a number to it."""
    return f"{key}={_in_quotes(value.strip())}"


def and_imports(imports: list[str]) -> str:
    """Return the argument `imports=` to append to a command on a run that was made with them; empty for none."""
    return f" {typed('imports', imports[0] if len(imports) == 1 else imports)}" if imports else ""


def typed_keys(overrides: Sequence[str]) -> list[str]:
    """Return the keys and groups named in overrides."""
    return [OverridesParser.create().parse_override(text).key_or_group for text in overrides]


def quoted(text: str) -> str:
    """Return an override that Hydra would misread with the quotes it needs: around all of it, or around items of a
    list.
    """
    key, _, value = text.partition("=")
    if not (value.startswith("[") and value.endswith("]")):
        return typed(key, value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value)
    # Commas separate the items, except commas in brackets.
    items = re.findall(r"(?:[^,(\[{]|\([^)]*\)|\[[^\]]*\]|\{[^}]*\})+", value[1:-1])
    return typed(key, [item.strip().strip(chr(34)) for item in items])


def _in_quotes(text: str) -> str:
    """Quote a text for Hydra: backslashes before a quote or the end are doubled."""
    escaped = re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + ("\\" if found[2] else "") + found[2], text)
    return f'"{escaped}"'


def _flow(value: Any) -> str:
    """Return a list or mapping in Hydra's grammar."""
    if isinstance(value, list):
        return "[" + ",".join(_flow(one) for one in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, str):
        return value if _plain(value) else _in_quotes(value)
    return _scalar(value)


def _scalar(value: Any) -> str:
    """Return a number, boolean or null as in YAML, and numbers that are not finite as in Python."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return str(yaml.safe_dump(value).splitlines()[0])


def _plain(text: str) -> bool:
    """Return whether Hydra reads the text unchanged without quotes."""
    word = re.fullmatch(r"[A-Za-z_][\w./*+-]*|\d+(\.\d+)?\*[\w./*+-]+", text, re.ASCII) is not None
    return word and text.lower() not in ("null", "true", "false", "nan", "inf")
