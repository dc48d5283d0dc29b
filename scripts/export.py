"""`autoseg export` from a checkout or a cluster job: write a found loss in a form other programs take."""

from __future__ import annotations

import sys

from autoseg.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
