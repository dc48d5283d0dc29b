"""A comparison as text: every cell as CSV, the paper-style matrix for the terminal, the best loss in a sentence."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence

from autoseg.evidence.comparison.matrix import HAND_MADE, REFERENCE, Matrix
from autoseg.metrics import higher_is_better, score_of
from autoseg.store.paired import CONFIDENCE, LEAST_SEEDS, Paired, Summary
from autoseg.store.records import COMPLETE, percent

UP, DOWN, DAGGER, DOUBLE_DAGGER = "↑", "↓", "†", "‡"
MARKS = {REFERENCE: (UP, DOWN), HAND_MADE: (DAGGER, DOUBLE_DAGGER)}  # surely above, surely below


def points(difference: Paired) -> str:
    """Format a difference with its interval, in percentage points: "+1.2 [0.3, 2.1]"."""
    if math.isnan(difference.mean):
        return "–"
    interval = "" if math.isnan(difference.low) else f" [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
    return f"{100 * difference.mean:+.1f}{interval}"


def marks(matrix: Matrix, name: str, metric: str) -> str:
    """Return ↑ or ↓ if a loss is surely above or below the reference, † or ‡ for the best hand-made loss."""
    found = ""
    for role, other in matrix.opponents(name, metric):
        difference = matrix.difference(name, other, metric)
        if difference.significant:
            found += MARKS[role][difference.mean < 0]
    return found


def cells(matrix: Matrix) -> str:
    """Return CSV with a line per training: its state, time and every score as a share of 1 (empty: there is none)."""
    records = [record for name in matrix.names for record in matrix.row(name)]
    scores = list(dict.fromkeys(name for record in records for name in record.scores))
    sums = [metric for metric in matrix.metrics if metric not in scores]
    head = ["loss", "kind", "seed", "state", "seconds", "attempts", *sums, *scores]
    lines: list[list[object]] = [
        [r.name, r.kind, r.seed, r.state, round(r.seconds, 3), r.attempts]
        + [number(score_of(r.scores, metric)) for metric in sums]
        + [number(r.scores.get(name, math.nan)) for name in scores]
        for r in records
    ]
    return csv_text([head, *lines])


def differences(matrix: Matrix) -> str:
    """Return CSV with a line per loss, metric and opponent: mean difference, interval, whether it is marked.

    Then the p value of the paired t test, and the same adjusted by Holm for all losses with that opponent and metric;
    both are empty for a bootstrap's interval.
    """
    head: list[object] = ["metric", "loss", "against", "role", "seeds", "mean", "low", "high", "marked", "p", "p holm"]
    lines: list[list[object]] = [head]
    for metric in matrix.metrics:
        opponents = {other for name in matrix.names for _, other in matrix.opponents(name, metric)}
        tests = {other: (matrix.p_values(other, metric), matrix.holm(other, metric)) for other in opponents}
        for name in matrix.names:
            for role, other in matrix.opponents(name, metric):
                d = matrix.difference(name, other, metric)
                p = [number(found[name]) for found in tests[other]]
                lines.append(
                    [metric, name, other, role, d.n, *map(number, (d.mean, d.low, d.high)), int(d.significant), *p]
                )
    return csv_text(lines)


def legend(matrix: Matrix, best: str = "bold") -> list[str]:
    """Explain how to read the matrix, in sentences; `best` says how the best mean looks."""
    texts = [f"Percent, mean ± standard deviation over seeds; {best}: the best mean."]
    if errors := [metric for metric in matrix.metrics if not higher_is_better(metric)]:
        texts.append(f"Lower is better for {', '.join(errors)}.")
    texts += [
        f"Intervals of {metric} are t intervals over seeds: {reason}."
        for metric, reason in matrix.without_images.items()
    ]
    if len(matrix.seeds) < LEAST_SEEDS:
        return [*texts, f"Nothing is marked: that takes {LEAST_SEEDS} seeds or more."]
    others = f"{UP} {DOWN}: above or below {matrix.reference}"
    if any(matrix.best_hand_made(metric) is not None for metric in matrix.metrics):
        others += f"; {DAGGER} {DOUBLE_DAGGER}: above or below the best hand-made loss of the column"
    return [*texts, f"{others} ({matrix.interval} excludes zero; not corrected for the number of cells)."]


def rows_of(matrix: Matrix, bold: str = "{}") -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the matrix: losses by metrics, time, failures if any; `bold` is put around the best."""
    best = {metric: matrix.leaders(metric) for metric in matrix.metrics}
    rows = []
    for name in matrix.names:
        texts = []
        for metric in matrix.metrics:
            text = spread(matrix.cell(name, metric))
            texts.append((bold.format(text) if name in best[metric] else text) + marks(matrix, name, metric))
        rows.append([name, *texts, seconds(matrix, name), failed(matrix, name)])
    head = ["loss", *matrix.metrics, "s / run", "failed"]
    if not any(row[-1] for row in rows):
        return head[:-1], [row[:-1] for row in rows]
    return head, rows


def spread(cell: Summary) -> str:
    """Format mean ± std in percent."""
    return f"{percent(cell.mean)} ± {percent(cell.std)}" if cell.n > 1 else percent(cell.mean)


def seconds(matrix: Matrix, name: str) -> str:
    """Format the seconds of a training."""
    value = matrix.seconds(name)
    return "–" if math.isnan(value) else f"{value:.3g}"


def failed(matrix: Matrix, name: str) -> str:
    """Format the number of a loss's trainings that did not complete; empty if none."""
    count = sum(record.state != COMPLETE for record in matrix.row(name))
    return f"{count} of {len(matrix.seeds)}" if count else ""


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Format a table as lines of text, with its first column to the left and numbers to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in [head, *rows]
    ]


def markdown_rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a table in Markdown, aligned as by `aligned`."""
    named = [[literal(name), *cells] for name, *cells in rows]
    lines = [list(map(literal, head)), ["---", *["---:"] * (len(head) - 1)], *named]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def literal(text: str) -> str:
    """Escape a text for Markdown: the stars of "0.25*ce+0.75*jml" are no emphasis, no class is markup."""
    return re.sub(r"([\\|*<`\[&$~]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(text.split()))


def sentences(matrix: Matrix) -> list[str]:
    """Return a sentence for each metric: the best loss, and by how much."""
    return [_sentence(matrix, metric) for metric in matrix.metrics]


def _sentence(matrix: Matrix, metric: str) -> str:
    leaders = matrix.leaders(metric)
    if not leaders:
        return f"{metric}: no training has a score."
    best, *tied = leaders
    opponents = [(role, other) for role, other in matrix.opponents(best, metric) if other not in tied]
    # A loss with both roles is mentioned once, one without a score under the same seeds not at all.
    found = {other: role for role, other in opponents if matrix.difference(best, other, metric).n}
    if not found and (next_best := matrix.best(metric, lambda loss: loss.name not in leaders)) is not None:
        found = {next_best: "next"}
    against = [_against(matrix, best, other, role, metric) for other, role in found.items()]
    who = f"{', '.join(leaders)} tie" if tied else f"{best} is best"
    return "; ".join([f"{metric}: {who} with {spread(matrix.cell(best, metric))}", *against]) + "."


def corrected(matrix: Matrix, metric: str, opponents: Sequence[str]) -> str:
    """Say which differences to each opponent stay certain if Holm's correction is applied; empty below five seeds."""
    if len(matrix.seeds) < LEAST_SEEDS:
        return ""
    texts = []
    for other in opponents:
        sure = [f"{name} (p {p:.2g})" for name, p in _sure(matrix, other, metric).items()]
        texts.append(f"to {other} {', '.join(sure) or 'none'}")
    note = "Not corrected for the number of losses"
    if all(math.isnan(p) for other in opponents for p in matrix.p_values(other, metric).values()):
        return f"{note}."
    return f"{note}; with Holm's correction these stay certain: {'; '.join(texts)}."


def _sure(matrix: Matrix, other: str, metric: str) -> dict[str, float]:
    """Return the losses whose difference to another is certain also with Holm's correction, with the adjusted p."""
    return {
        name: p
        for name, p in matrix.holm(other, metric).items()
        if p <= 1 - CONFIDENCE and matrix.difference(name, other, metric).significant
    }


def lead(matrix: Matrix, metric: str) -> str:
    """Return a sentence on the best loss of a metric: which of all others it is certainly ahead of."""
    leaders = matrix.leaders(metric)
    if not leaders:
        return f"{metric}: no training has a score."
    best = leaders[0]
    others = [name for name in matrix.names if name not in leaders]
    who = f"{metric}: {', '.join(leaders)}{' tie' if len(leaders) > 1 else ''}"
    if len(matrix.seeds) < LEAST_SEEDS:
        return f"{who}; ahead of which takes {LEAST_SEEDS} seeds or more to say."
    if not others:
        return f"{who}."
    unsure = [name for name in others if not _ahead(matrix, best, name, metric)]
    text = f"{who}, certainly ahead of {_all_but(unsure, others)}"
    if not all(math.isnan(p) for p in matrix.p_values(best, metric).values()):
        stays = _sure(matrix, best, metric)
        still = [name for name in others if name in unsure or name not in stays]
        text += "" if still == unsure else f"; with Holm's correction of {_all_but(still, others)}"
    return f"{text}."


def _ahead(matrix: Matrix, name: str, other: str, metric: str) -> bool:
    """Return whether a loss is certainly better; one that failed less often leads even one with a better mean."""
    difference = matrix.difference(name, other, metric)
    return difference.significant and (difference.mean > 0) == higher_is_better(metric)


def _all_but(unsure: Sequence[str], others: Sequence[str]) -> str:
    if len(unsure) == len(others):
        return "none"
    return f"all but {', '.join(unsure)}" if unsure else "all others"


def _against(matrix: Matrix, best: str, other: str, role: str, metric: str) -> str:
    difference = matrix.difference(best, other, metric)
    title = f"{other} (the best hand-made)" if role == HAND_MADE else other
    if difference.significant:
        return f"{points(difference)} to {title}"
    if difference.n < LEAST_SEEDS:
        why = f"too few seeds to say: {difference.n}"
    else:
        why = "the same at every seed, so no evidence" if difference.constant else "the interval holds zero"
    return f"{points(difference)} to {title}, {why}"


def number(value: float) -> str:
    """Format a number with eight digits; NaN is empty."""
    return "" if math.isnan(value) else f"{value:.8g}"


def csv_text(lines: Sequence[Sequence[object]]) -> str:
    """Format rows as CSV.

    A name that a spreadsheet would take for a formula, such as a class "=1+1", gets a ' before it.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[_no_formula(cell) for cell in line] for line in lines])
    return text.getvalue()


def _no_formula(cell: object) -> object:
    number = re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", cell) if isinstance(cell, str) else None
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") and not number else cell
