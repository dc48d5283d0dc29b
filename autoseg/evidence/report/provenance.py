"""The sections that every run has: its cost, and where it comes from."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import autoseg
from autoseg.evidence.comparison import made_with
from autoseg.evidence.comparison.contenders import sources
from autoseg.evidence.report import plots
from autoseg.evidence.report.blocks import Block, Cell, Code, Facts, Plot, Section, Table, Text
from autoseg.evidence.report.read import ComparisonRun, Run, SearchRun
from autoseg.store.records import COMPLETE, TrialRecord, duration
from autoseg.store.versions import describe_versions


def exactly(seconds: float) -> str:
    """Format a duration as `duration` does, but with tenths below ten seconds: "4.2 s"."""
    return f"{seconds:.2g} s" if seconds < 10 else duration(seconds)


def cost_section(run: Run, colour_of: Mapping[str, str], group_of: Callable[[TrialRecord], str]) -> Section:
    """Build the section with the seconds of every training and their sum; arguments as in `plots.seconds`."""
    done = run.done
    total = sum(record.seconds for record in done)
    lost = [record for record in done if record.state != COMPLETE]
    facts = [
        ("trainings with a result", f"{len(done)} of {run.total}"),
        ("time of all, added up", exactly(total)),
        ("median of one", exactly(median([record.seconds for record in done]))),
        ("workers", str(run.config.get("workers", "not recorded"))),
        ("without a score", str(len(lost))),
    ]
    note = "Wall-clock time of each training's last attempt; a worker's first one includes its start."
    blocks: list[Block] = [Facts(facts), Plot("Seconds by training", plots.seconds(done, colour_of, group_of), 300)]
    if lost:
        blocks.append(_lost(lost))
    return Section("cost", "Cost", [*blocks, Text(note, "note")])


def _lost(records: Sequence[TrialRecord]) -> Table:
    rows = [[Cell(r.name), Cell(str(r.seed)), Cell(r.state), Cell(str(r.attempts)), Cell(r.why)] for r in records]
    return Table(["training", "seed", "state", "attempts", "why"], rows, "Trainings without a score", folded=True)


def origin_section(run: SearchRun | ComparisonRun, command: str) -> Section:
    """Build the section with versions, data, seeds, and the command that repeats the run."""
    facts = [
        ("run folder", run.path.name),
        ("data", run.data_name),
        ("fingerprint of the data", str(run.fixed.get("data", "not recorded"))),
        *_budget(run),
        *(_of_search(run) if isinstance(run, SearchRun) else _of_comparison(run)),
        ("this page by", f"autoseg {autoseg.__version__}, Python {platform.python_version()}"),
    ]
    return Section("origin", "Provenance", [Facts(facts), Code(command, "To repeat it")])


def _budget(run: Run) -> list[tuple[str, str]]:
    if "proxy" not in run.config:
        return [("budget", "your own training function")]
    proxy, model = run.config["proxy"], run.config["model"]
    size = "x".join(str(side) for side in proxy["size"])
    text = f"{proxy['iters']} iterations of {proxy['batch_size']} crops of {proxy['crop']} px, images of {size} px"
    return [("network", str(model["name"])), ("one training", text)]


def _of_search(run: SearchRun) -> list[tuple[str, str]]:
    fresh = sorted({record.seed for record in run.confirmation})
    controller = ", ".join(f"{key} {value}" for key, value in _settings(run.fixed["controller"]))
    return [
        ("versions", describe_versions(run.card.provenance.get("versions") if run.card else None)),
        ("seed of the search", str(run.fixed["seed"])),
        ("fresh seeds", ", ".join(map(str, fresh)) or "none"),
        *([("confirmed for", f"{run.result.best.iters} iterations each")] if run.result.best.iters else []),
        ("space", f"{run.space.name}, {run.space.dim} numbers"),
        *([("found", run.space.loss_text(run.card.theta))] if run.card and run.space.scalars else []),
        ("controller", controller),
        ("floor", str(run.fixed.get("floor") or "none")),
    ]


def _settings(controller: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return a controller's settings, one level deep."""
    flat = {**controller, **controller.get("settings", {})}
    return [(key, value) for key, value in flat.items() if isinstance(value, str | int | float)]


def _of_comparison(run: ComparisonRun) -> list[tuple[str, str]]:
    return [
        ("versions", made_with.versions_of(run.path)),
        ("split", str(run.fixed["split"])),
        ("seeds", ", ".join(map(str, run.seeds))),
        *((f"loss {name}", source) for name, source in sources(run.among).items()),
    ]
