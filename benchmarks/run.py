"""`python -m benchmarks.run [NAME ...]`: takes the figures, prints a table each, keeps them as JSON in `results/`.

Each figure is printed and kept as soon as it is taken, so that what a run has come to outlives it.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from pathlib import Path

import benchmarks
from benchmarks import harness

NOT_MEASURED = {"harness", "run", "start", "table"}


def names() -> list[str]:
    """Modules of this folder that have a `rows()`."""
    modules = pkgutil.iter_modules(benchmarks.__path__)
    return sorted(m.name for m in modules if not m.ispkg and m.name not in NOT_MEASURED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"default: all of {', '.join(names())}")
    parser.add_argument("--out", type=Path, default=harness.RESULTS, help="folder of the JSON files")
    given = parser.parse_args()
    for name in given.names or names():
        take(name, given.out)


def take(name: str, folder: Path) -> None:
    """One benchmark's figures."""
    module = importlib.import_module(f"benchmarks.{name}")
    taken: list[harness.Row] = []
    for row in module.rows():
        taken.append(row)
        path = harness.save(name, taken, getattr(module, "DEVICE", "cpu"), folder)
        print(harness.table([row]).splitlines()[-1], flush=True)
    if taken:  # else it has said why
        print(f"\n## {name}\n{module.__doc__}\n{harness.table(taken)}\nkept in {path}", flush=True)


if __name__ == "__main__":
    main()
