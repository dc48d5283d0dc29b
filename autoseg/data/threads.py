"""Reads files in threads: in order, and no further ahead than memory allows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from autoseg.machine import cpu_cores

Given = TypeVar("Given")
Read = TypeVar("Read")

AHEAD = 4  # number of items that are read ahead for each thread


def in_threads(read: Callable[[Given], Read], what: Iterable[Given]) -> Generator[Read, None, None]:
    """Yield the result of `read` for each item, in order.

    `ThreadPoolExecutor.map` would start all of them at once: if reading is faster than the use of the results, a
    data set would pile up in memory.

    Args:
        read: called in threads, up to eight at a time.
        what: the items; consumed gradually.
    """
    threads = min(8, cpu_cores())
    rest = iter(what)
    with ThreadPoolExecutor(threads) as pool:
        begun: deque[Future[Read]] = deque(pool.submit(read, one) for one in islice(rest, AHEAD * threads))
        try:
            while begun:
                result = begun.popleft().result()
                begun.extend(pool.submit(read, one) for one in islice(rest, 1))
                yield result
        finally:  # after an error or Ctrl-C the rest is not needed
            pool.shutdown(wait=False, cancel_futures=True)
