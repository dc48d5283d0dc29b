"""What `gp` loses by seeing only a part of a long history: the race of `efficiency`, five times as long.

`python -m benchmarks.study.cut [SEEDS]` sets a process that sees all against one that sees `MOST` of them, chosen as
the controller chooses: fewer than the controller's own number, so that a race of 320 trainings is long enough to tell.
On both surfaces, the same seeds; half an hour of one core with 10.
"""

from __future__ import annotations

import sys

import numpy as np

from autoseg.controllers import gp
from benchmarks.study.efficiency import CANDIDATES, SURFACES, race
from benchmarks.study.surface import DATA, FloatArray, Recorded, Surface, load

MOST, ROUNDS, SEEDS = 128, 40, 10
SHOWN = (16, 20, 24, 28, 32, 36, 40)  # rounds


def winners(surface: Surface, data: Recorded, most: int, seeds: int, rounds: int) -> FloatArray:
    """The winner's noise-free reward after each round, (seeds, rounds)."""
    usual, gp.MOST = gp.MOST, most
    try:
        return np.array([race(surface, data, "gp", seed, rounds) for seed in range(seeds)])
    finally:
        gp.MOST = usual


def main(seeds: int = SEEDS, rounds: int = ROUNDS) -> None:
    """Race; prints a Markdown table for each surface, in percent of the metric."""
    data = load(DATA / "camvid-miou.csv")
    for kind, trees in SURFACES.items():
        surface = Surface(data, trees)
        whole, cut = (100 * winners(surface, data, most, seeds, rounds) for most in (rounds * CANDIDATES, MOST))
        print(f"Surface, {kind}, {seeds} seeds\n")
        print(f"| trainings | all | {MOST} of them | difference |\n|---:|---:|---:|---:|")
        for round in [shown for shown in SHOWN if shown <= rounds]:
            told, apart = (whole[:, round - 1], cut[:, round - 1]), cut[:, round - 1] - whole[:, round - 1]
            spread = apart.std(ddof=1) / np.sqrt(seeds)
            means = " | ".join(f"{one.mean():.2f} ± {one.std(ddof=1):.2f}" for one in told)
            print(f"| {round * CANDIDATES} | {means} | {apart.mean():.2f} ± {spread:.2f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS)
