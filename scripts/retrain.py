"""`autoseg retrain` from a checkout or a cluster job: `torchrun --nproc-per-node=8 scripts/retrain.py loss=...`."""

from __future__ import annotations

import sys

from autoseg.cli import main

if __name__ == "__main__":
    sys.exit(main(["retrain", *sys.argv[1:]]))
