"""A training outlives who reads what it prints, and ends in good order with its terminal."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoseg.cli import main, search
from autoseg.cli.outlasting import ENDINGS, outlasting
from autoseg.config import SearchConfig


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {kind: signal.getsignal(kind) for kind in ENDINGS}
    yield
    for kind, handler in before.items():
        signal.signal(kind, handler)


@pytest.mark.usefixtures("handlers")
def test_a_reader_that_has_gone_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with outlasting():
            print("nobody reads this", flush=True)
            print("nor this", flush=True)
        assert sys.stdout is pipe
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("handlers")
def test_a_sweep_goes_on_without_its_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = []
    monkeypatch.setattr(search.prestart, "job", lambda *given: searched.append(given) or 0)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert search._sweep("search", ["metric=miou", "metric=gacc"], [SearchConfig(), SearchConfig()]) == 0
    assert len(searched) == 2


@pytest.mark.usefixtures("handlers")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a file on a full disk")
def test_a_log_on_a_full_disk_is_left_with_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with outlasting():
            for _ in range(3):
                print("there is no room for this", flush=True)
    said = capsys.readouterr().err
    assert said.count("standard output cannot be written") == 1 and "No space left" in said


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("kind", ENDINGS)
def test_a_stopped_job_and_a_closed_session_end_as_ctrl_c_does(kind: signal.Signals) -> None:
    signal.signal(kind, signal.SIG_DFL)
    with pytest.raises(KeyboardInterrupt), outlasting():
        signal.raise_signal(kind)


@pytest.mark.usefixtures("handlers")
def test_what_nohup_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with outlasting():
        signal.raise_signal(signal.SIGHUP)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a file on a full disk")
def test_a_list_that_cannot_be_written_is_no_search_to_go_on_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["spaces"]) == 2
    said = capsys.readouterr().err
    assert said.count("autoseg: standard output cannot be written: [Errno 28]") == 1 and "resume" not in said
