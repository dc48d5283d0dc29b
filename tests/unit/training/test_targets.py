"""Targets of training: hand values, rows that sum to 1, void that stays void, teachers that stay apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.logging import HistoryBuffer
from torch import Tensor, nn

import autoseg
from autoseg.config import DataConfig, ProxyConfig, SoftLabelConfig
from autoseg.data import open_data
from autoseg.errors import InputError
from autoseg.training import build_targets, check_loss, save_network
from autoseg.training.precision import precision_of
from autoseg.training.targets import UNLABELLED, PseudoLabels, Targets, withhold

C = 3
PROXY = ProxyConfig()
PRECISION = precision_of(PROXY, torch.device("cpu"))
IMAGES = torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """One 1x1 convolution and a batch norm, whose training mode would change the result."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.norm, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, C, 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.conv(self.norm(images))]


def labels_of(seed: int) -> Tensor:
    labels = torch.randint(0, C, (2, 6, 7), generator=torch.Generator().manual_seed(seed))
    labels[:, :2, :3] = 255
    return labels


def make(use: str, model: nn.Module | None = None, **options: object) -> Targets:
    proxy = replace(PROXY, labels=use, soft=SoftLabelConfig(**options))  # type: ignore[arg-type]
    return build_targets(proxy.labels, proxy.soft, C, model or Net(), PRECISION)


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    path = str(tmp_path / "teacher.safetensors")
    save_network(Net(5), path)
    return path


def test_hard_labels_are_passed_on_untouched() -> None:
    labels = labels_of(0)
    assert make("hard")(IMAGES, labels) is labels


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), eps=st.floats(0, 1))
@pytest.mark.parametrize("use", ["smooth", "boundary_smooth"])
def test_smoothed_rows_sum_to_1_and_void_stays_void(use: str, seed: int, eps: float) -> None:
    labels = labels_of(seed)
    soft = make(use, eps=eps)(IMAGES, labels)
    void = labels == 255
    assert soft.shape == (2, C, 6, 7) and soft.dtype == torch.float32
    assert torch.allclose(soft.sum(1)[~void], torch.ones(())) and not soft.sum(1)[void].any()


def test_smooth_by_hand() -> None:
    soft = make("smooth")(IMAGES, torch.tensor([[[1, 255]]]))
    assert soft[0, :, 0, 0].tolist() == pytest.approx([0.1 / 3, 0.9 + 0.1 / 3, 0.1 / 3])
    assert soft[0, :, 0, 1].tolist() == [0, 0, 0]


def test_boundaries_alone_are_smoothed() -> None:
    labels = torch.zeros(1, 5, 9, dtype=torch.long)
    labels[..., 4:] = 2
    labels[0, 0, 3] = 255  # its neighbours keep hard labels although classes meet there
    soft = make("boundary_smooth")(IMAGES, labels)
    blurred = (soft.amax(1) < 1) & (labels != 255)
    assert blurred[0].nonzero().tolist() == [[row, column] for row in (2, 3, 4) for column in (3, 4)]
    assert soft[0, :, 3, 3].tolist() == pytest.approx([0.5 + 0.5 / 3, 0.5 / 3, 0.5 / 3])
    wide = make("boundary_smooth", width=5, eps=0.2)(IMAGES, labels[:, :, :9])
    assert wide[0, :, 4, 2].tolist() == pytest.approx([0.8 + 0.2 / 3, 0.2 / 3, 0.2 / 3])


def test_annotators_are_averaged_over_those_who_said_something() -> None:
    raters = torch.tensor([[[[0, 1, 255]], [[0, 2, 255]], [[1, 255, 255]]]])  # 1 image, 3 annotators, 1 x 3 pixels
    soft = make("annotators")(IMAGES, raters)
    assert soft[0, :, 0].T.tolist() == [pytest.approx(row) for row in ([2 / 3, 1 / 3, 0], [0, 0.5, 0.5], [0, 0, 0])]


def test_distilled_targets_mix_label_and_teacher(teacher: str) -> None:
    labels = labels_of(0)
    soft = make("distill", teacher=teacher, weight=0.25, temperature=2.0)(IMAGES, labels)
    probs = (Net(5).eval()(IMAGES)[0] / 2).softmax(1)
    void = (labels == 255).unsqueeze(1)
    hard = torch.nn.functional.one_hot(labels.where(labels < C, 0), C).movedim(-1, 1)
    assert torch.allclose(soft, torch.where(void, 0, 0.75 * hard + 0.25 * probs), atol=1e-6)
    assert not soft.requires_grad


def test_a_work_dir_of_a_full_training_is_a_teacher(tmp_path: Path, teacher: str) -> None:
    curve = HistoryBuffer([1.0, 0.5], [1, 1])
    checkpoint = {
        "meta": {"iter": 9}, "state_dict": Net(5).state_dict(), "optimizer": {"state": {}},
        "message_hub": {"log_scalars": {"train/loss": curve}},
    }  # fmt: skip
    torch.save(checkpoint, tmp_path / "iter_9.pth")
    with pytest.raises(InputError, match=r"proxy\.soft\.teacher.*has none"):
        make("distill", teacher=str(tmp_path))
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_9.pth"))
    for path in (tmp_path, tmp_path / "iter_9.pth"):
        soft = make("distill", teacher=str(path))(IMAGES, labels_of(0))
        assert torch.equal(soft, make("distill", teacher=teacher)(IMAGES, labels_of(0)))


def test_the_student_is_no_teacher_of_itself(teacher: str) -> None:
    student = Net(0).train()
    targets = make("distill", student, teacher=teacher)
    before = targets(IMAGES, labels_of(0))
    with torch.no_grad():
        student.conv.weight.zero_()
    assert student.training and student.conv.weight.requires_grad
    assert torch.equal(targets(IMAGES, labels_of(0)), before)


def test_pseudo_labels_fill_what_was_withheld_where_the_teacher_is_sure() -> None:
    labels = labels_of(0)
    labels[1] = UNLABELLED
    labels[1, 0, 0] = 255
    probs = Net(3).eval()(IMAGES)[0].softmax(1).detach()
    confidence, guess = probs.max(1)
    bar = float(confidence[1].median())
    found = make("pseudo", Net(3), confidence=bar)(IMAGES, labels)
    assert torch.equal(found[0], labels[0]) and found[1, 0, 0] == 255
    sure = confidence[1] >= bar
    sure[0, 0] = False
    assert sure.any() and not sure.all()
    assert torch.equal(found[1], torch.where(sure, guess[1], 255))


def test_the_teacher_is_the_mean_of_the_student_and_then_its_moving_average() -> None:
    student = Net()
    targets = make("pseudo", student, momentum=0.75)
    assert isinstance(targets, PseudoLabels)
    mean, history = torch.zeros(()), []
    for step in range(1, 8):
        with torch.no_grad():
            student.conv.bias.fill_(float(step * step))
        student.train()(IMAGES)
        targets.follow(student)
        history.append(float(step * step))
        momentum = min(0.75, 1 - 1 / step)
        mean = momentum * mean + (1 - momentum) * history[-1]
        assert float(targets.teacher.conv.bias[0]) == pytest.approx(float(mean), rel=1e-5)  # type: ignore
        if step <= 4:
            assert float(mean) == pytest.approx(sum(history) / step)
    assert not targets.teacher.training and targets.teacher.norm.num_batches_tracked == 7  # type: ignore


def test_withheld_labels_are_the_same_every_time_and_void_stays() -> None:
    labels = torch.randint(0, C, (10, 4, 4), dtype=torch.uint8)
    labels[:, 0] = 255
    rows = torch.tensor([0, 2, 3, 4, 6, 7, 8, 9])
    shown = withhold(labels, rows, 0.25)
    assert torch.equal(shown, withhold(labels, rows, 0.25))
    hidden = [i for i in range(10) if (shown[i] == UNLABELLED).any()]
    assert len(hidden) == 6 and set(hidden) <= set(rows.tolist())
    assert (shown[:, 0] == 255).all() and (shown[hidden][:, 1:] == UNLABELLED).all()
    kept = [i for i in range(10) if i not in hidden]
    assert torch.equal(shown[kept], labels[kept])
    assert torch.equal(withhold(labels, rows, 1.0), labels)


@pytest.mark.parametrize(
    ("use", "options", "words"),
    [
        ("distill", {}, "proxy.soft.teacher"),
        ("distill", {"teacher": "nowhere.safetensors"}, "does not exist"),
    ],
)
def test_bad_options_are_refused(use: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make(use, **options)


def test_a_teacher_of_another_network_or_with_code_in_it_is_refused(tmp_path: Path) -> None:
    save_network(nn.Conv2d(3, C, 1), str(tmp_path / "other.safetensors"))
    with pytest.raises(InputError, match=r"proxy\.soft\.teacher.*missing"):
        make("distill", teacher=str(tmp_path / "other.safetensors"))
    torch.save(Net(), tmp_path / "pickled.pth")
    with pytest.raises(InputError, match="could run code"):
        make("distill", teacher=str(tmp_path / "pickled.pth"))


def test_losses_for_ids_are_refused_before_training() -> None:
    for name in ("jml", "0.25*ce+0.75*dml", "asl2021/miou"):
        check_loss(autoseg.build_loss(name, num_classes=C), "smooth")
    for name in ("lovasz", "0.5*ce+0.5*lovasz", "ssim(mode=sigmoid)"):
        with pytest.raises(InputError, match=r"lovasz|ssim"):
            check_loss(autoseg.build_loss(name, num_classes=C), "smooth")
        check_loss(autoseg.build_loss(name, num_classes=C), "pseudo")
    for name in ("unet_ce", "dpce", "boundary"):
        with pytest.raises(InputError, match="withholds"):
            check_loss(autoseg.build_loss(name, num_classes=C), "pseudo")
    for name in ("wce", "shape_prior"):  # need constants only, which the labels that are left give
        check_loss(autoseg.build_loss(name, num_classes=C), "pseudo")


@pytest.mark.slow
def test_five_annotators_of_bsds(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "bsds500_boundary"
    if not root.is_dir():
        pytest.skip("no bsds500_boundary in ../shared/data")
    folders = [f"ann_dir_rater{i}" for i in range(1, 6)]
    config = DataConfig(
        kind="folder", root=str(root), classes=["background", "boundary"], annotator_dirs=folders,
        test_split=None, cache_dir=str(tmp_path),
    )  # fmt: skip
    data = open_data(config, (80, 120))
    raters = data.raters("train")[:4]
    proxy = replace(PROXY, labels="annotators")
    soft = build_targets(proxy.labels, proxy.soft, 2, Net(), PRECISION)(IMAGES, raters.long())
    counted = ((raters == 1).sum(1) / (raters != 255).sum(1).clamp(min=1)).float()
    assert torch.allclose(soft[:, 1], counted)
    assert set(soft.sum(1).unique().tolist()) <= {0.0, 1.0}
    assert len(soft[:, 1].unique()) > 3  # they disagree
