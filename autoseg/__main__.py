"""Runs the commands as `python -m autoseg search ...`, where the `autoseg` script is not installed."""

from __future__ import annotations

import sys

from autoseg.cli import main

if __name__ == "__main__":
    sys.exit(main())
