"""Arguments of a subcommand: argparse with our help texts and our errors."""

from __future__ import annotations

import argparse
from typing import NoReturn

from autoseg.errors import InputError


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
