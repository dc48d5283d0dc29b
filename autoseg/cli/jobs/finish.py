"""What a search leaves its user with: the table of the confirmation, the next commands."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

from autoseg.cli.configuration.named_code import resume_arguments
from autoseg.config import PAPER_METRICS, SearchConfig
from autoseg.losses import LossCard
from autoseg.metrics import names
from autoseg.mmconfigs import OF_A_REPORT
from autoseg.store.records import Row, SearchResult, counted, percent


def table(result: SearchResult) -> list[str]:
    """The confirmation as lines of text, best first: the target with its spread, then the paper's metrics.

    Where a floor cuts a reward, that is a column too.
    """
    if not result.rows:
        return []
    others = [name for name in (*PAPER_METRICS, *names()) if name != result.metric and name in result.best.scores]
    others = list(dict.fromkeys(others))[:6]
    width = max(len(row.name) for row in result.rows) + 2
    columns = ["reward", *others] if any(row.cut for row in result.rows) else others
    head = f"{'loss':<{width}}{result.metric:>13}  " + "".join(f"{name:>8}" for name in columns)
    lines = [_line(row, width, columns, row.name == result.best.name) for row in result.rows]
    seeds, iters = len(result.rows[0].values), result.best.iters
    budget = f"Same budget of {iters} iterations" if iters else "Same budget"
    return [
        f"{budget}, {counted(seeds, 'fresh seed')}, held-out images, percent (mean ± std; * the winner):",
        head,
        *lines,
    ]


def _line(row: Row, width: int, columns: list[str], won: bool) -> str:
    spread = f"{percent(row.mean)} ± {percent(row.std)}" + ("*" if won else " ")
    failed = f"   ({len(row.values) - row.n} failed)" if row.n < len(row.values) else ""
    shown = {**row.scores, "reward": row.reward}
    scores = "".join(f"{percent(shown.get(name, math.nan)):>8}" for name in columns)
    return f"{row.name:<{width}}{spread:>14} {scores}{failed}"


def next_step(run_dir: Path, config: SearchConfig) -> list[str]:
    """Where the loss is and what to type next."""
    run = shlex.quote(str(run_dir))
    several = LossCard.load(run_dir / "loss.json").space["loss"] != "surrogate"  # no single file of Python has these
    form = "mmseg -o found_loss.py" if several else "python -o found_loss.py"
    return [
        f"The loss: {run_dir / 'loss.json'}   figures: {run_dir / 'figures'}",
        f"See it: autoseg report {run}{resume_arguments(config, OF_A_REPORT)}",
        f"Next: autoseg export {run} --format {form}{resume_arguments(config, ())}",
    ]
