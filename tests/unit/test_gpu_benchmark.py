"""The rows of the GPU benchmark, taken here on the CPU, tiny; and what is run on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_losses, losses

SHAPE = (1, 21, 32, 32)
SCRIPT = Path(gpu_losses.__file__).parent.parent / "scripts" / "on_a_gpu.sh"


def test_its_rows():
    rows = list(gpu_losses.rows("cpu", SHAPE, repeats=1))
    assert [row.what for row in rows if row.target] == ["miou, Triton"]
    assert len(rows) == 9 and all(row.ours > 0 and row.theirs > 0 and row.ratio > 0 for row in rows)


def test_a_row_that_cannot_be_taken_is_no_loss_to_the_others(monkeypatch, capsys):
    def build(name, build=losses.build, **options):
        loss = build(name, **options)
        if name == "dice":
            loss.register_forward_pre_hook(lambda *_: 1 / 0)
        return loss

    monkeypatch.setattr(losses, "build", build)
    assert len(list(gpu_losses.rows("cpu", SHAPE, repeats=1))) == 8
    assert capsys.readouterr().out == "dice, Triton: not measured, ZeroDivisionError: division by zero\n"


@pytest.mark.parametrize("last", [False, True])
def test_every_row_has_the_same_batch_and_none_that_of_another(last):
    logits, labels = losses.batch(SHAPE)
    (first, _), (second, its_labels) = (gpu_losses.batch("cpu", SHAPE, last) for _ in range(2))
    assert torch.equal(second, logits.bfloat16()) and torch.equal(its_labels, labels)
    assert second.is_contiguous(memory_format=torch.channels_last) == last
    assert first.is_leaf and first.data_ptr() != second.data_ptr()


def test_kernels_that_compute_something_else_are_not_timed():
    value, grad = torch.tensor(0.5), torch.randn(16, 21, 64, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    beside_a_knot = grad.clone()
    beside_a_knot[3, 4, 5, 6] += 1
    gpu_losses.check_same(value, beside_a_knot, value, grad)
    gpu_losses.check_same(value, grad * 1.004, value, grad)
    tile, nan = grad.clone(), grad.clone()
    tile[3, :, 5, 32:] = 0
    nan[3, :, 5, :] = torch.nan
    for wrong in ((value, tile), (value, nan), (value + 1e-4, grad), (value * torch.nan, grad)):
        with pytest.raises(RuntimeError, match="not the usual values"):
            gpu_losses.check_same(*wrong, value, grad)


def test_without_python_named_its_own_is_looked_for(tmp_path):
    """As users call it; a machine that lacks something is told what, before anything else."""
    (tmp_path / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    (tmp_path / "python3").chmod(0o755)
    path = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    path.pop("PYTHON", None)
    done = subprocess.run(["bash", SCRIPT, tmp_path / "out"], capture_output=True, text=True, env=path)
    assert done.returncode == 2 and "python3 lacks the modules: torch triton pytest" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("part", ["several", "several:", "several:0", ":60"])
def test_a_part_without_seconds_is_refused_before_anything_runs(part, tmp_path):
    done = subprocess.run(["bash", SCRIPT, tmp_path / "out", "cost:60", part], capture_output=True, text=True)
    assert done.returncode == 2 and f"'{part}' is no PART:SECONDS" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_its_rows_on_a_gpu(monkeypatch):
    monkeypatch.setattr(gpu_losses, "TRAINED", ((1, 21, 64, 64), (1, 150, 64, 64)))
    rows = list(gpu_losses.rows(shape=(1, 21, 64, 64), repeats=1))
    assert {"cross-entropy, peak extra memory", "miou, Triton, peak extra memory"} <= {row.what for row in rows}
    assert len(rows) == 26  # else it has printed why
