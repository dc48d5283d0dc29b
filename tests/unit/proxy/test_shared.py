"""The warm-up is computed once per seed, whoever comes first, and every candidate goes on from the same numbers."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from short_proxy import CrossEntropy
from tiny_network import TINY
from torch import Tensor, nn

from autoseg.config import DataConfig, ModelConfig, ProxyConfig
from autoseg.data.once import made_once
from autoseg.errors import InputError
from autoseg.losses import build_loss
from autoseg.metrics import build_metric
from autoseg.proxy.rungs import Rungs, Watch
from autoseg.proxy.shared import described, place
from autoseg.proxy.task import ProxyTask
from autoseg.search.timing import TimedTask
from autoseg.store.versions import PACKAGES
from autoseg.training import Segmentor, Training
from autoseg.training.models import Features
from autoseg.training.precision import precision_of


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> ProxyTask:
    return ProxyTask(
        data=DataConfig(count=[12, 4, 4], cache_dir=str(tmp_path_factory.mktemp("cache"))),
        model=ModelConfig(overrides=TINY),
        proxy=ProxyConfig(iters=4, warmup=2, batch_size=2, crop=32, size=[48, 64]),
        metrics=("miou", "biou"),
        tolerance=2,
    )


class Counting(CrossEntropy):
    calls = 0

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        self.calls += 1
        return 3 * super().forward(logits, labels)


def test_forked_candidates_score_as_if_trained_through(
    task: ProxyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = build_loss("dice", num_classes=7)
    through = [task(loss, 5) for loss in (Counting(), dice)]
    iterations: list[int] = []
    run = Training.run

    def counted(self: Training, loss: nn.Module, until: int | None = None) -> None:
        before = self.iteration
        run(self, loss, until)
        iterations.append(self.iteration - before)

    monkeypatch.setattr(Training, "run", counted)
    sharing, counting = replace(task, shared=str(tmp_path / "shared")), Counting()
    assert [sharing(loss, 5) for loss in (counting, dice)] == through
    assert counting.calls == 2 and iterations == [2, 2, 2]  # one warm-up, then each its own two
    assert through[0] != through[1]
    (file,) = (tmp_path / "shared").glob("*.safetensors")
    assert file.name.startswith("warmup-seed-5-")
    sharing(dice, 6)
    assert len(list((tmp_path / "shared").glob("warmup-seed-6-*.safetensors"))) == 1


def test_nothing_is_shared_between_different_budgets(task: ProxyTask, tmp_path: Path) -> None:
    for proxy in (task.proxy, replace(task.proxy, lr=0.1), replace(task.proxy, warmup=3)):
        replace(task, proxy=proxy, shared=str(tmp_path))(CrossEntropy(), 5)
    assert len(list(tmp_path.glob("*.safetensors"))) == 3


def test_nothing_is_shared_between_other_data_networks_splits_or_devices(task: ProxyTask, tmp_path: Path) -> None:
    sharing, cpu = replace(task, shared=str(tmp_path)), precision_of(task.proxy, torch.device("cpu"))
    others = [
        replace(sharing, data=replace(task.data, count=[13, 4, 4])),
        replace(sharing, data=replace(task.data, holdout=0.4)),
        replace(sharing, model=replace(task.model, overrides={})),
        replace(sharing, final_split="val"),
    ]
    places = {one._place("warmup", 5, cpu) for one in (sharing, sharing, *others)}
    gpus = [replace(cpu, device=torch.device("cuda"), dtype=dtype) for dtype in (None, torch.bfloat16, torch.float16)]
    places |= {sharing._place("warmup", 6, cpu), *(sharing._place("warmup", 5, gpu) for gpu in gpus)}
    assert len(places) == 9


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_is_shared_between_versions(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = place(str(tmp_path), "warmup", 5, ["data"])
    assert place(str(tmp_path), "warmup", 5, ["data"]) == before
    monkeypatch.setattr("autoseg.store.versions.version", lambda name: "9" if name == package else version(name))
    assert place(str(tmp_path), "warmup", 5, ["data"]) != before


def test_stored_features_are_the_frozen_backbone(
    task: ProxyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses, rungs = (CrossEntropy(), build_loss("dice", num_classes=7)), Rungs(shares=(0.5,))
    frozen = replace(task, proxy=replace(task.proxy, backbone="frozen", warmup=1))
    watches = [Watch(rungs, "miou") for _ in range(4)]
    through = [replace(frozen, watch=watch)(loss, 5) for loss, watch in zip(losses, watches, strict=False)]
    assert through[0] != task(losses[0], 5)  # it does make a difference
    seen: list[int] = []
    features = Segmentor.features

    def counted(self: Segmentor, images: Tensor) -> Features:
        seen.append(len(images))
        return features(self, images)

    monkeypatch.setattr(Segmentor, "features", counted)
    stored = replace(frozen, shared=str(tmp_path))
    again = [replace(stored, watch=watch)(loss, 5) for loss, watch in zip(losses, watches[2:], strict=True)]
    assert again == through and [w.scores for w in watches[:2]] == [w.scores for w in watches[2:]]
    assert seen == [1, 1, 2, 2, 2, 2, 2]  # a probe of either size, four batches, two held-out images: once
    assert len(list(tmp_path.glob("features-seed-5-*.safetensors"))) == 1
    assert re.fullmatch(
        r"[\d.]+ MB of what candidates share .*, and again for each fresh seed\.", described(tmp_path, 1)
    )
    assert "for each fresh seed, 3 times as much." in described(tmp_path, 3) and described(tmp_path / "none", 1) == ""


def test_features_that_would_take_too_much_are_refused(task: ProxyTask, tmp_path: Path) -> None:
    proxy = replace(task.proxy, backbone="frozen", frozen_gb=1e-5)
    with pytest.raises(
        InputError, match=r"proxy\.backbone: expected at most the 1e-05 GB of proxy\.frozen_gb, got .* GB"
    ):
        replace(task, proxy=proxy, shared=str(tmp_path))(CrossEntropy(), 5)
    assert not list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob("*.tmp"))


def test_a_warm_up_leaves_no_moments(task: ProxyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither to whom makes it nor to those who read it, nor where nothing is shared."""
    left: list[int] = []
    run = Training.run

    def watched(self: Training, loss: nn.Module, until: int | None = None) -> None:
        if self.iteration:
            left.append(len(self.optimizer.state))
        run(self, loss, until)

    monkeypatch.setattr(Training, "run", watched)
    for each in (task, replace(task, shared=str(tmp_path)), replace(task, shared=str(tmp_path))):
        each(CrossEntropy(), 1)
    assert left == [0, 0, 0]


@pytest.mark.parametrize("kind", ["warmup", "features"])
@pytest.mark.parametrize("damage", ["truncated", "of something else", "a folder"])
def test_a_damaged_file_stops_the_run_and_is_made_again_once_deleted(
    task: ProxyTask, tmp_path: Path, kind: str, damage: str
) -> None:
    change = {"backbone": "frozen", "warmup": 0} if kind == "features" else {}
    sharing = replace(task, proxy=replace(task.proxy, **change), shared=str(tmp_path))
    scores = sharing(CrossEntropy(), 5)
    (file,) = tmp_path.glob(f"{kind}-*.safetensors")
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:5000])
    elif damage == "of something else":
        save_file({"x": torch.zeros(1)}, file)
    else:
        file.unlink()
        file.mkdir()
    field = "proxy.backbone" if kind == "features" else "proxy.warmup"
    with pytest.raises(InputError, match=rf"{field}: expected .*{file.name}.*Delete it") as told:
        sharing(CrossEntropy(), 5)
    assert len(str(told.value).splitlines()) == 1
    file.rmdir() if file.is_dir() else file.unlink()
    assert sharing(CrossEntropy(), 5) == scores


def test_a_full_disk_stops_the_run_instead_of_failing_a_candidate(
    task: ProxyTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = tmp_path / "full"  # a link: whatever replaces the file it is told replaces this one
    full.symlink_to("/dev/full")
    monkeypatch.setattr("autoseg.data.once.made_once", lambda path, make: make(full))
    with pytest.raises(InputError, match=r"disk: expected space for warmup-seed-5-.* make room and resume"):
        replace(task, shared=str(tmp_path))(CrossEntropy(), 5)


def test_a_warm_up_that_diverges_is_nobodys_loss(task: ProxyTask, tmp_path: Path) -> None:
    wild = replace(task, proxy=replace(task.proxy, lr=1e30), shared=str(tmp_path))
    with pytest.raises(InputError, match=r"proxy\.warmup: expected a training that goes well with cross-entropy"):
        wild(CrossEntropy(), 5)
    assert not list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob("*.tmp"))


def test_timing_counts_what_each_candidate_trains_itself(task: ProxyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    counting, limited = Counting(), replace(task, limit=(1, 1))
    limited(counting, 5)
    assert counting.calls == 1  # after two of cross-entropy

    made: list[int] = []

    def seconds(self: TimedTask, iters: int, batches: int, payload: Any, device: str) -> float:
        assert batches <= self.train.scored_batches()
        made.append(iters)
        return 10.0 + iters + 3.0 * batches if len(made) > 1 else 99.0  # the first one imports and reads

    monkeypatch.setattr(TimedTask, "_seconds", seconds)
    for size, batches in ((1, 6), (2, 3), (6, 1), (16, 1)):  # of six images
        proxy = replace(task.proxy, iters=50, warmup=20, eval_batch_size=size)
        timed = TimedTask("miou", {}, 2, replace(task, data=replace(task.data, count=[30, 2, 2]), proxy=proxy))
        assert timed.train.scored_batches() == batches
        made.clear()
        assert timed({"timing": {}}, "cpu") == {"seconds": 10.0 + 30 + 3 * batches}


def test_a_limited_training_scores_so_many_batches(task: ProxyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    metric = build_metric("ece", 2)
    monkeypatch.setattr(type(metric), "update_probs", lambda self, probs, labels: seen.append(len(labels)))
    data, proxy = replace(task.data, count=[30, 2, 2]), replace(task.proxy, eval_batch_size=2)
    small = replace(task, data=data, metrics=("ece",), proxy=proxy)
    with monkeypatch.context() as little:
        little.setattr("autoseg.proxy.task.MOST_LOGITS", 7 * 48 * 64)  # of one image
        assert small.scored_batches() == 6
    assert small.scored_batches() == 3
    for limit, batches in ((None, [2, 2, 2]), ((1, 2), [2, 2]), ((1, 9), [2, 2, 2])):
        seen.clear()
        replace(small, limit=limit)(CrossEntropy(), 5)
        assert seen == batches


def test_a_file_is_made_once_by_whoever_comes_first(tmp_path: Path) -> None:
    made, together = [], threading.Barrier(4)

    def make(draft: Path) -> None:
        made.append(draft)
        draft.write_text(str(len(made)))

    def ask(_: int) -> str:
        together.wait()
        return made_once(tmp_path / "new" / "file.safetensors", make).read_text()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == ["1"] * 4
    assert len(made) == 1
