"""A full training on an imitated GPU: mmengine puts network and batches there, and what is ours follows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from imitated_gpu import imitated

from autoseg.cli import main


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [["loss=camvid/miou"], ["loss=0.5*boundary+0.5*ce"], ["loss=jml", "train.labels=distill", "train.amp=bf16"]],
)
def test_a_full_training(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With AMP, an average of the weights, a loss with extra inputs, which come with the batches, and a teacher."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mmengine.device.utils.DEVICE", "cuda")  # found when it was imported
    small = ["data.count=[6,2,2]", "train.iters=2", "train.batch_size=2", "train.crop=[64,64]", "device=cuda"]
    with imitated(monkeypatch) as gpu:
        if "train.labels=distill" in words:
            assert main(["retrain", "loss=ce", *small, "run_dir=teacher"]) == 0
            words.append("train.soft.teacher=teacher")
        assert main(["retrain", *words, *small, "train.ema=0.1", "run_dir=out"]) == 0
    assert gpu.made > 1000
    assert json.loads(Path("out/scores.json").read_text())["scores"].keys() == {"val", "test"}
