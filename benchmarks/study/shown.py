"""The command line of a study's table: `python -m benchmarks.study.NAME [FILE]`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path


def show(about: str | None, usual: Path, table: Callable[[Path], str]) -> None:
    """Print the table of a file of recorded trainings, by default that of the files kept here."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=usual, metavar="FILE")
    print(table(parser.parse_args().file))
