"""README's performance table, made of `results/`: `python -m benchmarks.table` prints it.

A test compares the table in README with what this prints, so that no figure there is without its measurement.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS

SHAPES = ("8x21x128x128", "2x21x512x512")
LABELS = {
    "miou": "mIoU",
    "fwiou": "FWIoU",
    "dice": "Dice",
    "macc": "mAcc",
    "gacc": "gAcc",
    "biou": "BIoU",
    "bf1": "BF1",
}
RIVALS = {"ours": "Lovász-softmax", "segmentation_models_pytorch": "the same in segmentation_models_pytorch"}
MEMORY = {"cross-entropy": "peak memory, cross-entropy", **{name: f"peak memory, {LABELS[name]} surrogate" for name in (
    "miou", "biou", "bf1")}}  # fmt: skip
FIRST, LAST = "<!-- python -m benchmarks.table -->", "<!-- end -->"


def table() -> str:
    """Two tables in Markdown: the losses, and all other benchmarks row by row."""
    return "\n".join([*losses(), "", *others()])


def losses() -> list[str]:
    """One line per loss: ratios to cross-entropy, then peak memory in multiples of the logits; small / large shape.

    The last line is the first batch of a process, in seconds: with the compiler's work / with what an earlier one left.
    """
    rows = {row["what"]: row for row in _rows("losses")}
    lines = [
        "| `python -m benchmarks.run losses` | eager | `compile=True` |",
        "|---|---:|---:|",
    ]
    for metric, label in LABELS.items():
        cells = [_pair(rows, f"{metric}, {kind}") for kind in ("eager", "compiled")]
        lines.append(f"| {label} surrogate | {' | '.join(cells)} |")
    lines += [f"| {label} | {_pair(rows, f'lovasz, {whose}')} | |" for whose, label in RIVALS.items()]
    for name, label in MEMORY.items():
        cells = [_pair(rows, f"{name}{kind}, peak extra memory") for kind in ("", ", compiled")]
        lines.append(f"| {label} | {cells[0]} | {cells[1] if name in LABELS else ''} |")
    return [*lines, _first(rows)]


def _first(rows: dict[str, Any]) -> str:
    built, again = (
        rows[f"miou, first batch, compiled, {when}, {SHAPES[0]}"] for when in ("nothing built", "built before")
    )
    return f"| first batch of a process, mIoU, s | {again['theirs']:.2g} | {built['ours']:.2g} / {again['ours']:.2g} |"


def others() -> list[str]:
    """One line per figure of every other benchmark that has results."""
    lines = ["| what | measured | beside | ratio | command |", "|---|---:|---|---:|---|"]
    for path in sorted(RESULTS.glob("*.json")):
        for row in _rows(path.stem) if path.stem != "losses" else []:
            lines.append(
                f"| {row['what']} | {row['ours']:.3g} {row['unit']} | {row['peer']}, {row['theirs']:.3g} {row['unit']} "
                f"| {row['ratio']:.3g} | `{path.stem}` |"
            )
    return lines


def _pair(rows: dict[str, Any], what: str) -> str:
    found = [rows.get(f"{what}, {shape}") for shape in SHAPES]
    return " / ".join("–" if row is None else f"{row['ratio']:.1f}" for row in found)


def _rows(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["rows"]
    return rows


def written(readme: Path) -> str:
    """The table as README has it."""
    return readme.read_text(encoding="utf-8").partition(FIRST)[2].partition(LAST)[0].strip()


if __name__ == "__main__":
    print(table())
