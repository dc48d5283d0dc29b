"""`autoseg retrain` as a user runs it: a whole training, resumed, on two ranks, with bad input."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import autoseg
from autoseg.cli import main
from autoseg.cli.configuration.compose import compose
from autoseg.config import SearchConfig
from autoseg.store.run_folder import locked
from autoseg.training import build_model
from autoseg.training.weights import load_network

BIN = Path(sys.executable).parent
SMALL = ["data.count=[12,4,2]", "train.batch_size=4", "train.crop=[96,96]", "metrics=[miou,biou]", "device=cpu"]
# Nothing random but the order of the images and the first weights, and no statistics over a rank's batch.
EXACT = [
    "train.ratio=[1,1]", "train.flip=false", "train.photometric=false", "train.lr=0.05", "split=val",
    "model.overrides.backbone.norm_cfg={type:GN,num_groups:4}",
    "model.overrides.decode_head.norm_cfg={type:GN,num_groups:4}",
]  # fmt: skip


def retrain(*words: str) -> int:
    return main(["retrain", *words])


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    from autoseg.training.checkpoint import read_checkpoint

    return read_checkpoint(folder / name)["state_dict"]


@pytest.mark.slow
def test_a_training_leaves_a_work_dir_goes_on_and_refuses_what_is_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "a run (1)"  # no name that a sum of losses may have as it is
    autoseg.save_loss(autoseg.load_loss("asl2021/miou", 7), "mine.json")
    words = ["loss=0.5*ce+0.5*mine.json", *SMALL, "train.ema=0.1", f'run_dir="{run}"']
    assert retrain(*words, "train.iters=4", "train.val_interval=2") == 0
    said = capsys.readouterr().out
    scores = json.loads((run / "scores.json").read_text())
    assert scores["scores"].keys() == {"val", "test"} and scores["iterations"] == 4
    assert "iter_4.pth" in said and f"miou {100 * scores['scores']['test']['miou']:.1f}" in said
    assert (run / "retrain.py").is_file() and (run / "iter_2.pth").is_file()
    assert list(run.glob("*/vis_data/scalars.json"))

    teacher = build_model(compose("search", SearchConfig, []).model, num_classes=7, seed=0)
    load_network(teacher, str(run), "proxy.soft.teacher")  # for distillation
    saved = weights(run, "iter_4.pth")
    assert all(torch.equal(value, saved[name]) for name, value in teacher.network.state_dict().items())

    assert retrain(*words) == 2
    assert "resume=" in capsys.readouterr().err
    assert retrain(f'resume="{run}"', "train.lr=1") == 2
    assert "train.lr" in capsys.readouterr().err

    (tmp_path / "mine.json").unlink()  # its copy goes with the run, wherever that is moved
    (run / "last_checkpoint").write_text(str(run / "iter_2.pth"))
    left, run = run, shutil.copytree(run, tmp_path / "moved")
    shutil.rmtree(left / "cards")
    (left / "iter_2.pth").unlink()
    before = weights(run, "iter_4.pth")
    (run / "iter_4.pth").unlink()
    assert retrain(f"resume={run}") == 0
    assert "resumed epoch: 0, iter: 2" in capsys.readouterr().out
    after = weights(run, "iter_4.pth")
    assert after.keys() == before.keys() and all(value.isfinite().all() for value in after.values())

    trap = tmp_path / "executed"
    torch.save({"state_dict": {}, "meta": Trap(str(trap))}, run / "iter_4.pth")
    assert retrain(f"resume={run}") == 2
    assert "could run code" in capsys.readouterr().err and not trap.exists()


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_the_trap_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(str(tmp_path / "x")))).close()
    assert (tmp_path / "x").exists()


@pytest.mark.slow
def test_what_it_leaves_is_ordinary_mmsegmentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np
    from mmseg.apis import inference_model, init_model

    monkeypatch.chdir(tmp_path)
    assert retrain("loss=jml", *SMALL, "train.iters=2", "run_dir=first") == 0
    model = init_model("first/retrain.py", "first/iter_2.pth", device="cpu")
    image = np.zeros((50, 60, 3), dtype=np.uint8)
    assert tuple(inference_model(model, image).pred_sem_seg.data.shape) == (1, 50, 60)
    assert model.dataset_meta["classes"][5] == "crack"

    whole = ["config=first/retrain.py", "overrides.train_cfg.max_iters=2", "overrides.optim_wrapper.optimizer.lr=1e-9"]
    whole += ["overrides.param_scheduler=[]"]
    whole += ["load_from=first/iter_2.pth", "metrics=[miou]", "device=cpu"]
    assert retrain("loss=ohem", *whole, "run_dir=second") == 0
    for key, value in weights(tmp_path / "first", "iter_2.pth").items():
        if "running" not in key and "tracked" not in key:
            torch.testing.assert_close(weights(tmp_path / "second", "iter_2.pth")[key], value, rtol=0, atol=1e-6)
    capsys.readouterr()
    assert (
        retrain(
            "loss=ce",
            *whole[:3],
            "load_from=first/iter_2.pth",
            "device=cpu",
            "overrides.model.decode_head.num_classes=3",
            "overrides.model.decode_head.out_channels=3",
        )
        == 2
    )
    assert "of another shape (decode_head.conv_seg.weight" in capsys.readouterr().err
    assert retrain("loss=ce", *whole, "train.lr=1") == 2
    assert "overrides.KEY=VALUE" in capsys.readouterr().err
    wrong = {"lod_level=INFO": "Did you mean log_level", "train_dataloader.batchsize=2": "'batchsize'"}
    for key, said in {**wrong, "optim_wrapper.type=OptimWraper": "OptimWraper is not in"}.items():
        assert retrain("loss=ce", *whole, "device=cpu", f"overrides.{key}") == 2
        assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_folder_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for recipe, missing in (("voc", "train.txt"), ("cityscapes", "leftImg8bit")):
        words = [f"experiment={recipe}_r101_miou", f"data.root={tmp_path / 'none'}", f"run_dir={tmp_path / 'run'}"]
        assert retrain(*words, "device=cpu") == 2
        said = capsys.readouterr().err
        assert str(tmp_path / "none") in said and missing in said and "data.root" in said, said
    assert not (tmp_path / "run").exists()
    assert retrain("data=builtin", "model=tiny", "run_dir=/proc/run", "device=cpu") == 2
    assert "a folder that can be written" in capsys.readouterr().err


def test_the_folder_of_another_run_is_left_alone(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(text := "schema: 1\nmetric: miou\nsearch: {}\n")
    assert retrain("loss=ce", *SMALL, "device=cpu", f"run_dir={tmp_path}") == 2
    assert "run_dir: expected the folder of a training by retrain, got" in capsys.readouterr().err
    assert (tmp_path / "config.yaml").read_text() == text


@pytest.mark.slow
def test_two_trainings_do_not_share_a_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lock = locked(tmp_path)
    assert retrain("loss=ce", *SMALL, "train.iters=1", f"run_dir={tmp_path}") == 2
    assert "run folder: expected one that no other process uses" in capsys.readouterr().err
    lock.release()
    assert not (tmp_path / "config.yaml").exists()


def on_two_ranks(*words: str) -> str:
    torchrun = [str(BIN / "torchrun"), "--standalone", "--nproc-per-node=2", "--no-python", str(BIN / "autoseg")]
    done = subprocess.run([*torchrun, "retrain", *words], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_two_ranks_equal_one(tmp_path: Path) -> None:
    words = ["loss=asl2021/miou", *SMALL, *EXACT, "train.iters=6", "train.keep_checkpoints=6"]
    assert retrain(*words, f"run_dir={tmp_path / 'one'}") == 0
    assert "on 2 processes" in on_two_ranks(*words, f"run_dir={tmp_path / 'two'}")
    one, two = (weights(tmp_path / name, "iter_6.pth") for name in ("one", "two"))
    start = weights(tmp_path / "one", "iter_1.pth")
    assert max(float((one[key] - start[key]).abs().max()) for key in one) > 1e-2
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-4, atol=1e-5, msg=lambda text, k=key: f"{k}: {text}")
    scores = [json.loads((tmp_path / name / "scores.json").read_text())["scores"] for name in ("one", "two")]
    assert scores[0]["val"] == pytest.approx(scores[1]["val"], abs=1e-3)
