"""The rows of the GPU benchmark, taken here on the CPU, tiny."""

from __future__ import annotations

import pytest
import torch

from benchmarks import gpu_losses


def test_its_rows():
    rows = list(gpu_losses.rows("cpu", (1, 21, 32, 32), repeats=1))
    assert [row.what for row in rows if row.target] == ["miou, Triton"]
    assert len(rows) == 9 and all(row.ours > 0 and row.theirs > 0 and row.ratio > 0 for row in rows)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_its_rows_on_a_gpu():
    rows = list(gpu_losses.rows(shape=(1, 21, 64, 64), repeats=1))
    assert {"cross-entropy, peak extra memory", "miou, Triton, peak extra memory"} <= {row.what for row in rows}
