"""`autoseg doctor` from a checkout or a cluster job: check versions, devices and data folders; say what is missing."""

from __future__ import annotations

import sys

from autoseg.cli import main

if __name__ == "__main__":
    sys.exit(main(["doctor", *sys.argv[1:]]))
