"""What is studied and how large: the figures in docs, and the same in minutes to try whether all of it works."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autoseg.cli.configuration import compose
from autoseg.cli.configuration.check import check
from autoseg.cli.jobs import search as search_job
from autoseg.config import SearchConfig
from autoseg.training import build_model


@dataclass(frozen=True)
class Study:
    """Short trainings for one metric on one data set.

    Args:
        name: of its files.
        settings: of every search, as `autoseg search` takes them.
        rounds: controller to the rounds of its search. Random search is what the surface is fitted to and the savings
            are measured on; with others, what each found is compared.
        candidates: of a round.
        executor: of all trainings.
        seeds: of the comparison.
        racers: seeds of each controller on the surface.
        spread: candidates of the random search on which the savings are measured.
    """

    name: str
    settings: tuple[str, ...]
    rounds: Mapping[str, int]
    candidates: int = 8
    executor: str = "processes"
    seeds: int = 5
    racers: int = 20
    spread: int = 24

    def search(self, controller: str) -> list[str]:
        """Settings of one search; it confirms what it finds, without rivals."""
        rounds, candidates = f"search.rounds={self.rounds[controller]}", f"search.candidates={self.candidates}"
        rivals = "search.confirm.rivals=[]"
        return [*self.settings, f"controller={controller}", rounds, candidates, rivals]

    def check(self) -> None:
        """Find now what would only fail in the first training.

        Raises:
            InputError: data or weights that are missing or of something else.
        """
        config = compose.compose("search", SearchConfig, self.search("random"))
        check(config)
        build_model(config.model, search_job.build(config).data.num_classes, seed=0)


def full(data: str, weights: str) -> list[Study]:
    """CamVid with MobileNetV2: hours."""
    camvid = ("experiment=camvid", f"data.root={data}", f"model.weights={weights}")
    confirmed = ("search.confirm.top=3", "search.confirm.seeds=2")
    miou = (*camvid, "metric=miou", "proxy.iters=80", *confirmed)
    smaller = ("proxy.size=[96,128]", "proxy.crop=64")  # a half of the time
    biou = (*camvid, "metric=biou", "proxy.iters=80", *smaller, "search.confirm.top=0")
    return [
        Study("camvid-miou", miou, {"random": 12, "cmaes": 4, "ppo": 4, "tpe": 4, "gp": 4}),
        Study("camvid-biou", biou, {"random": 3}),
    ]


def tiny() -> list[Study]:
    """Both kinds of study on a few built-in images, in this process: says nothing about losses."""
    builtin = (
        "experiment=smoke", "data.count=[10,4,4]", "proxy.iters=6", "proxy.batch_size=2", "proxy.size=[32,32]",
        "proxy.crop=32", "tolerance=1", "tracker=none",
    )  # fmt: skip
    confirmed = ("search.confirm.top=1", "search.confirm.seeds=1")
    size = {"executor": "inline", "candidates": 5, "seeds": 2, "racers": 1, "spread": 5}
    return [
        Study("builtin-miou", (*builtin, *confirmed), {"random": 2, "tpe": 1}, **size),
        Study("builtin-biou", (*builtin, "metric=biou", "search.confirm.top=0"), {"random": 1}, **size),
    ]
