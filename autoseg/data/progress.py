"""Prints progress to standard error while every image of a data set is read."""

from __future__ import annotations

import sys
import time

QUIET_S = 10.0  # seconds without a line, then a line at each such interval


class Progress:
    """Counts images and prints the progress.

    Args:
        doing: what is done; the lines begin with it.
        total: number of images.
    """

    def __init__(self, doing: str, total: int) -> None:
        self._doing, self._total, self._count = doing, total, 0
        self._next = time.monotonic() + QUIET_S

    def step(self) -> None:
        """Count one more image."""
        self._count += 1
        if time.monotonic() >= self._next:
            print(f"{self._doing}: {self._count:,} of {self._total:,}", file=sys.stderr, flush=True)
            self._next = time.monotonic() + QUIET_S
