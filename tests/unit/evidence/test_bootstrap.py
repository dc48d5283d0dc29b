"""The bootstrap over seeds and images: exact where it can be checked by hand, and honest about no difference."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import stdtrit

from autoseg.errors import InputError
from autoseg.evidence.comparison.bootstrap import DRAWS, Bootstrap, widened
from autoseg.evidence.comparison.contenders import Contender
from autoseg.evidence.comparison.matrix import Matrix
from autoseg.metrics import Metric, base, build_metric, images, names, register_metric
from autoseg.metrics.base import MetricOptions
from autoseg.metrics.images import load_parts, save_parts
from autoseg.store.paired import paired
from autoseg.store.records import TrialRecord

OPTIONS = MetricOptions(4, tolerance=2, drop_background=True)
ADDING = [name for name in names() if getattr(build_metric(name, 4), "adds_over_images", False)]


def seen(name: str, seed: int = 0, images: int = 12) -> Metric:
    """A metric that has seen random maps, some of them without all classes."""
    kept = build_metric(name, 4, tolerance=2, drop_background=True)
    kept.keep_images()
    generator = torch.Generator().manual_seed(seed)
    for size in (5, images - 5):
        pred, labels = (torch.randint(0, 4, (size, 14, 13), generator=generator) for _ in range(2))
        labels[:, :2] = 255
        labels[0], labels[1] = 1, 255
        kept.update(pred, labels)
    return kept


@pytest.mark.parametrize("name", ADDING)
def test_the_parts_of_all_images_make_the_score(name: str) -> None:
    kept, whole = seen(name), build_metric(name, 4, tolerance=2, drop_background=True)
    generator = torch.Generator().manual_seed(0)
    for size in (5, 7):
        pred, labels = (torch.randint(0, 4, (size, 14, 13), generator=generator) for _ in range(2))
        labels[:, :2] = 255
        labels[0], labels[1] = 1, 255
        whole.update(pred, labels)
    assert float(kept.compute()) == pytest.approx(float(whole.compute()), abs=1e-12)
    totals = {key: part.sum(0) for key, part in kept.parts.items()}
    assert float(kept.score_of(totals)) == pytest.approx(float(whole.compute()), abs=1e-12)
    assert all(len(part) == 12 for part in kept.parts.values())


@pytest.mark.filterwarnings("error")
def test_without_a_draw_that_has_a_score_there_is_no_interval() -> None:
    found = widened(paired([0.2, 0.4], [0.1, 0.1]), np.full((2, 50), math.nan), np.zeros((2, 50)), 9)
    assert found.mean == pytest.approx(0.2) and math.isnan(found.low) and not found.significant


def test_the_variances_of_seeds_and_images_add_up() -> None:
    """Resampling two seeds alone would show half of theirs."""
    seeds, moves = np.array([[-1.0], [1.0]]), np.random.default_rng(0).normal(size=4000)
    found = widened(paired([2.0, 4.0], [0.0, 0.0]), 3 + seeds + moves, np.zeros((2, 4000)), 1000)
    whole = 1 + 1  # of the mean of the seeds, of the images
    freedom = whole**2 / (1 / (2 - 1) + 1 / 999)
    assert found.high - found.mean == pytest.approx(stdtrit(freedom, 0.975) * math.sqrt(whole), rel=0.05)


@pytest.mark.parametrize("name", ADDING)
def test_a_draw_is_the_score_of_the_drawn_images(name: str) -> None:
    kept = seen(name)
    drawn = Bootstrap(lambda loss, seed: {name: kept.parts}, OPTIONS)
    scores = drawn._score("ce", 1, name)
    assert scores.shape == (DRAWS,)
    for draw in range(3):
        images = torch.from_numpy(np.repeat(np.arange(12), drawn._draws[draw].astype(int)))  # type: ignore[index]
        totals = {key: part[images].sum(0) for key, part in kept.parts.items()}
        assert scores[draw] == pytest.approx(float(kept.score_of(totals)), abs=1e-12)


def test_a_formula_that_looks_at_its_numbers_is_drawn_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))

    @register_metric
    class Branching(base.registry()["miou"]):  # type: ignore[misc]
        name = "branching"

        def scores(self, s: Any, ratio: Any) -> Any:
            found = super().scores(s, ratio)
            return found if s["and"].sum() > 0 else 0 * found

    parts = seen("miou").parts
    drawn = Bootstrap(lambda loss, seed: {"miou": parts, "branching": parts}, OPTIONS)
    np.testing.assert_array_equal(drawn._score("ce", 1, "branching"), drawn._score("ce", 1, "miou"))


def test_what_was_kept_reads_back_and_shared_counts_are_written_once(tmp_path: Path) -> None:
    parts = {name: seen(name).parts for name in ("miou", "dice", "miou_i")}
    parts["own"] = {"a": torch.zeros(2, 3), "b": torch.zeros(3, 2), "c": torch.zeros(3, 2).int()}  # of the same bytes
    save_parts(tmp_path / "counts" / "a.npz", parts)
    back = load_parts(tmp_path / "counts" / "a.npz")
    assert {name: set(sums) for name, sums in back.items()} == {name: set(sums) for name, sums in parts.items()}
    for name, sums in parts.items():
        assert all(torch.equal(back[name][key], part) for key, part in sums.items())
    with np.load(tmp_path / "counts" / "a.npz", allow_pickle=False) as file:
        assert len(file.files) == 1 + 3 + 4 + 3  # the index; miou's, which are dice's too; miou_i's, whole and by class


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"\x93NUMPY"])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(InputError, match="counts by image: expected a file that a comparison wrote"):
        load_parts(tmp_path / "a.npz")


def test_a_small_file_that_inflates_to_any_size_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_parts(tmp_path / "a.npz", {"miou": {"and": torch.zeros(100_000)}})
    load_parts(tmp_path / "a.npz")
    monkeypatch.setattr(images, "LARGEST", 300_000)
    with pytest.raises(InputError, match=r"counts by image: .*once inflated"):
        load_parts(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("index.npy", b"\0" * 1000)
    with pytest.raises(InputError, match=r"counts by image: .*another way"):
        load_parts(tmp_path / "b.npz")


def test_numbers_that_are_announced_and_not_there_are_one_message(tmp_path: Path) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (10**15,)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("index.npy", head.getvalue())
    with pytest.raises(InputError, match="counts by image"):
        load_parts(tmp_path / "a.npz")


class Trap:
    """Runs code when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('a file of counts was executed')",)


def test_a_file_with_objects_is_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", index=np.array([Trap()], dtype=object))
    with pytest.raises(InputError, match="counts by image"):
        load_parts(tmp_path / "a.npz")


def test_why_a_metric_has_none() -> None:
    def parts(loss: str, seed: int) -> dict[str, dict[str, torch.Tensor]]:
        if seed == 3:
            raise InputError("counts by image", "a file", "none")
        return {"miou": seen("miou").parts}

    drawn = Bootstrap(parts, OPTIONS)
    assert drawn.missing("miou", [("ce", 1)]) == ""
    assert "ece does not add up over images" in drawn.missing("ece", [("ce", 1)])
    assert "counts by image of bf1 were not kept" in drawn.missing("miou+bf1", [("ce", 1)])
    assert "of ce, seed 3, were not kept" in drawn.missing("miou", [("ce", 1), ("ce", 3)])


def test_without_spread_over_images_it_is_the_t_interval() -> None:
    point = paired((0.5, 0.6, 0.7, 0.9, 0.4), (0.4, 0.4, 0.4, 0.5, 0.3))
    same = np.zeros((5, 4000)) + np.array(point.differences)[:, None]
    found = widened(point, same, np.zeros_like(same), 50)
    assert found.high - found.mean == pytest.approx(point.high - point.mean, rel=0.05)  # the draws are finite
    assert found.high - found.mean >= (point.high - point.mean) * 0.999


def test_spread_over_images_widens_it_and_a_loss_against_itself_is_never_marked() -> None:
    point = paired((0.5, 0.6, 0.71, 0.6, 0.6), (0.4, 0.5, 0.6, 0.5, 0.5))
    assert point.significant
    drawn = np.array(point.differences)[:, None] + np.random.default_rng(0).normal(scale=0.2, size=(1, 2000))
    assert not widened(point, drawn, np.zeros_like(drawn), 20).significant
    none = paired((0.5,) * 6, (0.5,) * 6)
    found = widened(none, drawn[[0] * 6], drawn[[0] * 6], 20)
    assert (found.mean, found.low, found.high, found.significant) == (0, 0, 0, False)
    same = paired((0.6,) * 5, (0.5,) * 5)  # trained five times with one seed, so nothing is known of others
    assert not widened(same, np.full((5, 2000), 0.1), np.zeros((5, 2000)), 20).significant
    one = paired((0.5, math.nan), (0.4, 0.2))
    assert widened(one, drawn[:1], drawn[:1], 20) is one


def rates(seed_noise: float, image_noise: float, count: int = 1000) -> tuple[float, float, float]:
    """How often no difference is marked: by this interval, by plain percentiles, by the t interval over seeds.

    Five seeds, 60 images; a training's score is a mean over images, so that draws of images are one product. Every
    image and every seed has a difference of its own, and their interaction some noise more.
    """
    random = np.random.default_rng(1)
    images, seeds, draws = 60, 5, 800
    times = random.multinomial(images, [1 / images] * images, size=draws) / images
    marked = np.zeros((count, 3), dtype=bool)
    for one in range(count):
        each = (
            random.normal(scale=seed_noise, size=(seeds, 1))
            + random.normal(scale=image_noise, size=(1, images))
            + random.normal(scale=0.5, size=(seeds, images))
        )
        drawn = each @ times.T
        point = paired(tuple(each.mean(1)), (0.0,) * seeds)
        picks = random.integers(seeds, size=(seeds, draws))
        low, high = np.percentile(drawn[picks, np.arange(draws)].mean(0), [2.5, 97.5])
        found = widened(point, drawn, np.zeros_like(drawn), images)
        marked[one] = found.significant, not low <= 0 <= high, point.significant
    own, percentiles, t = marked.mean(0)
    return float(own), float(percentiles), float(t)


@pytest.mark.slow
@pytest.mark.parametrize(("seed_noise", "image_noise"), [(1.0, 0.0), (0.0, 4.0), (0.4, 2.0)])
def test_no_difference_is_marked_about_as_often_as_promised(seed_noise: float, image_noise: float) -> None:
    own, percentiles, t = rates(seed_noise, image_noise)
    print(f"marked: bootstrap {own:.3f}, percentiles {percentiles:.3f}, t over seeds {t:.3f}")
    assert 0.005 < own < 0.075


def test_trainings_on_other_images_are_not_paired() -> None:
    parts = {seed: seen("miou", images=11 + seed).parts for seed in (1, 2)}
    drawn = Bootstrap(lambda loss, seed: {"miou": parts[seed]}, OPTIONS)
    drawn._score("ce", 1, "miou")
    with pytest.raises(InputError, match="12 images in all trainings, got 13 in one"):
        drawn._score("ce", 2, "miou")


def test_a_training_that_failed_takes_no_interval_away() -> None:
    def parts(loss: str, seed: int) -> dict[str, dict[str, torch.Tensor]]:
        if seed == 2:
            raise InputError("counts by image", "a file", "none")
        return {"miou": seen("miou").parts}

    among = [Contender(name, name, name, False) for name in ("ce", "jml")]
    records = [
        TrialRecord(-1, 0, "x", one.name, None, seed, state, {"miou": 0.5} if state == "complete" else {})
        for one in among
        for seed, state in ((1, "complete"), (2, "failed"))
    ]
    found = Matrix(among, ["miou"], [1, 2], "ce", records, [], Bootstrap(parts, OPTIONS))
    assert found.without_images == {} and found.interval == "95 % bootstrap interval over seeds and images"
