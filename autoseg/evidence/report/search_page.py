"""The page of a search: what was searched, the result, and its evidence."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from autoseg.config import PAPER_METRICS
from autoseg.evidence.comparison.tables import points, spread
from autoseg.evidence.report import plots
from autoseg.evidence.report.blocks import Block, Cell, Facts, Plot, RunPage, Section, Table, Text
from autoseg.evidence.report.gallery import gallery
from autoseg.evidence.report.loss_sections import TWO, built_for_two, companions, found_sections, gradient_section
from autoseg.evidence.report.provenance import cost_section, exactly, origin_section
from autoseg.evidence.report.read import SearchRun
from autoseg.evidence.report.theme import BLUE, GREEN, GREY, ORANGE, PURPLE, colours
from autoseg.store.paired import LEAST_SEEDS, paired
from autoseg.store.records import COMPLETE, Row, counted, percent, sentence

FOUND = "found"
FORESTS = "Mean of the paired differences over the fresh seeds with its 95 % t interval."


def search_page(run: SearchRun, slug: str, command: str) -> RunPage:
    """Build the page of a search; `command` repeats it."""
    return RunPage(
        slug=slug,
        title=f"A loss for {run.metric}",
        lead=f"{_searched(run)} {sentence(run.result)}",
        notices=[*_unfinished(run), *_earlier(run), *run.result.warnings],
        tiles=_tiles(run),
        sections=[
            _rewards(run),
            *_confirmation(run),
            *_about_the_loss(run),
            Section("predictions", "Predictions side by side", _predictions(run)),
            _cost(run),
            origin_section(run, command),
        ],
    )


def _searched(run: SearchRun) -> str:
    name = run.fixed["controller"]["name"]
    return (
        f"Searched {len(run.search)} losses of the space {run.space.name} ({run.space.dim} numbers) with {name}, "
        f"judged by {run.metric} on {run.data_name}, held-out images."
    )


def _unfinished(run: SearchRun) -> list[str]:
    if run.finished:
        return []
    return [f"Not finished: {len(run.done)} of {run.total} trainings have a result. This is what there is so far."]


def _earlier(run: SearchRun) -> list[str]:
    """Return a notice about a card of an earlier confirmation that has not (yet) been replaced."""
    if run.card is None or not run.card.confirmed or run.result.best.confirmed:
        return []
    name = run.card.provenance.get("candidate", "a candidate")
    return [f"loss.json is of an earlier confirmation, which {name} won; it stays until this one has a winner."]


def _tiles(run: SearchRun) -> Facts:
    best = run.result.best
    rows = {row.name: row for row in run.result.rows}
    score = rows[best.name].mean if best.confirmed else best.reward
    tiles = [(f"{run.metric}, {'fresh seeds' if best.confirmed else 'not confirmed'}", f"{percent(score)} %")]
    rivals = [row for row in rows.values() if row.kind == "rival" and row.n]
    if best.confirmed and rivals:
        rival = max(rivals, key=lambda row: row.mean)
        difference = paired(rows[best.name].values, rival.values)
        over = f", over {counted(difference.n, 'seed')}" if difference.n < len(rival.values) else ""
        if difference.n:
            tiles.append((f"points to {rival.name}, the best rival{over}", f"{100 * difference.mean:+.1f}"))
    tiles.append(("candidates", str(len(run.search))))
    tiles.append(("of trainings", exactly(sum(record.seconds for record in run.done))))
    return Facts(tiles, large=True)


def _rewards(run: SearchRun) -> Section:
    rounds = len({record.round for record in run.search})
    note = f"Round {rounds} of {run.rounds}. " if rounds < run.rounds else ""
    note += "A dot is one short training with the search's own seed; point at it for its scores and θ."
    plot = Plot("", plots.reward_by_round(run.search, run.space.names, run.metric), 420)
    return Section("rewards", "Reward by round", [Text(note, "note"), plot])


def _cost(run: SearchRun) -> Section:
    fresh = {record.seed for record in run.confirmation}  # a floor's own training is of the search, without a round
    phases = {"search": BLUE, "confirmation": GREEN}
    return cost_section(run, phases, lambda record: "confirmation" if record.seed in fresh else "search")


def _confirmation(run: SearchRun) -> list[Section]:
    rows = run.result.rows
    if not rows:
        done = sum(record.state == COMPLETE for record in run.confirmation)
        text = f"Under way: {done} of {len(run.confirmation)} trainings." if run.confirmation else "None (yet)."
        return [Section("confirmation", "Confirmation with fresh seeds", [Text(text, "note")])]
    won = run.result.best.name
    hues = colours([row.name for row in rows], won, "ce")
    scores = {row.name: row.values for row in rows}
    height = 110 + 44 * len(rows)
    seeds = counted(len(rows[0].values), "seed")
    lead = f"The best candidates and their rivals, trained anew with {seeds} the search never used."
    if run.result.best.iters:
        lead += f" Each for {run.result.best.iters} iterations, longer than the candidates of the search."
    blocks: list[Block] = [
        Text(lead, "note"),
        Plot("A dot a seed, a bar the mean", plots.seeds_and_means(scores, run.metric, hues), height),
        _table(run, won),
        *_forest(rows, won),
    ]
    return [Section("confirmation", "Confirmation with fresh seeds", blocks)]


def _table(run: SearchRun, won: str) -> Table:
    rows = run.result.rows
    scored = run.result.best.scores
    names = [name for name in dict.fromkeys((*PAPER_METRICS, *scored)) if name in scored and "/" not in name]
    others = [name for name in names if name != run.metric]
    best = max((row.mean for row in rows if row.n), default=math.nan)
    cut = ["reward"] if any(row.cut for row in rows) else []
    lines = []
    for row in rows:
        first = [
            Cell(row.name, "mine" if row.name == won else ""),
            Cell(spread(row), "best" if row.mean == best else ""),
            *(Cell(percent(row.reward)) for _ in cut),
            Cell(f"{row.n} of {len(row.values)}", "quiet"),
        ]
        lines.append([*first, *(Cell(percent(row.scores.get(name, math.nan))) for name in others)])
    by = "; ordered by their rewards, which the floor cuts" if cut else ""
    return Table(["loss", run.metric, *cut, "seeds", *others], lines, f"Scores, percent (mean ± std over seeds{by})")


def _forest(rows: tuple[Row, ...], won: str) -> list[Block]:
    winner = next((row for row in rows if row.name == won), None)
    if winner is None:
        return []
    rivals = [row for row in rows if row.kind == "rival"]
    lines = [(row.name, won, BLUE, paired(winner.values, row.values)) for row in rivals]
    lines = [line for line in lines if not math.isnan(line[3].mean)]
    if not lines:
        return []
    seeds = len(winner.values)
    rule = "" if seeds >= LEAST_SEEDS else f" Nothing is marked: that takes {LEAST_SEEDS} seeds or more."
    told = "; ".join(f"{name} {points(difference)}" for name, _, _, difference in lines)
    plot = plots.forest([(f"minus {name}", other, colour, d) for name, other, colour, d in lines])
    title = f"{won} minus each rival, percentage points"
    return [Plot(title, plot, 120 + 44 * len(lines)), Text(f"{FORESTS} {told}.{rule}", "note")]


def _about_the_loss(run: SearchRun) -> list[Section]:
    card = run.card
    if card is None:
        return [Section("curves", "Found curves", [Text("There is no loss.json yet.", "note")])]
    found = found_sections(card)
    losses, failed = built_for_two({FOUND: lambda: card.build(TWO)})
    losses |= companions(run.metric)
    hues: Mapping[str, str] = {FOUND: BLUE, "ce": ORANGE, "soft Jaccard": GREY, f"asl2021/{run.metric}": PURPLE}
    return [*found, gradient_section(losses, hues, failed)]


def _predictions(run: SearchRun) -> list[Block]:
    records = [record for record in run.confirmation if record.state == COMPLETE]
    seed = run.confirmation[0].seed if run.confirmation else None
    trainings = {record.name: record for record in records if record.seed == seed}
    return gallery(run, trainings, _beside(run, trainings), run.result.best.name)


def _beside(run: SearchRun, trainings: Collection[str]) -> str:
    """Return the loss whose predictions all others are shown beside: cross-entropy, else the best rival, else the
    runner-up.
    """
    rows = [row for row in run.result.rows if row.name in trainings and row.name != run.result.best.name]
    ranked = sorted(rows, key=lambda row: (row.name != "ce", row.kind != "rival"))  # stable: the best first
    return ranked[0].name if ranked else "ce"
