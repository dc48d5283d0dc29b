"""The last output of a search: the next commands."""

from __future__ import annotations

import shlex
from pathlib import Path

from autoseg.cli.configuration.named_code import resume_arguments
from autoseg.cli.configuration.overrides import and_imports, typed
from autoseg.cli.configuration.repeat import data_and_model
from autoseg.config import SearchConfig
from autoseg.evidence.comparison.rivals import texts_of
from autoseg.losses import LossCard
from autoseg.mmconfigs import OF_A_REPORT
from autoseg.store.records import Finding


def next_step(run_dir: Path, config: SearchConfig, found: Finding) -> list[str]:
    """Return lines that say where the loss is and what to type next; if a rival is ahead, to train with that."""
    run, code = shlex.quote(str(run_dir)), resume_arguments(config)
    several = LossCard.load(run_dir / "loss.json").space["loss"] != "surrogate"  # no single file of Python has these
    form = "mmseg -o found_loss.py" if several else "python -o found_loss.py"
    export = f"autoseg export {run} --format {form}{resume_arguments(config, ())}"
    lines = [
        f"The loss: {run_dir / 'loss.json'}   figures: {run_dir / 'figures'}",
        f"See it: autoseg report {run}{resume_arguments(config, OF_A_REPORT)}",
    ]
    if found.confirmed:  # its seeds have chosen it
        lines.append(f"Compare with fresh seeds: {_comparison(run_dir, config, found)}{code}")
    if not found.behind:
        return [*lines, f"Next: {export}"]
    ahead = texts_of(run_dir, config.metric).get(found.behind[0], found.behind[0])
    best = f"identity/{config.metric}" if ahead == "identity" else ahead
    longer = f"autoseg search {typed('resume', str(run_dir))} search.rounds={2 * config.search.rounds}{code}"
    return [
        *lines,
        f"Export: {export}",
        f"Next: search longer: {longer}",
        f"or train with {found.behind[0]}, which is no worse: autoseg retrain "
        f"{' '.join([typed('loss', best), *data_and_model(config)])}{and_imports(config.imports)}",
    ]


def _comparison(run_dir: Path, config: SearchConfig, found: Finding) -> str:
    """Return the command that compares the loss with the rivals under the budget of its confirmation."""
    texts = texts_of(run_dir, config.metric)
    losses = [*(texts.get(name, name) for name in dict.fromkeys(config.search.confirm.rivals)), str(run_dir)]
    losses = losses if len(losses) > 1 else ["ce", *losses]
    reference = "" if "ce" in losses else f" {typed('reference', losses[0])}"
    iters = f" proxy.iters={found.iters}" if found.iters else ""
    where = " executor=ray" if config.executor.name == "ray" else ""
    return f"autoseg compare {typed('losses', losses)}{reference} {typed('like', str(run_dir))}{iters}{where}"
