"""The GPU benchmark says that there is no GPU and leaves nothing; its rows are taken here on the CPU, tiny."""

from __future__ import annotations

import pytest
import torch

from benchmarks import gpu_losses, harness, run


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_keeps_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    monkeypatch.setattr("sys.argv", ["run", "gpu_losses"])
    run.main()
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "no GPU" in said
    assert not list(tmp_path.iterdir())


def test_its_rows():
    rows = gpu_losses.rows("cpu", (1, 21, 32, 32), repeats=1)
    assert [row.what for row in rows if row.target] == ["miou, Triton"]
    assert len(rows) == 9 and all(row.ours > 0 and row.theirs > 0 and row.ratio > 0 for row in rows)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_its_rows_on_a_gpu():
    rows = gpu_losses.rows(shape=(1, 21, 64, 64), repeats=1)
    assert {"cross-entropy, peak extra memory", "miou, Triton, peak extra memory"} <= {row.what for row in rows}
