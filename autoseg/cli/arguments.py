"""Arguments of a subcommand: argparse with our help texts and our errors."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from autoseg.errors import InputError

IMPORTS = "imports"


def imports_in(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """What `imports=[my_metrics.py]` names, and the other words, of a command that takes no other key.

    Raises:
        InputError: not a list of names.
    """
    words = [word for word in argv if word.startswith(f"{IMPORTS}=")]
    if not words:
        return [], list(argv)
    from autoseg.cli.configuration.compose import value_of  # Hydra, for its grammar: only if there is something to read

    value = value_of(words[-1])
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(IMPORTS, "a list like [my_metrics.py]", words[-1].partition("=")[2])
    return names, [word for word in argv if word not in words]


class Arguments(argparse.ArgumentParser):
    """A parser whose help is the command's own text and whose errors are `InputError`s.

    Args:
        command: the subcommand, for messages.
        help_text: what `--help` prints, at most one screen.
    """

    def __init__(self, command: str, help_text: str) -> None:
        super().__init__(prog=f"autoseg {command}", allow_abbrev=False)
        self._help_text = help_text

    def format_help(self) -> str:
        """The command's own text."""
        return self._help_text.strip("\n") + "\n"

    def error(self, message: str) -> NoReturn:
        """Raise instead of leaving the process.

        Raises:
            InputError: always.
        """
        raise InputError(self.prog, "arguments as in its --help", message, f"Type {self.prog} --help.")
