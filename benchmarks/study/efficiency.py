"""Which controller needs the fewest trainings: all of them on one response surface, at equal budgets, over many seeds.

`python -m benchmarks.study.efficiency [FILE …]` races on the trainings of a search that `make study` has recorded in a
file, or of several with one proxy; by default on those of the random search behind docs/search_efficiency.md.

Each entrant asks for rounds of 8 candidates, is told noisy rewards, and ends as a search ends: the best four and, if
it has one, its mean are trained again with three fresh seeds and the best of them is the winner. What counts is the
winner's reward on the surface, without noise. The surface is fitted twice, as a Gaussian process and as a forest: one
entrant models rewards as the first does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.controllers import build_controller
from autoseg.files import write_atomic
from benchmarks.study.shown import show
from benchmarks.study.surface import DATA, FloatArray, Recorded, Surface, load

ROUNDS, CANDIDATES, SEEDS = 8, 8, 20
TOP, FRESH = 4, 3
ENTRANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("random", {}),
    "ppo, per dimension": ("ppo", {}),
    "ppo, joint ratio": ("ppo", {"ratio": "joint"}),
    "ppo, per dimension, std to 0.05": ("ppo", {"std_end": 0.05, "rounds": ROUNDS}),
    "ppo, joint ratio, std to 0.05": ("ppo", {"ratio": "joint", "std_end": 0.05, "rounds": ROUNDS}),
    "ppo, per dimension, mean policy (the release's)": ("ppo", {"baseline": "mean_policy"}),
    "tpe": ("tpe", {}),
    "cmaes": ("cmaes", {}),
    "gp": ("gp", {}),
}
SURFACES = {"a Gaussian process": False, "extremely randomized trees": True}


def race(surface: Surface, data: Recorded, entrant: str, seed: int, rounds: int = ROUNDS) -> list[float]:
    """The winner's noise-free reward if the search had ended after each round, (rounds,)."""
    name, options = ENTRANTS[entrant]
    controller = build_controller(name, dim=len(data.names), mean=data.identity.tolist(), seed=seed, **options)
    rng = np.random.default_rng(seed)
    asked: list[FloatArray] = []
    told: list[FloatArray] = []
    winners = []
    for _ in range(rounds):
        thetas = controller.ask(CANDIDATES)
        rewards = surface(thetas) + rng.normal(0, surface.noise, CANDIDATES)
        controller.tell(thetas, rewards)
        asked.append(thetas)
        told.append(rewards)
        winners.append(_winner(surface, np.concatenate(asked), np.concatenate(told), controller, rng))
    return winners


def _winner(surface: Surface, asked: FloatArray, told: FloatArray, controller: Any, rng: np.random.Generator) -> float:
    finalists = asked[np.argsort(-told)[:TOP]]
    mean = getattr(controller, "mean", None)
    if mean is not None:
        finalists = np.vstack([finalists, mean])
    true = surface(finalists)
    confirmed = true + rng.normal(0, surface.noise / np.sqrt(FRESH), len(true))
    return float(true[confirmed.argmax()])


def study(*files: Path, seeds: int = SEEDS) -> dict[str, Any]:
    """All entrants with all seeds on both surfaces; plain data."""
    data = load(*files)
    return {kind: _races(Surface(data, trees), data, seeds) for kind, trees in SURFACES.items()}


def _races(surface: Surface, data: Recorded, seeds: int) -> dict[str, Any]:
    runs = {e: np.array([race(surface, data, e, seed) for seed in range(seeds)]) for e in ENTRANTS}
    goal = float(np.median(runs["random"][:, -1]))  # what random search reaches with the whole budget
    return {
        "surface": {"trainings": len(data.rewards), "rmse": surface.rmse, "tau": surface.tau,
                    "noise": surface.noise, "std": surface.spread, "identity": float(surface(data.identity)[0])},
        "goal": goal,
        "entrants": {
            entrant: {
                "winner_by_round": winners.mean(0).round(5).tolist(),
                "std_by_round": winners.std(0, ddof=min(1, seeds - 1)).round(5).tolist(),
                "trainings_to_goal": _trainings_to(winners, goal),
            }
            for entrant, winners in runs.items()
        },
    }  # fmt: skip


def _trainings_to(winners: FloatArray, goal: float) -> float | None:
    """Median over the seeds of the trainings until the winner reaches `goal`; None if half of them never do."""
    reached = winners >= goal
    rounds = np.where(reached.any(1), reached.argmax(1) + 1, np.inf)
    middle = float(np.median(rounds))
    return None if np.isinf(middle) else middle * CANDIDATES


def tables(results: dict[str, Any]) -> str:
    """The result as Markdown, in percent of the metric."""
    return "\n\n".join(_table(kind, result) for kind, result in results.items())


def _table(kind: str, result: dict[str, Any]) -> str:
    s = result["surface"]
    lines = [
        f"Surface, {kind}: {s['trainings']} trainings, left-out error {100 * s['rmse']:.2f} points (rewards vary by "
        f"{100 * s['std']:.2f}), Kendall's tau {s['tau']:.2f}, noise {100 * s['noise']:.2f}; "
        f"identity curves {100 * s['identity']:.1f}.",
        "",
        f"| controller | after 24 | after 40 | after 64 | trainings to {100 * result['goal']:.1f} |",
        "|---|---:|---:|---:|---:|",
    ]
    for entrant, r in result["entrants"].items():
        at = [f"{100 * r['winner_by_round'][i]:.2f} ± {100 * r['std_by_round'][i]:.2f}" for i in (2, 4, 7)]
        needed = r["trainings_to_goal"]
        lines.append(f"| {entrant} | {' | '.join(at)} | {'more' if needed is None else f'{needed:.0f}'} |")
    return "\n".join(lines)


def write(file: Path, to: Path, seeds: int) -> None:
    """Race on the surface of `file`; prints the table and writes it to `to`, the figures beside it as JSON."""
    result = study(file, seeds=seeds)
    write_atomic(to.with_suffix(".json"), json.dumps(result, indent=1) + "\n")
    print(tables(result))
    write_atomic(to, tables(result) + "\n")


if __name__ == "__main__":
    show(__doc__, DATA / "camvid-miou.csv", lambda *files: tables(study(*files)), several=True)
