"""Checkpoints as mmengine writes them are read; nothing in a file is ever executed."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from yaml.constructor import ConstructorError

from autoseg.errors import InputError
from autoseg.training import checkpoint
from autoseg.training.checkpoint import last_checkpoint


def test_what_mmengine_writes_is_read(tmp_path: Path) -> None:
    curve = HistoryBuffer([1.0, 2.0], [1, 1])
    content = {
        "meta": {"iter": 3, "cfg": "a = 1"},
        "state_dict": {"weight": torch.ones(2)},
        "message_hub": {"log_scalars": {"train/loss": curve}, "runtime_info": {"best": np.float64(0.5)}},
    }
    torch.save(content, tmp_path / "a.pth")
    found = checkpoint.read_checkpoint(tmp_path / "a.pth")
    assert found["message_hub"]["log_scalars"]["train/loss"].mean() == 1.5
    assert found["message_hub"]["runtime_info"]["best"] == 0.5
    assert torch.equal(found["state_dict"]["weight"], torch.ones(2))


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.parts = function, arguments

    def __reduce__(self) -> Any:
        return self.parts


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": {}, "meta": Call(os.mkdir, "executed")},
        {"state_dict": {}, "meta": Call(getattr, HistoryBuffer, "__init__")},
        {"state_dict": {}, "meta": Call(getattr, np.ndarray, "tofile")},
        [1, 2],
    ],
)
def test_anything_else_is_refused_and_not_executed(content: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "bad.pth")
    with pytest.raises(InputError, match=r"checkpoint: expected"):
        checkpoint.read_checkpoint("bad.pth")
    assert os.listdir(tmp_path) == ["bad.pth"]


def test_mmengine_reads_through_us(tmp_path: Path) -> None:
    from mmengine import dump, load
    from mmengine.runner import CheckpointLoader

    checkpoint.guard()
    call, executed = Call(os.mkdir, str(tmp_path / "executed")), tmp_path / "executed"
    torch.save({"state_dict": {}, "meta": call}, tmp_path / "bad.pth")
    with pytest.raises(InputError, match="could run code"):
        CheckpointLoader.load_checkpoint(str(tmp_path / "bad.pth"))
    dump(call, tmp_path / "bad.pkl")
    with pytest.raises(InputError, match=r"plain data, got a pickle\. .* Save it as JSON"):
        load(tmp_path / "bad.pkl")
    (tmp_path / "bad.yaml").write_text(f"a: !!python/object/apply:os.mkdir ['{executed}']")
    with pytest.raises(ConstructorError):
        load(tmp_path / "bad.yaml")
    dump({"a": [1, 2]}, tmp_path / "good.yml")
    assert load(tmp_path / "good.yml") == {"a": [1, 2]} and not executed.exists()
    for address in (
        "https://x/y.pth",
        "open-mmlab://resnet50_v1c",
        "torchvision://resnet50",
        "s3://x/y.pth",
        "pavi://x",
    ):
        with pytest.raises(InputError, match="Nothing is downloaded"):
            CheckpointLoader.load_checkpoint(address)
    for address in ("http://127.0.0.1:9/a.json", "s3://a/b.json"):
        with pytest.raises(InputError, match="Nothing is downloaded"):
            load(address)


def test_what_mmengine_does_by_a_checkpoint_stays_in_its_folder(tmp_path: Path) -> None:
    """It runs `meta.config` as Python, and removes older checkpoints by their names."""
    info = {"keep_ckpt_ids": [2, "x/../../other/best", 4], "best_ckpt": "/elsewhere/best_miou_iter_2.pth", "iter": 4}
    content = {"state_dict": {}, "meta": {"config": "1 / 0", "iter": 4}, "message_hub": {"runtime_info": info}}
    torch.save(content, tmp_path / "iter_4.pth")
    found = checkpoint.load_from_local(str(tmp_path / "iter_4.pth"))
    assert found["meta"] == {"iter": 4}
    best = str(tmp_path / "best_miou_iter_2.pth")
    assert found["message_hub"]["runtime_info"] == {"keep_ckpt_ids": [2, 4], "best_ckpt": best, "iter": 4}
    for name in ("x/..", "", "/", "iter_4.pth", ["a"]):
        info = {"keep_ckpt_ids": 5, "best_ckpt_miou": name}
        torch.save({**content, "message_hub": {"runtime_info": info}}, tmp_path / "a.pth")
        found = checkpoint.load_from_local(str(tmp_path / "a.pth"))["message_hub"]["runtime_info"]
        assert found == {"keep_ckpt_ids": [], "best_ckpt_miou": None}


def test_a_compressed_file_of_weights_is_refused(tmp_path: Path) -> None:
    torch.save(torch.zeros(1000), tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as plain, zipfile.ZipFile(tmp_path / "b.pth", "w", 8) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(InputError, match="which is compressed"):
        checkpoint.read_pth(tmp_path / "b.pth", "model.weights")


def test_a_damaged_file_of_weights_is_one_message(tmp_path: Path) -> None:
    """Its end says that it is a zip file, and its list of contents is not one."""
    torch.save(torch.zeros(1000), tmp_path / "a.pth")
    content = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(content.replace(b"PK\x01\x02", b"????"))
    with pytest.raises(InputError, match=r"weights and plain data, got .*a\.pth \(damaged or not complete\)"):
        checkpoint.read_pth(tmp_path / "a.pth", "model.weights")


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="which has none"):
        last_checkpoint(tmp_path)
