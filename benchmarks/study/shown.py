"""The command line of a study's table: `python -m benchmarks.study.NAME [FILE …]`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path


def show(about: str | None, usual: Path, table: Callable[..., str], several: bool = False) -> None:
    """Print the table of a file of recorded trainings, or of several; by default that of the files kept here."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="*", type=Path, default=[usual], metavar="FILE")
    files = parser.parse_args().file
    if len(files) > 1 and not several:
        parser.error("one FILE")
    print(table(*files))
