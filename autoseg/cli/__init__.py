"""The console command `autoseg`: finds the subcommand, runs it, turns errors into exit statuses.

* one module per command, `search` to `doctor`, with `HELP` and `run(command, argv) -> int`; `arguments` parses their
  arguments, `prestart` starts workers before anything heavy is imported, `faults` prints the message of a failure;
* `configuration`: turns those arguments, or a stored run, into a checked configuration;
* `jobs`: runs that configuration, for the commands that train.

Nothing heavy is imported here, and a command's module only when it is called, so that `autoseg --help` answers at once.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Sequence

import autoseg
from autoseg.cli import faults
from autoseg.errors import InputError, did_you_mean

COMMANDS = {  # in the order of a project: search, watch, export, train, judge
    "search": ("autoseg.cli.search", "search a loss for a metric"),
    "watch": ("autoseg.cli.watch", "follow a run from another terminal or machine"),
    "export": ("autoseg.cli.export", "write a found loss as a card, a config, plain Python or a program"),
    "retrain": ("autoseg.cli.retrain", "train a full model with a loss, through mmengine"),
    "compare": ("autoseg.cli.compare", "train losses under one budget with several seeds, and say who is better"),
    "trust": ("autoseg.cli.trust", "say whether the proxy ranks losses as a fuller training does"),
    "report": ("autoseg.cli.report", "render searches and comparisons as one HTML file"),
    "metrics": ("autoseg.cli.lists", "list the metrics a loss can be searched for"),
    "losses": ("autoseg.cli.lists", "list the losses that are known by name"),
    "spaces": ("autoseg.cli.lists", "list the search spaces"),
    "doctor": ("autoseg.cli.doctor", "check versions, devices and data folders; say what is missing"),
}


def help_text() -> str:
    """Return the text of `autoseg --help`: one screen with an example that works on any machine."""
    lines = [f"  {name:<9}{summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "autoseg searches a differentiable surrogate loss for a segmentation metric.",
            "",
            "usage: autoseg COMMAND [ARGUMENTS]    autoseg COMMAND --help",
            "",
            *lines,
            "",
            "A whole small search on built-in data, under a minute, then the loss as one Python file:",
            "  autoseg search experiment=smoke",
            "  autoseg export runs/NAME --format python -o found_loss.py",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: the arguments after the program's name; default: those of this process.

    Returns:
        0 done, 1 an error in autoseg, 2 the user's input is wrong, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _make_printable()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"autoseg {autoseg.__version__}")
        return 0
    command, *rest = arguments
    try:
        _check_folder()
        if command not in COMMANDS:
            hint = f"{did_you_mean(command, COMMANDS, cutoff=0.6)} Type autoseg --help.".strip()
            raise InputError("command", "one of " + ", ".join(COMMANDS), repr(command), hint)
        module = importlib.import_module(COMMANDS[command][0])
        status: int = module.run(command, rest)
        sys.stdout.flush()
        return status
    except SystemExit as leaving:  # argparse, once it has printed the help
        return int(leaving.code or 0)
    except (Exception, KeyboardInterrupt) as error:
        return faults.report(error)


def _check_folder() -> None:
    """Raise `InputError` if the current folder has been deleted: every relative path would fail, none saying why."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        hint = "Another program has deleted it: cd to another."
        raise InputError("the current folder", "one that exists", "one that was deleted", hint) from error


def _make_printable() -> None:
    """Let no result be lost because it cannot be printed: a terminal may know no "±", or there may be none."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace" if name == "stdout" else "backslashreplace")
