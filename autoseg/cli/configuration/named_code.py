"""Code that a run was made with: modules of its user's own and configs of mmengine's.

A run folder says as text what it was made with, and may come from anybody. Reading one never executes code: whoever
goes on with it names that code again, on the command line. Configs that mmsegmentation ships are code too, and trusted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoseg.cli.configuration.overrides import and_imports, typed
from autoseg.errors import InputError
from autoseg.mmconfigs import shipped

CONFIGS = ("config", "model.config", "data.mmseg_config")  # keys that take files of Python


def own_configs(config: Any, keys: Sequence[str] = CONFIGS) -> dict[str, str]:
    """The configs that a configuration names and mmsegmentation does not ship, by their keys."""
    named = {key: at(config, key) for key in keys}
    return {key: file for key, file in named.items() if isinstance(file, str) and shipped(file) is None}


def again(config: Any) -> str:
    """What goes to the end of a command that goes on with a run of this configuration; empty for no such code."""
    return and_imports(config.imports) + "".join(f" {typed(key, file)}" for key, file in own_configs(config).items())


def require(config: Any, named: Mapping[str, Any], where: object, keys: Sequence[str] = CONFIGS) -> None:
    """Refuse a run that was made with code of its user that is not named now.

    Args:
        config: as it was read from the run, typed or plain.
        named: what the command line says, by keys. Files of `imports` may have moved; what they define is compared.
        where: the run.
        keys: of the configs that will be read.

    Raises:
        InputError: the run names code, and the command line none, or another config.
    """
    require_imports(at(config, "imports"), named.get("imports"), where)
    for key, file in own_configs(config, keys).items():
        if not named.get(key):
            raise _missing(key, file, typed(key, file), where)
        if Path(named[key]).expanduser().resolve() != Path(file).expanduser().resolve():
            raise InputError(key, f"{file}, with which {where} was begun", named[key])


def require_imports(recorded: Any, named: Any, where: object) -> None:
    """The same for modules alone, of a command that has nothing to do with configs; `recorded` as in the run's file.

    Raises:
        InputError: some are recorded and none is named.
    """
    if recorded and not named:
        recorded = list(map(str, recorded)) if isinstance(recorded, list) else [str(recorded)]
        raise _missing("imports", f"[{','.join(recorded)}]", and_imports(recorded).strip(), where)


def configs_in(overrides: list[str]) -> tuple[dict[str, str], list[str]]:
    """The configs that overrides name, by their keys, and the other overrides, for a command without such keys.

    Raises:
        InputError: not in Hydra's grammar.
    """
    from autoseg.cli.configuration.compose import value_of

    words = {text: text.partition("=")[0] for text in overrides if text.partition("=")[0] in CONFIGS}
    return {key: str(value_of(text)) for text, key in words.items()}, [text for text in overrides if text not in words]


def _missing(key: str, code: str, words: str, where: object) -> InputError:
    hint = f"It is code, and only what you name is executed: look at it, then add {words} to the command."
    return InputError(key, f"{code}, with which {where} was begun", "none", hint)


def at(config: Any, key: str) -> Any:
    """The value of a dotted key, in a configuration that is typed or plain; None if there is no such key."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else getattr(config, part, None)
    return config
