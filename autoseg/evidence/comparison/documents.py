"""A comparison as files: Markdown for people, LaTeX for a paper, CSV for programs, a figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.evidence.comparison.matrix import Matrix
from autoseg.evidence.comparison.tables import (
    DAGGER,
    DOUBLE_DAGGER,
    DOWN,
    UP,
    cells,
    corrected,
    differences,
    lead,
    legend,
    literal,
    markdown_rows,
    points,
    rows_of,
    spread,
)
from autoseg.files import write_atomic
from autoseg.store.records import counted
from autoseg.store.run_files import RESULTS

SUPERSCRIPTS = {UP: r"\uparrow", DOWN: r"\downarrow", DAGGER: r"\dagger", DOUBLE_DAGGER: r"\ddagger"}
COMMANDS = {"~": "asciitilde", "^": "asciicircum", "\\": "backslash", "<": "less", ">": "greater", "|": "bar"}
LATEX = str.maketrans(
    {character: "\\" + character for character in "&%$#_{}"}
    | {character: rf"\text{command}{{}}" for character, command in COMMANDS.items()}
    | {mark: f"$^{{{command}}}$" for mark, command in SUPERSCRIPTS.items()}
    | {"±": r"$\pm$", "–": "--", "*": r"$\cdot$"}
)


@dataclass(frozen=True)
class About:
    """The circumstances of a comparison, for its headings."""

    data: str  # name of the data set
    split: str  # the images that were scored
    images: int  # number of images
    budget: str  # one line: network, iterations, batch, size
    sources: Mapping[str, str] = field(default_factory=dict)  # card to its source, for found losses
    mixed: str = ""  # which losses had which budget, if there are several
    versions: str = "not recorded"  # versions of the packages it was trained with


def write(matrix: Matrix, about: About, folder: Path) -> None:
    """Write `table.csv`, `differences.csv`, `table.md`, `table.tex` and `figures/forest.png`.

    Raises:
        InputError: no space on the disk.
    """
    from autoseg.evidence.figures import forest  # matplotlib: only now

    write_atomic(folder / RESULTS["compare"], cells(matrix))
    write_atomic(folder / "differences.csv", differences(matrix))
    write_atomic(folder / "table.md", markdown(matrix, about))
    write_atomic(folder / "table.tex", latex(matrix, about))
    (folder / "figures").mkdir(exist_ok=True)
    forest(matrix).savefig(folder / "figures" / "forest.png")


def markdown(matrix: Matrix, about: About) -> str:
    """Return the whole comparison for people: matrix, intervals, classes, how to read it."""
    parts = [
        "# Comparison of losses",
        literal(
            f"{about.data}, {about.split} split ({about.images} images). {about.budget}. "
            f"{counted(len(matrix.seeds), 'seed')} ({', '.join(map(str, matrix.seeds))}), shared by all losses."
        ),
        *([f"**{literal(about.mixed)}**"] if about.mixed else []),
        markdown_rows(*rows_of(matrix, "**{}**")),
        literal(" ".join(legend(matrix))),
        *(f"`{name}` is {literal(source)}." for name, source in about.sources.items()),
        f"Versions: {literal(about.versions)}.",
        "## Best",
        "\n".join(f"- {literal(lead(matrix, metric))}" for metric in matrix.metrics),
        "## Differences",
        f"Percentage points, mean of the paired differences with its {matrix.interval}.",
        *(part for metric in matrix.metrics for part in _difference_part(matrix, metric)),
        "## Classes",
        *(part for metric in matrix.metrics for part in _class_part(matrix, metric)),
    ]
    return "\n\n".join(parts) + "\n"


def _difference_part(matrix: Matrix, metric: str) -> list[str]:
    rival = matrix.best_hand_made(metric)
    heads = {matrix.reference: f"to {matrix.reference}"}
    if rival is not None:
        heads[rival] = f"to {rival}, the best hand-made"
    rows = []
    for name in matrix.names:
        found = {other: matrix.difference(name, other, metric) for _, other in matrix.opponents(name, metric)}
        rows.append([name, *(points(found[other]) if other in found else "" for other in heads)])
    note = corrected(matrix, metric, list(heads))
    table = markdown_rows(["loss", *heads.values()], rows)
    return [f"### {literal(metric)}", table, *([literal(note)] if note else [])]


def _class_part(matrix: Matrix, metric: str) -> list[str]:
    rows = [
        [label, *(spread(matrix.of_class(name, metric, label)) for name in matrix.names)] for label in matrix.classes
    ]
    if not any(matrix.of_class(name, metric, label).n for name in matrix.names for label in matrix.classes):
        return [f"### {literal(metric)}", "Has no score of its own for each class."]
    return [f"### {literal(metric)}", markdown_rows(["class", *matrix.names], rows)]


def latex(matrix: Matrix, about: About) -> str:
    """Return the matrix as a table for a paper; needs booktabs."""
    head, rows = rows_of(matrix, r"\textbf{{{}}}")
    lines = [" & ".join(_tex(cell) for cell in row) + r" \\" for row in rows]
    mixed = f" {about.mixed}" if about.mixed else ""
    caption = f"{about.data}, {about.split}, {counted(len(matrix.seeds), 'seed')}.{mixed} {' '.join(legend(matrix))}"
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{_tex(caption)}}}",
            rf"  \begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
            r"    \toprule",
            "    " + " & ".join(_tex(cell) for cell in head) + r" \\",
            r"    \midrule",
            *(f"    {line}" for line in lines),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _tex(text: str) -> str:
    """Escape for LaTeX, except the bold face that `rows_of` added."""
    if text.startswith(r"\textbf{"):
        inside, _, rest = text.removeprefix(r"\textbf{").partition("}")
        return rf"\textbf{{{_tex(inside)}}}{_tex(rest)}"
    return " ".join(text.split()).translate(LATEX)
