"""What `autoseg watch` says of a search that has ended, and to a reader that has gone."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import autoseg
from autoseg.cli import main

PROGRAM = Path(sys.executable).with_name("autoseg")


@pytest.mark.parametrize("ahead", [True, False])
def test_of_a_search_that_has_ended_it_says_whether_a_rival_is_ahead(
    tmp_path: Path, ahead: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(loss: nn.Module, seed: int, device: str) -> float:
        score = 0.5 + seed % 7 / 100
        return score + 0.2 if (type(loss).__name__ == "CrossEntropy") == ahead else score

    settings: dict[str, Any] = {"rounds": 1, "candidates": 2, "confirm_top": 1, "confirm_seeds": 2, "rivals": ["ce"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a rival is better
        autoseg.search("miou", train=train, num_classes=2, inline=True, run_dir=tmp_path / "run", **settings)
    capsys.readouterr()  # the search itself
    assert main(["watch", str(tmp_path / "run"), "--once"]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.endswith("/run, 1 round")
    assert last.startswith("The best loss found is behind ce for miou: ") == ahead
    assert ("loss.json" in last) == (not ahead)


def test_a_reader_that_has_gone_is_no_run_that_has_stopped(tmp_path: Path) -> None:
    """`autoseg watch RUN --once | head -1`: status 1 says that the run has stopped."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([PROGRAM, "watch", tmp_path, "--once"], stdout=write, stderr=subprocess.PIPE, timeout=60)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
