"""`autoseg report`: renders runs as one HTML file that opens anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoseg.cli.arguments import IMPORTS, Arguments, code_named, output_file, write_output
from autoseg.errors import InputError
from autoseg.imports import import_modules
from autoseg.mmconfigs import OF_A_REPORT
from autoseg.store.run_files import read_config

HELP = """
Renders searches and comparisons as one self-contained HTML file, for a laptop or a phone.

usage: autoseg report RUN [RUN ...] [-o FILE] [--force] [imports=[FILE.py]]

  RUN        the run folder of a search or of a comparison, finished or not
  imports=   files of your own metrics and losses that the runs were made with
  -o FILE    where to, or a folder; default: report.html in the run folder, for several runs here
  --force    also for runs of different budgets, whose scores cannot be compared

The file needs no network. Runs are read only: one that is under way is not disturbed.

A search; a search beside the comparison that judged its loss:
  autoseg report runs/NAME
  autoseg report runs/NAME runs/compare-NAME -o report.html
"""

NAME = "report.html"


def run(command: str, argv: list[str]) -> int:
    """Write the file and print where it is."""
    parser = Arguments(command, HELP)
    parser.add_argument("runs", metavar="RUN", nargs="+")
    parser.add_argument("-o", dest="file")
    parser.add_argument("--force", action="store_true")
    named, words = code_named(command, argv, (IMPORTS, *OF_A_REPORT))
    given = parser.parse_intermixed_args(words)
    paths = [Path(text).expanduser() for text in given.runs]
    target = _target(given.file, paths)

    from autoseg.cli.configuration.named_code import require
    from autoseg.cli.configuration.repeat import command_for  # torch, Hydra: only once the arguments are right
    from autoseg.evidence.report.page import report
    from autoseg.evidence.report.read import open_runs

    for path in paths:
        require(read_config(path, "RUN"), named, path, OF_A_REPORT)
    import_modules(named[IMPORTS])
    runs = open_runs(paths, force=given.force)
    text = report(runs, [command_for(run.config, run.path) for run in runs])
    content = text.encode(errors="replace")  # names may contain lone surrogates
    write_output(target, content)
    for one in runs:
        if not one.finished:
            print(f"note: {one.path} is not finished; the report says so.")
    print(f"wrote {target} ({len(content) / 1e6:.1f} MB)")
    return 0


def _target(file: str | None, paths: Sequence[Path]) -> Path:
    """Return the path of the report.

    Raises:
        InputError: it is in a folder that does not exist, or a RUN is not a folder.
    """
    for path in paths:
        if not path.is_dir():
            got = f"{path}, which {'is a file' if path.exists() else 'does not exist'}"
            raise InputError("RUN", "a run folder", got)
    return output_file(file, paths[0] / NAME if len(paths) == 1 else Path(NAME))
