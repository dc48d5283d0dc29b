"""`python -m benchmarks.run [NAME ...]`: takes the figures, prints a table each, keeps them as JSON in `results/`."""

from __future__ import annotations

import argparse
import importlib
import pkgutil

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
    for name in parser.parse_args().names or names():
        module = importlib.import_module(f"benchmarks.{name}")
        rows = module.rows()
        if not rows:
            continue  # it has said why
        path = harness.save(name, rows, getattr(module, "DEVICE", "cpu"))
        print(f"\n## {name}\n{module.__doc__}\n{harness.table(rows)}\nkept in {path}", flush=True)


if __name__ == "__main__":
    main()
