"""`autoseg search` from a checkout or a cluster job: search a loss for a metric."""

from __future__ import annotations

import sys

from autoseg.cli import main

if __name__ == "__main__":
    sys.exit(main(["search", *sys.argv[1:]]))
