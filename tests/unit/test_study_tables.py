"""The tables of README and the studies: the kept trainings give the figures, and nothing divides by zero."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.study import savings_table
from benchmarks.study.savings import COLUMNS, ENTRANTS, FIRST, SECOND, SHARES
from benchmarks.study.savings_table import load, table
from benchmarks.study.surface import DATA, Recorded, Surface

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(autouse=True)
def few_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines below the table, where the pruner meets the candidates in other orders, are not looked at here."""
    monkeypatch.setattr(savings_table, "ORDERS", 1)


def cells(text: str, name: str) -> list[str]:
    """Of the row that begins with `name`."""
    (row,) = (line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.mark.parametrize("name", ["camvid-miou", "camvid-biou"])
def test_the_figures_in_docs_are_those_of_the_kept_trainings(name: str) -> None:
    docs = (DOCS / "savings.md").read_text(encoding="utf-8").partition(f"{name}-savings.csv")[2]
    told = table(load(DATA / f"{name}-savings.csv"))
    for row, written in {
        SECOND: "unabridged",
        "warm-up of a third": "`proxy.warmup=26`",
        "frozen backbone": "`proxy.backbone=frozen`",
    }.items():
        _, tau, _, _, _, cost, _, winner, _ = cells(told, row)
        assert cells(docs.partition("\n\n")[2].partition("\n\n")[0], written)[1:] == [
            tau, "1" if row == SECOND else cost, winner,
        ]  # fmt: skip


def test_the_first_table_of_readme_is_the_comparisons() -> None:
    pages = (DOCS.parent / "README.md", DOCS / "camvid-miou" / "ten-seeds.md")
    readme, table = (page.read_text(encoding="utf-8") for page in pages)
    readme, table = readme.partition("| loss | mIoU |")[2].partition("\n\n")[0], table.partition("\n\nPercent")[0]
    named = {
        "weighted cross-entropy": "wce", "cross-entropy": "ce", "Lovász-softmax": "lovasz", "JML, log": "jml(log=true)",
        "mIoU surrogate, identity curves": "identity/miou", "Tversky, 0.3 and 0.7": "tversky", "Dice": "dice",
        "mIoU surrogate, the paper's published curves": "asl2021/miou", "**found by the search**": "camvid/miou",
    }  # fmt: skip
    assert readme.count("\n| ") == len(named) == table.count(" ± ") / 4
    for written, name in named.items():
        scores = [re.sub("[↑↓†‡]", "", cell) for cell in cells(table, name)[1:-1]]
        assert cells(readme, written)[1:] == scores


def recorded(path: Path) -> Path:
    """Three candidates with one and the same score, whoever trains them."""
    rungs = ["0.1"] * len(SHARES)
    rows = [",".join(COLUMNS)]
    for training in (FIRST, *ENTRANTS):
        for number in range(3):
            rows.append(",".join([f"candidate 0.{number}", f'"{training}"', "A", "0.25", "2.0", "3.0", *rungs]))
    path.write_text("\n".join(rows) + "\n")
    return path


def test_equal_scores_rank_nothing_and_lose_nothing(tmp_path: Path) -> None:
    told = table(load(recorded(tmp_path / "equal.csv")))
    for name in ("warm-up of a third", "median rule"):
        _, tau, share, again, _, cost, _, winner, lost = cells(told, name)
        assert (tau, share, again, winner, lost) == ("–", "–", "–", "25.0", "0.0")
        assert float(cost) == 1.0
    assert "nan" not in told


@pytest.mark.parametrize("trees", [False, True])
def test_equal_rewards_are_a_flat_surface(trees: bool) -> None:
    thetas = np.random.default_rng(0).random((6, 2))
    surface = Surface(Recorded(("a", "b"), thetas, np.full(6, 0.3), np.full(2, 0.5)), trees)
    assert surface.spread == 0 and surface.rmse == pytest.approx(0, abs=1e-6)
    assert surface(thetas) == pytest.approx(np.full(6, 0.3))
