"""`autoseg trust` from a checkout or a cluster job: does the proxy rank losses as a fuller training does?"""

from __future__ import annotations

import sys

from autoseg.cli import main

if __name__ == "__main__":
    sys.exit(main(["trust", *sys.argv[1:]]))
