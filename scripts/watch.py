"""`autoseg watch` from a checkout: follow a run from another terminal or machine, without disturbing it."""

from __future__ import annotations

import sys

from autoseg.cli import main

if __name__ == "__main__":
    sys.exit(main(["watch", *sys.argv[1:]]))
