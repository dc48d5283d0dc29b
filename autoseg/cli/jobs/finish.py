"""The last output of a search: the next commands."""

from __future__ import annotations

import shlex
from pathlib import Path

from autoseg.cli.configuration.named_code import resume_arguments
from autoseg.config import SearchConfig
from autoseg.losses import LossCard
from autoseg.mmconfigs import OF_A_REPORT


def next_step(run_dir: Path, config: SearchConfig) -> list[str]:
    """Return lines that say where the loss is and what to type next."""
    run = shlex.quote(str(run_dir))
    several = LossCard.load(run_dir / "loss.json").space["loss"] != "surrogate"  # no single file of Python has these
    form = "mmseg -o found_loss.py" if several else "python -o found_loss.py"
    return [
        f"The loss: {run_dir / 'loss.json'}   figures: {run_dir / 'figures'}",
        f"See it: autoseg report {run}{resume_arguments(config, OF_A_REPORT)}",
        f"Next: autoseg export {run} --format {form}{resume_arguments(config, ())}",
    ]
