"""`autoseg report` from a checkout or a cluster job: render runs as one HTML file."""

from __future__ import annotations

import sys

from autoseg.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
