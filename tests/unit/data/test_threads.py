from __future__ import annotations

import threading
import time

import pytest

from autoseg.data.threads import in_threads


class Reader:
    """Squares; knows what it was asked."""

    def __init__(self, seconds: float = 0.0, fault: int = -1) -> None:
        self.seconds, self.fault = seconds, fault
        self.asked: list[int] = []

    def __call__(self, number: int) -> int:
        self.asked.append(number)
        time.sleep(self.seconds)
        if number == self.fault:
            raise OSError(f"number {number}")
        return number * number


def test_in_order_whatever_ends_first() -> None:
    assert list(in_threads(lambda k: (time.sleep(0.01 * (k % 3)), k * k)[1], range(100))) == [k * k for k in range(100)]
    assert list(in_threads(Reader(), [])) == []


def test_no_more_is_read_than_will_soon_be_wanted() -> None:
    reader = Reader()
    results = in_threads(reader, range(10_000))
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    time.sleep(0.2)
    assert len(reader.asked) < 60
    results.close()


def test_left_early_it_ends_at_once() -> None:
    reader, begun, before = Reader(seconds=0.05), time.monotonic(), threading.active_count()
    results = in_threads(reader, range(10_000))
    next(results)
    results.close()
    assert time.monotonic() - begun < 2 and len(reader.asked) < 60
    assert threading.active_count() <= before


def test_the_first_fault_in_order_is_raised() -> None:
    reader = Reader(fault=50)
    with pytest.raises(OSError, match="number 50"):
        list(in_threads(reader, range(10_000)))
    assert len(reader.asked) < 120
