"""Parses the arguments of a subcommand: argparse with our help texts and our errors."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from autoseg.errors import InputError
from autoseg.files import replacing

IMPORTS = "imports"
HYDRAS = ("config-dir", "config-path", "config-name", "hydra-help", "info", "package", "run", "resolve", "job")


def code_named(command: str, argv: Sequence[str], keys: Sequence[str] = (IMPORTS,)) -> tuple[dict[str, Any], list[str]]:
    """Split the arguments of a command without a configuration into the user's code and the rest.

    Args:
        command: the subcommand, for messages.
        argv: the arguments, which may include `imports=[my_metrics.py]`.
        keys: the keys that name code: `imports`, a list of names, and those of configs, a path each.

    Returns:
        The code by key, always with `imports`; the other arguments.

    Raises:
        InputError: not in Hydra's grammar, or `imports` is not a list of names.
    """
    words = [word for word in argv if "=" in word and word.partition("=")[0] in keys]
    named: dict[str, Any] = {IMPORTS: []}
    for word in words:
        from autoseg.cli.configuration.overrides import parse  # Hydra, for its grammar: only if there is something

        key, _, text = word.partition("=")
        value = parse(word, command).value()
        named[key] = str(value) if key != IMPORTS else [value] if isinstance(value, str) else value
        if key == IMPORTS and not (isinstance(named[key], list) and all(isinstance(name, str) for name in named[key])):
            raise InputError(IMPORTS, "a list like [my_metrics.py]", text)
    return named, [word for word in argv if word not in words]


class Arguments(argparse.ArgumentParser):
    """A parser whose help is the command's own text and whose errors are `InputError`s.

    Args:
        command: the subcommand, for messages.
        help_text: the text of `--help`, at most one screen.
    """

    def __init__(self, command: str, help_text: str) -> None:
        super().__init__(prog=f"autoseg {command}", allow_abbrev=False)
        self._help_text = help_text
        self._keyed: Sequence[str] = ()  # the arguments of a command whose settings are `key=value`

    def keys(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse the arguments of a command with a configuration: `words`, and `--cfg`, which calls for
        `print_configs`.
        """
        self._keyed = argv
        self.add_argument("--cfg", action="store_true")
        self.add_argument("words", nargs="*")
        given = self.parse_intermixed_args(argv)
        for place, word in enumerate(given.words):
            if word.startswith("="):  # metric = miou, which the shell takes apart
                key = given.words[place - 1] if place else "KEY"
                value = word[1:] or "".join(given.words[place + 1 : place + 2]) or "VALUE"
                hint = f'Write {key}={value}, without blanks around "=".'
                raise InputError("argument", "key=value", repr(word), hint)
        return given

    def format_help(self) -> str:
        """Return the command's own text."""
        return self._help_text.strip("\n") + "\n"

    def error(self, message: str) -> NoReturn:
        """Raise instead of leaving the process.

        Raises:
            InputError: always.
        """
        hint, command = f"Type {self.prog} --help.", self.prog.removeprefix("autoseg ")
        _, _, missing = message.partition("arguments are required: ")
        if missing:
            raise InputError(command, missing, "none", f"For example {self.prog} runs/NAME.")
        _, unknown, words = message.partition("unrecognized arguments: --")
        name, _, value = words.partition(" ")[0].partition("=")
        if unknown and self._keyed and name in HYDRAS:
            hint = f"Hydra's own options are not taken, but for a search's -m. {hint}"
        elif unknown and self._keyed:  # --metric miou, as other programs have it
            after = self._keyed[list(self._keyed).index(f"--{name}") + 1 :][:1] if f"--{name}" in self._keyed else ()
            apart = "".join(word for word in after if not word.startswith("-"))
            plain = f"{name.replace('-', '_')}={value or apart or 'VALUE'}"
            got = f"--{name}={value}" if value else f"--{name} {apart}".rstrip()
            raise InputError(command, f"keys without dashes, {plain}", got, hint)
        raise InputError(command, "arguments as in its --help", message, hint)


def print_configs(command: str, *configs: Any) -> int:
    """Print configurations, once everything they name is known to exist; return the exit status.

    Raises:
        InputError: the command would refuse one of them.
    """
    from autoseg.cli.configuration import stored

    for config in configs:
        importlib.import_module(f"autoseg.cli.jobs.{command}").resolve_names(config)
    print("---\n".join(stored.as_yaml(config) for config in configs), end="")
    return 0


def output_file(given: str | None, default: Path) -> Path:
    """Return the file that -o names: the default one without -o, and in a folder the one of the default's name.

    Raises:
        InputError: it is in a folder that does not exist.
    """
    if given is None:
        return default
    target = Path(given).expanduser()
    if target.is_dir() or given.endswith("/"):
        target /= default.name
    if not target.parent.is_dir():
        raise InputError("-o", "a file in an existing folder", str(target))
    return target


def write_output(path: Path, content: str | bytes) -> None:
    """Write the file that -o names, or the default file.

    Raises:
        InputError: it cannot be written, for any reason.
    """
    try:
        with replacing(path) as draft:
            draft.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        got = f"{path} ({error.strerror})"
        raise InputError("-o", "a file that can be written", got, "Name another file with -o.") from error
