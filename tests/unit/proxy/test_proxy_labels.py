"""The proxy task with each use of soft labels: it trains, repeats itself, and hard labels stay what they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from two_raters import two_raters

import autoseg
from autoseg.config import SoftLabelConfig
from autoseg.errors import InputError
from autoseg.proxy.task import ProxyTask
from autoseg.training.targets import UNLABELLED


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> ProxyTask:
    return two_raters(tmp_path_factory.mktemp("data"))


def with_labels(task: ProxyTask, use: str, **options: object) -> ProxyTask:
    return replace(task, proxy=replace(task.proxy, labels=use, soft=SoftLabelConfig(**options)))  # type: ignore[arg-type]


def loss_of(name: str = "0.5*ce+0.5*jml") -> torch.nn.Module:
    return autoseg.build_loss(name, num_classes=2)


@pytest.fixture(scope="module")
def teacher(task: ProxyTask) -> str:
    path = str(Path(str(task.data.root)) / "out" / "teacher.safetensors")
    replace(task, save_to=path)(loss_of(), 7)
    return path


def test_a_teacher_that_trains_on_is_the_same_for_all_trainings_of_a_task(task: ProxyTask, tmp_path: Path) -> None:
    newest = tmp_path / "last_checkpoint"
    for step in (1, 2):
        (tmp_path / f"iter_{step}.pth").touch()
    newest.write_text("iter_1.pth")
    made = with_labels(task, "distill", teacher=str(tmp_path))
    newest.write_text("iter_2.pth")
    again = replace(made, proxy=replace(made.proxy, iters=2))
    assert {one.proxy.soft.teacher for one in (made, again)} == {str(tmp_path / "iter_1.pth")}
    newest.unlink()
    with pytest.raises(InputError, match=r"proxy\.soft\.teacher: expected a work dir with a checkpoint"):
        with_labels(task, "distill", teacher=str(tmp_path))


@pytest.mark.parametrize("use", ["smooth", "boundary_smooth", "distill", "annotators", "pseudo"])
def test_each_use_trains_repeats_itself_and_differs_from_hard_labels(use: str, task: ProxyTask, teacher: str) -> None:
    soft = with_labels(task, use, teacher=teacher, labelled=0.5, confidence=0.5)
    first, again, hard = soft(loss_of(), 0), soft(loss_of(), 0), task(loss_of(), 0)
    assert first == again and set(first) == set(hard)
    assert first["ece"] != hard["ece"]  # scored on probabilities: moved by any other training
    surrogate = autoseg.SurrogateLoss("miou", 2)
    assert 0 <= soft(surrogate, 0)["miou"] <= 1


def test_a_perfect_copy_of_one_hot_targets_changes_nothing(task: ProxyTask) -> None:
    assert with_labels(task, "smooth", eps=0.0)(loss_of("ce"), 0)["ece"] == pytest.approx(
        task(loss_of("ce"), 0)["ece"], abs=1e-5
    )
    assert with_labels(task, "pseudo", labelled=1.0)(loss_of(), 0) == task(loss_of(), 0)


def test_the_network_that_was_trained_is_saved(teacher: str) -> None:
    weights = load_file(teacher)
    assert all(name.startswith("network.") for name in weights)
    assert all(bool(value.isfinite().all()) for value in weights.values())
    assert [path.name for path in Path(teacher).parent.iterdir()] == ["teacher.safetensors"]


def test_a_loss_never_sees_withheld_labels(task: ProxyTask) -> None:
    seen: list[torch.Tensor] = []

    class Looks(torch.nn.Module):
        def prepare(self, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            seen.append(labels)
            return {}

        def forward(self, logits: torch.Tensor, labels: torch.Tensor, extra: object) -> torch.Tensor:
            seen.append(labels)
            return torch.nn.functional.cross_entropy(logits, labels, ignore_index=255, reduction="sum")

    with_labels(task, "pseudo", labelled=0.25, confidence=1.0)(Looks(), 0)
    prepared, *batches = seen
    assert ((prepared != 255).flatten(1).any(1)).sum() == 1  # one image of four keeps its labels
    assert all(set(batch.unique().tolist()) <= {0, 1, 255} for batch in batches)
    assert UNLABELLED not in prepared.unique()


@pytest.mark.parametrize(
    ("use", "loss", "words"),
    [
        ("smooth", "lovasz", "takes soft labels"),
        ("pseudo", "boundary", "withholds"),
        ("distill", "ce", "proxy.soft.teacher"),
        ("smoth", "ce", "Did you mean smooth"),
    ],
)
def test_what_cannot_work_is_said_before_training(use: str, loss: str, words: str, task: ProxyTask) -> None:
    with pytest.raises(InputError, match=words):
        with_labels(task, use)(loss_of(loss), 0)


def test_data_with_one_annotator_is_refused(task: ProxyTask) -> None:
    alone = replace(task, data=replace(task.data, annotator_dirs=[]))
    with pytest.raises(InputError, match="annotator_dirs"):
        with_labels(alone, "annotators")(loss_of(), 0)
