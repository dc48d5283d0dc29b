"""Runs that an earlier version began: what they lack, and what that means today."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from typing import Any

from autoseg.config import BEFORE, ConfirmConfig, FullConfig, ModelConfig, ProxyConfig
from autoseg.errors import InputError

TEXT, RESOLVED = "text", "resolved"  # of a model.config of the user's own: runs begun without these may have any
OWN_MODEL = (f"model.{TEXT}", f"model.{RESOLVED}")
SECTIONS = {"model": ModelConfig, "proxy": ProxyConfig, "confirm": ConfirmConfig, "full": FullConfig}


def as_today(fixed: Mapping[str, Any]) -> dict[str, Any]:
    """A fingerprint as plain data, with the keys that came after it: they have the values that change nothing.

    Args:
        fixed: flat ("proxy.iters") or by sections, as a run keeps it or as a run of today would.

    Raises:
        InputError: its search space is not one that this version knows.
    """
    found: dict[str, Any] = json.loads(json.dumps(fixed))  # as a file gives it back: tuples are lists
    for name, section in SECTIONS.items():
        usual = _usual(name, section)
        if isinstance(found.get(name), dict):
            found[name] = _over(usual, found[name])
        elif any(key.startswith(f"{name}.") for key in found):
            found = _over({f"{name}.{key}": value for key, value in usual.items()}, found)
    for keys, head in ((found, "model."), (found.get("model"), "")):
        if isinstance(keys, dict) and head + RESOLVED in keys:  # what a config defines says more than its text
            keys.pop(head + TEXT, None)
    if isinstance(found.get("space"), dict):
        from autoseg.surrogates.space import SearchSpace  # torch: whoever compares spaces has it

        found["space"] = json.loads(json.dumps(SearchSpace.from_dict(found["space"]).to_dict()))
    if isinstance(found.get("controller"), dict) and "settings" in found["controller"]:
        found["controller"] = _over(found["controller"], {"settings": _settings(found["controller"])})
    return found


def differences(then: Mapping[str, Any], now: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted key and both values, wherever two fingerprints differ; `...` where one has no such key."""
    for key in [*now, *sorted(then.keys() - now.keys())]:
        one, other = then.get(key, ...), now.get(key, ...)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from differences(one, other, f"{at}{key}.")
        elif one != other:
            yield at + key, one, other


def text_in(fixed: Mapping[str, Any]) -> Any:
    """The digest of a model.config's text in a fingerprint, flat or by sections; `...` if it has none."""
    return fixed.get(OWN_MODEL[0], fixed.get("model", {}).get(TEXT, ...))


def changed_config(field: str, file: str, hint: str) -> InputError:
    """What is said of a config of the user's own, named by `field`, that no longer defines what it did."""
    defined = "the network that" if field == "model.config" else "what"
    changed = f"another: {file}, or a file it inherits from, has changed"
    return InputError(field, f"{defined} {file} defined when the run began", changed, hint)


def _usual(name: str, section: type) -> dict[str, Any]:
    """The keys of a section with the values that change nothing."""
    usual: dict[str, Any] = asdict(section())
    for key, value in BEFORE.items():
        head, _, leaf = key.rpartition(".")
        if head == name:
            usual[leaf] = value
    return usual


def _over(usual: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """`known`, and what only `usual` has."""
    both = {**usual, **known}
    nested = [key for key in usual if isinstance(usual[key], dict) and isinstance(both[key], dict)]
    return {**both, **{key: _over(usual[key], both[key]) for key in nested}}


def _settings(controller: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a controller of `autoseg.search`, those it did not have yet at their defaults."""
    from autoseg.controllers import settings_type

    usual = {field.name: field.default for field in fields(settings_type(controller["controller"]))}
    return {**usual, **controller["settings"]}  # dim has no default, and every run has it
