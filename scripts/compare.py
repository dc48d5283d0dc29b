"""`autoseg compare` from a checkout or a cluster job: train losses under one budget and say who is better."""

from __future__ import annotations

import sys

from autoseg.cli import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
