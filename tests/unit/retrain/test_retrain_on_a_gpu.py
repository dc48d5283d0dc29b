"""A full training on an imitated GPU: mmengine puts network and batches there, and what is ours follows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from imitated_gpu import imitated

from autoseg.cli import main


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["camvid/miou", "0.5*boundary+0.5*ce"])
def test_a_full_training(loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With AMP, an average of the weights, and a loss with extra inputs, which come with the batches."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mmengine.device.utils.DEVICE", "cuda")  # found when it was imported
    words = [f"loss={loss}", "data.count=[6,2,2]", "train.iters=2", "train.batch_size=2", "train.crop=[64,64]"]
    with imitated(monkeypatch) as gpu:
        assert main(["retrain", *words, "train.ema=0.1", "run_dir=out", "device=cuda"]) == 0
    assert gpu.made > 1000
    assert json.loads(Path("out/scores.json").read_text())["scores"].keys() == {"val", "test"}
