from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from short_proxy import CrossEntropy
from torch import Tensor, nn
from two_raters import two_raters

import autoseg.training
from autoseg.config import ModelConfig, SearchConfig
from autoseg.data import SegData, open_data
from autoseg.errors import Diverged, InputError
from autoseg.metrics import MetricOptions
from autoseg.metrics.images import load_parts
from autoseg.proxy import residents
from autoseg.proxy.task import ProxyTask
from autoseg.training import View, evaluate
from autoseg.training.precision import precision_of


class Bright(nn.Module):
    """Says how bright a pixel is, padding too."""

    def forward(self, images: Tensor) -> list[Tensor]:
        levels = torch.linspace(-2, 2, 7)[None, :, None, None]
        return [-((images.mean(1, keepdim=True) - levels) ** 2)]


def test_same_seed_same_scores_also_after_another_candidate(task: ProxyTask) -> None:
    loss = CrossEntropy()
    first = task(loss, 0)
    other = task(loss, 1)
    assert task(loss, 0) == first != other
    assert list(first) == list(task.metrics) and all(0 <= score <= 1.5 for score in first.values())


def test_crosses_a_process_border_whole(task: ProxyTask) -> None:
    copy = cloudpickle.loads(cloudpickle.dumps(task))
    assert copy == task
    assert copy(CrossEntropy(), 0) == task(CrossEntropy(), 0)


def test_a_search_touches_the_training_split_only(task: ProxyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[str] = set()
    plain = SegData._tensor

    def spy(self: SegData, split: str, kind: str) -> Tensor:
        read.add(split)
        return plain(self, split, kind)

    monkeypatch.setattr(SegData, "_tensor", spy)
    task(CrossEntropy(), 0)
    assert read == {"train"}
    replace(task, final_split="val")(CrossEntropy(), 0)
    assert read == {"train", "val"}


def test_rows_of_a_search_are_disjoint_and_a_comparison_uses_everything(task: ProxyTask) -> None:
    fit, judged = task._rows()
    assert not set(fit.tolist()) & set(judged.tolist()) and len(fit) + len(judged) == 12
    fit, judged = replace(task, final_split="val")._rows()
    assert (len(fit), len(judged)) == (12, 4)


def test_groups_are_on_one_side_of_a_search(task: ProxyTask) -> None:
    grouped = replace(task, data=replace(task.data, groups=r"\d$"))
    names = task._open().names("train")
    fit, judged = ({names[row][-1] for row in rows.tolist()} for rows in grouped._rows())
    assert len(names) == 12 and fit and judged and not fit & judged and len(fit | judged) == 10
    assert grouped._rows()[1].tolist() != task._rows()[1].tolist()


@pytest.mark.parametrize("split", [None, "val"])
def test_scored_are_the_images_labels_and_options_asked_for(
    task: ProxyTask, split: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[View, Tensor, Mapping[str, Any]]] = []

    def spy(model: nn.Module, view: View, labels: Tensor, metrics: Mapping[str, Any]) -> dict[str, float]:
        seen.append((view, labels, metrics))
        return evaluate(model, view, labels, metrics)

    monkeypatch.setattr(autoseg.training, "evaluate", spy)
    asked = replace(task, final_split=split, drop_background=True, tolerance=3)
    scores = asked(CrossEntropy(), 0)
    ((view, labels, metrics),) = seen
    data = task._open()
    assert torch.equal(labels, data.labels(split or "train")) and torch.equal(
        view.images, data.images(split or "train")
    )
    assert torch.equal(view.rows, asked._rows()[1])
    options = MetricOptions(data.num_classes, data.ignore_index, tolerance=3, drop_background=True)
    assert all(metric.options == options for metric in metrics.values()) and list(metrics) == list(scores)


def test_padding_has_no_say_in_rewards(task: ProxyTask, tmp_path: Path) -> None:
    """Images that fill their frame, or half of it: each contributes the same."""
    counts, place = [], torch.device("cpu")
    for size in ([48, 48], [48, 96]):
        proxy = replace(task.proxy, size=size, iters=1)
        one = replace(task, proxy=proxy, metrics=("bf1", "boundary_iou"), counts_to=str(tmp_path / "counts.npz"))
        training = one._train(CrossEntropy(), 0, precision_of(proxy, place))
        training.model = Bright()
        one._score(training)
        counts.append(load_parts(tmp_path / "counts.npz"))
    torch.testing.assert_close(*counts, rtol=0, atol=0)


def test_trainings_see_no_padding_where_the_image_is_larger_than_the_crop(task: ProxyTask) -> None:
    """The built-in images are square: of these frames they leave a quarter empty, at the right."""
    whole = replace(task, proxy=replace(task.proxy, iters=30, scale=[1.0, 1.5]))
    affine = whole._batches(None, 0, torch.device("cpu")).drawn(0, 30).numbers.affine
    right = affine[..., 0, 2] + affine[..., 0, 0].abs()  # of each crop, in the frame's coordinates, -1 to 1
    assert 0.4 < right.max() < 0.5 + 1e-5


def test_images_are_normalised_as_the_networks_config_has_it(task: ProxyTask, tmp_path: Path) -> None:
    config = tmp_path / "own.py"
    norm = "data_preprocessor=dict(mean=[1, 2, 3], std=[4, 5, 6], bgr_to_rgb=True)"
    config.write_text(f"_base_ = ['mmseg::_base_/models/deeplabv3plus_r50-d8.py']\nmodel = dict({norm})")
    own = replace(task, model=replace(task.model, config=str(config)))
    for one, mean in ((task, 123.675), (own, 1), (replace(own, model=replace(own.model, mean=[7.0, 8.0, 9.0])), 7)):
        view = one._view(precision_of(one.proxy, torch.device("cpu")), one._rows()[1])
        assert view.mean[0] == one._batches(None, 0, torch.device("cpu")).augment.mean[0] == mean


def test_images_are_scored_by_size_and_in_their_order_within_one(
    task: ProxyTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = torch.tensor([[48, 64], [40, 64]] * 6, dtype=torch.int32)
    plain = task._rows()[1].tolist()
    monkeypatch.setattr(SegData, "sizes", lambda self, split: sizes)
    assert task._rows()[1].tolist() == [r for r in plain if r % 2] + [r for r in plain if r % 2 == 0]
    final = replace(task, final_split="val")._rows()[1].tolist()
    assert final == [1, 3, 0, 2]


def test_a_network_that_cannot_take_the_crop_is_one_message(task: ProxyTask) -> None:
    model = ModelConfig(config="_base_/models/lraspp_m-v3-d8.py")
    small = replace(task, model=model, proxy=replace(task.proxy, crop=16))
    with pytest.raises(InputError, match=r"model\.config: expected a network .* 16x16, the size of proxy\.crop"):
        small(CrossEntropy(), 0)


def test_a_network_that_cannot_score_the_images_is_not_trained(
    task: ProxyTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A U-Net takes multiples of 16: each training ended where its images were to be scored."""
    small = {"backbone": {"base_channels": 4}, "decode_head": {"in_channels": 4, "channels": 4}, "auxiliary_head": None}
    model = ModelConfig(config="_base_/models/fcn_unet_s5-d16.py", overrides={"pretrained": None, **small})
    proxy = replace(task.proxy, size=[45, 64], crop=32)
    with monkeypatch.context() as patch:
        patch.setattr(autoseg.training.Training, "run", lambda *_: pytest.fail("it trained"))
        with pytest.raises(InputError, match=r"proxy\.size: .*got \[45, 64\].* It takes proxy\.size=\[48,64\]\."):
            replace(task, model=model, proxy=proxy)(CrossEntropy(), 0)
    replace(task, model=model, proxy=replace(proxy, size=[48, 64]))(CrossEntropy(), 0)


def test_a_look_at_the_size_that_is_scored_draws_no_random_number(task: ProxyTask) -> None:
    """As some heads do in each pass: a training would begin with others."""

    class Draws(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, images: Tensor) -> list[Tensor]:
            return [images * torch.rand_like(images) * self.weight]

    torch.manual_seed(3)
    expected = torch.rand(2).tolist()
    torch.manual_seed(3)
    autoseg.training.check_scored(Draws(), [4, 5], "it")  # type: ignore[arg-type]
    assert torch.rand(2).tolist() == expected


def test_a_gpu_whose_context_is_broken_is_no_network_that_cannot_take_the_crop(
    task: ProxyTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing runs there any more, the network neither: it is one failure, and a new worker goes on."""

    class Fails(nn.Module):
        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(autoseg.training, "check_crop", lambda *_: pytest.fail("it ran the network"))
    with pytest.raises(torch.AcceleratorError):
        task(Fails(), 0)


def test_images_that_a_worker_finds_changed_are_refused(tmp_path: Path) -> None:
    like = two_raters(tmp_path)
    config = SearchConfig(data=like.data, model=like.model, proxy=like.proxy, tolerance=2)
    task = ProxyTask.of(config, ["miou"], open_data(like.data, like.proxy.size).fingerprint)
    smaller = replace(task, proxy=replace(task.proxy, size=[16, 24], crop=16))
    assert task._open().num_classes == 2
    for kind in ("img_dir", "ann_dir", "one", "two"):
        (tmp_path / kind / "train" / "0.png").unlink()
    residents.data.cache_clear()  # as in a process that starts now
    with pytest.raises(InputError, match=r"data: expected the images and masks that this command began with, got oth"):
        task(CrossEntropy(), 0)
    assert len(smaller._open().images("train")) == 5  # of another size: not known


def test_divergence_reaches_the_caller(task: ProxyTask) -> None:
    class Nan(nn.Module):
        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            return logits.sum() * float("nan")

    with pytest.raises(Diverged, match="iteration 0"):
        task(Nan(), 0)


def test_threads_are_set_by_the_config_and_put_back(task: ProxyTask) -> None:
    seen: list[int] = []

    class Looks(CrossEntropy):
        def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
            seen.append(torch.get_num_threads())
            return super().forward(logits, labels)

    before = torch.get_num_threads()
    replace(task, proxy=replace(task.proxy, threads=before + 1, iters=1))(Looks(), 0)
    assert set(seen) == {before + 1} and torch.get_num_threads() == before
