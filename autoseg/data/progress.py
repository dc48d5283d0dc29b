"""Lines on standard error for a user who waits until every image of a data set has been read."""

from __future__ import annotations

import sys
import time

QUIET_S = 10.0  # what takes longer says every so often how far it is


class Progress:
    """Counts images.

    Args:
        doing: what is done, as the lines begin.
        total: how many images there are.
    """

    def __init__(self, doing: str, total: int) -> None:
        self._doing, self._total, self._count = doing, total, 0
        self._next = time.monotonic() + QUIET_S

    def step(self) -> None:
        """One more image is done."""
        self._count += 1
        if time.monotonic() >= self._next:
            print(f"{self._doing}: {self._count:,} of {self._total:,}", file=sys.stderr, flush=True)
            self._next = time.monotonic() + QUIET_S
