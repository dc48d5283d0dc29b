"""Draws the `figures/` of a finished search: its progress, and the loss that it found."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autoseg.errors import InputError, first_line
from autoseg.evidence import figures, sampled
from autoseg.losses import LossCard
from autoseg.store.ledger import Ledger
from autoseg.store.records import COMPLETE, SearchResult, by_round


def draw(result: SearchResult, theta_names: Sequence[str]) -> str | None:
    """Write the figures of a search, which is whole without them.

    Args:
        result: of the search.
        theta_names: those of the search space.

    Returns:
        Why they could not be written, None if they were.
    """
    try:
        _draw(result, theta_names)
    except (OSError, InputError) as error:  # a full disk; a ledger that went away
        return f"the figures could not be written: {first_line(error)}. `autoseg report` draws them from the run."
    return None


def _draw(result: SearchResult, theta_names: Sequence[str]) -> None:
    folder = result.run_dir / "figures"
    folder.mkdir(exist_ok=True)
    with Ledger(result.run_dir / "trials.db", theta_names, read_only=True) as ledger:
        rounds = by_round(ledger.records("search"))
    rewards = [[r.reward if r.state == COMPLETE else math.nan for r in one] for one in rounds]
    card = LossCard.load(result.run_dir / "loss.json")
    loss = card.build(card.num_classes or 2).surrogate
    drawn = {"reward": figures.reward_by_round(rewards, result.metric)}
    if loss is not None:
        drawn["curves"] = figures.curves(sampled.curve_points(loss), sampled.published_points(card.metric))
        drawn["surfaces"] = figures.surfaces(sampled.operands(loss))
    if result.rows:
        scores = {row.name: row.values for row in result.rows}
        drawn["confirmation"] = figures.confirmation(scores, result.metric, result.best.name)
    for name, figure in drawn.items():
        figure.savefig(folder / f"{name}.png")
