"""Files read in threads: in order, and no further ahead than memory allows."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Given = TypeVar("Given")
Read = TypeVar("Read")

AHEAD = 4  # for each thread, so many are read before they are wanted


def in_threads(read: Callable[[Given], Read], what: Iterable[Given]) -> Generator[Read, None, None]:
    """`read` of each, in their order.

    `ThreadPoolExecutor.map` would begin with all of them at once: where reading is faster than what is done with it, a
    data set would pile up in memory.

    Args:
        read: called in threads, up to eight at a time.
        what: is read; consumed as it goes.
    """
    threads = min(8, os.cpu_count() or 1)
    rest = iter(what)
    with ThreadPoolExecutor(threads) as pool:
        begun: deque[Future[Read]] = deque(pool.submit(read, one) for one in islice(rest, AHEAD * threads))
        try:
            while begun:
                result = begun.popleft().result()
                begun.extend(pool.submit(read, one) for one in islice(rest, 1))
                yield result
        finally:  # nobody wants the rest: after an error, or Ctrl-C
            pool.shutdown(wait=False, cancel_futures=True)
