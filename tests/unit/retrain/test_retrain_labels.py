"""Full trainings on soft labels: every head's loss sees those of `training.targets`, in whatever way it is started."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from test_retrain_build import built, network

from autoseg import build_loss
from autoseg.cli import main
from autoseg.retrain.parts import AutoSegLabelsHook
from autoseg.training.models import Segmentor
from autoseg.training.weights import save_network

AUX = (
    "model.overrides.auxiliary_head={type: FCNHead, in_channels: 16, in_index: 0, channels: 8, num_convs: 1, "
    "norm_cfg: {type: BN}, dropout_ratio: 0.0, num_classes: 7}"
)
SMALL = ["data.count=[6,2,2]", "train.batch_size=2", "train.crop=[64,64]", "metrics=[miou]", "device=cpu"]


def hook_of(cfg: Any) -> AutoSegLabelsHook:
    (found,) = [hook for hook in cfg.custom_hooks if hook["type"] == "AutoSegLabelsHook"]
    return AutoSegLabelsHook(**{key: value for key, value in found.items() if key != "type"})


def a_batch() -> tuple[torch.Tensor, torch.Tensor, list[SegDataSample]]:
    random = torch.Generator().manual_seed(0)
    images, labels = torch.randn(2, 3, 32, 32, generator=random), torch.randint(0, 7, (2, 32, 32), generator=random)
    labels[:, :5] = 255
    return images, labels, [SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in labels]


def kept(forward: Any, into: dict[str, torch.Tensor], name: str) -> Any:
    def kept_forward(inputs: Any) -> torch.Tensor:
        out: torch.Tensor = forward(inputs)
        into[name] = out.detach()
        return out

    return kept_forward


def losses_of(cfg: Any, teacher: Any = None) -> tuple[dict[str, float], dict[str, float]]:
    """The losses of one batch, and those of the same logits with soft labels written out."""
    torch.manual_seed(0)
    model = network(cfg)
    hook = hook_of(cfg)
    hook.before_train(SimpleNamespace(model=model, optim_wrapper=None))
    images, labels, samples = a_batch()
    logits: dict[str, torch.Tensor] = {}
    for name, head in (("decode", model.decode_head), ("aux", model.auxiliary_head)):
        head.forward = kept(head.forward, logits, name)  # mmsegmentation does not call the head, but this
    found = model(images, samples, mode="loss")
    said = {name: found[f"{name}.loss_autoseg"].item() for name in logits}

    valid = (labels != 255)[:, None].float()
    hard = F.one_hot(labels.where(labels != 255, 0), 7).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        other = torch.full_like(hard, 1 / 7) if teacher is None else (teacher(images)[0] / 2).softmax(1)
    soft = (0.8 * hard + 0.2 * other) * valid
    jml = build_loss("jml", num_classes=7)
    sized = {name: F.interpolate(one, (32, 32), mode="bilinear") for name, one in logits.items()}
    return said, {name: {"decode": 1.0, "aux": 0.4}[name] * float(jml(one, soft)) for name, one in sized.items()}


def test_every_head_learns_smoothed_labels() -> None:
    said, expected = losses_of(built(AUX, "train.labels=smooth", "train.soft.eps=0.2", loss="jml"))
    assert said.keys() == {"decode", "aux"} and said == pytest.approx(expected, rel=1e-5)


def test_every_head_learns_from_the_teacher_which_sees_a_batch_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(1)
    teacher = Segmentor(network(built(AUX))).eval()
    save_network(teacher, str(tmp_path / "teacher.safetensors"))
    seen = []
    forward = Segmentor.forward
    monkeypatch.setattr(Segmentor, "forward", lambda self, images: seen.append(self) or forward(self, images))

    words = ["train.labels=distill", f"train.soft.teacher={tmp_path / 'teacher.safetensors'}"]
    cfg = built(AUX, *words, "train.soft.weight=0.2", "train.soft.temperature=2", loss="jml")
    said, expected = losses_of(cfg, teacher)

    assert said == pytest.approx(expected, rel=1e-5)
    assert len([one for one in seen if one is not teacher]) == 1


def test_predictions_do_not_ask_the_teacher_and_a_new_batch_has_its_own_labels() -> None:
    cfg = built(AUX, "train.labels=smooth", loss="ce")
    model, hook = network(cfg), hook_of(cfg)
    hook.before_train(SimpleNamespace(model=model, optim_wrapper=None))
    images, labels, samples = a_batch()
    first = model(images, samples, mode="loss")["decode.loss_autoseg"]
    other = [SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in labels.flip(0)]
    assert model(images, other, mode="loss")["decode.loss_autoseg"] != first
    model.eval()
    model(images, mode="tensor")


@pytest.mark.slow
def test_a_training_is_distilled_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["retrain", "loss=ce", *SMALL, "train.iters=2", "run_dir=teacher"]) == 0
    words = ["loss=jml", *SMALL, "train.labels=distill", "train.soft.teacher=teacher", "train.val_interval=1"]
    assert main(["retrain", *words, "train.iters=2", "run_dir=student"]) == 0
    assert "labels distill" in capsys.readouterr().out

    Path("student/iter_2.pth").unlink()
    Path("student/last_checkpoint").write_text("iter_1.pth")
    assert main(["retrain", "resume=student"]) == 0
    assert json.loads(Path("student/scores.json").read_text())["iterations"] == 2

    whole = ["config=teacher/retrain.py", "overrides.train_cfg.max_iters=1", "metrics=[miou]", "device=cpu"]
    assert main(["retrain", "loss=ce", *whole, "train.labels=smooth", "train.soft.eps=0.3"]) == 0
    assert "labels smooth" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["loss=lovasz", "train.labels=smooth"], "loss: expected one that takes soft labels, for train.labels=smooth"),
        (["loss=jml", "train.labels=annotators"], "train.labels"),
        (["loss=jml", "train.labels=distill", "train.soft.teacher=none"], "train.soft.teacher"),
        (["loss=jml", "train.labels=distill"], "train.soft.teacher=DIR"),
    ],
)
def test_what_cannot_be_is_said_before_a_training(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["retrain", *words, *SMALL, "run_dir=out"]) == 2
    assert said in capsys.readouterr().err
