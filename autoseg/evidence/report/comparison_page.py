"""The page of a comparison: the best loss, by how much, and how sure that is."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import zip_longest

from autoseg.evidence.comparison import made_with
from autoseg.evidence.comparison.contenders import built_from, cards_of, sources
from autoseg.evidence.comparison.matrix import Matrix
from autoseg.evidence.comparison.tables import legend, rows_of, sentences, spread
from autoseg.evidence.report import plots
from autoseg.evidence.report.blocks import Block, Cell, Facts, Grid, Key, Plot, RunPage, Section, Table, Text
from autoseg.evidence.report.gallery import gallery
from autoseg.evidence.report.loss_sections import TWO, built_for_two, companions, found_sections, gradient_section
from autoseg.evidence.report.provenance import cost_section, exactly, origin_section
from autoseg.evidence.report.read import ComparisonRun
from autoseg.evidence.report.theme import GREEN, GREY, ORANGE, colours
from autoseg.losses.build import known_card, terms_of
from autoseg.metrics import higher_is_better
from autoseg.store.records import COMPLETE, counted, percent
from autoseg.surrogates import known_losses

LONG = 30  # a table with more rows is closed initially
FOREST = (
    "Difference to the reference and to the best hand-made loss of the metric, paired by seed, with its {}. "
    "A filled dot is marked, a hollow one is not."
)


def comparison_page(run: ComparisonRun, slug: str, command: str) -> RunPage:
    """Build the page of a comparison; `command` repeats it."""
    hues = colours([loss.name for loss in run.among], mine(run), run.reference)
    mixed = made_with.budgets_of(run.path, run.done)
    return RunPage(
        slug=slug,
        title=f"{len(run.among)} losses compared",
        lead=" ".join([_compared(run, mixed), *(sentences(run.matrix)[:1] if run.matrix else [])]),
        notices=[*_unfinished(run), *([mixed] if mixed else [])],
        tiles=_tiles(run),
        sections=[
            *(_of_matrix(run.matrix, hues) if run.matrix else [_trainings(run)]),
            *_about_the_losses(run, hues),
            Section("predictions", "Predictions side by side", _predictions(run)),
            cost_section(run, hues, lambda record: record.name),
            origin_section(run, command),
        ],
    )


def mine(run: ComparisonRun) -> str | None:
    """Return the loss the report is about: the best that was searched, else the best of all but the reference."""
    others = [loss for loss in run.among if loss.name != run.reference]
    wanted = [loss for loss in others if loss.searched] or others
    best = run.matrix and run.matrix.best(run.metrics[0], lambda loss: loss in wanted)
    return best or next((loss.name for loss in wanted), None)


def _compared(run: ComparisonRun, mixed: str) -> str:
    seeds = len(run.matrix.seeds) if run.matrix else len(run.seeds)
    names = ", ".join(loss.name for loss in run.among)
    each = f"{counted(seeds, 'seed')} each{'' if mixed else ', under one budget'}"
    return f"Compared {names} on {run.data_name} ({run.fixed['split']} split), {each}."


def _unfinished(run: ComparisonRun) -> list[str]:
    if run.finished:
        return []
    used = f"the tables use the seeds {', '.join(map(str, run.matrix.seeds))}" if run.matrix else "no seed is whole yet"
    return [f"Not finished: {len(run.done)} of {run.total} trainings have a result; {used}."]


def _tiles(run: ComparisonRun) -> Facts:
    metric, tiles = run.metrics[0], []
    leaders = run.matrix.leaders(metric) if run.matrix else ()
    if run.matrix and leaders:
        best, place = leaders[0], "the best" if len(leaders) == 1 else "which tie"
        tiles.append((f"{metric} of {', '.join(leaders)}, {place}", f"{percent(run.matrix.cell(best, metric).mean)} %"))
        other = run.reference if best != run.reference else run.matrix.best(metric, lambda loss: loss.name != best)
        difference = None if other is None else run.matrix.difference(best, other, metric)
        if difference is not None and difference.n:
            tiles.append((f"points to {other}", f"{100 * difference.mean:+.1f}"))
    tiles.append(("losses x seeds", f"{len(run.among)} x {len(run.seeds)}"))
    tiles.append(("of trainings", exactly(sum(record.seconds for record in run.done))))
    return Facts(tiles, large=True)


def _of_matrix(matrix: Matrix, hues: dict[str, str]) -> list[Section]:
    height = 130 + 44 * len(matrix.names)
    forests = [Plot(metric, plots.forest_of(matrix, metric), height) for metric in matrix.metrics]
    dots = [
        Plot(
            metric,
            plots.seeds_and_means({n: matrix.cell(n, metric).values for n in matrix.names}, metric, hues),
            height - 20,
        )
        for metric in matrix.metrics
    ]
    found = [Text(f"{name}: {source}.", "note") for name, source in sources(matrix.among).items()]
    others = [Text(text) for text in sentences(matrix)[1:]]  # the first is at the top of the page
    key = [(f"to {matrix.reference}", ORANGE, "solid")]
    if any(matrix.best_hand_made(metric) not in (None, matrix.reference) for metric in matrix.metrics):
        key.append(("to the best hand-made loss of the metric", GREEN, "solid"))
    return [
        Section(
            "scores",
            "Scores",
            [_table(matrix), Text(" ".join(legend(matrix)), "note"), *found, *others, Grid(dots, 330)],
        ),
        Section(
            "differences", "Differences", [Text(FOREST.format(matrix.interval), "note"), Key(key), Grid(forests, 330)]
        ),
        *_classes(matrix),
    ]


def _table(matrix: Matrix) -> Table:
    best = [matrix.leaders(metric) for metric in matrix.metrics]
    head, texts = rows_of(matrix)
    rows = []
    for loss, line in zip(matrix.among, texts, strict=True):
        tones = ["mine" if loss.searched else "", *("best" if loss.name in names else "" for names in best)]
        rows.append([Cell(text, tone) for text, tone in zip_longest(line, tones, fillvalue="quiet")])
    return Table(head, rows)


def _classes(matrix: Matrix) -> list[Section]:
    tables: list[Block] = []
    for metric in matrix.metrics:
        rows = []
        for label in matrix.classes:
            cells = {name: matrix.of_class(name, metric, label) for name in matrix.names}
            means = [cell.mean for cell in cells.values() if cell.n]
            top = (max if higher_is_better(metric) else min)(means, default=None)
            if len({spread(cell) for cell in cells.values()}) == 1:
                top = None  # all the same as printed, such as a class that no loss has learnt: none is the best
            rows.append([Cell(label), *(Cell(spread(c), "best" if c.mean == top else "") for c in cells.values())])
        if any(cell.text != "–" for row in rows for cell in row[1:]):
            tables.append(Table(["class", *matrix.names], rows, metric, folded=bool(tables) or len(rows) > LONG))
    note = Text("Percent, mean ± standard deviation over seeds; bold: the best mean of the class.", "note")
    return [Section("classes", "Classes", [note, *tables])] if tables else []


def _trainings(run: ComparisonRun) -> Section:
    """Build the section of trainings so far, while no seed is complete."""
    metric = run.metrics[0]
    rows = [
        [Cell(r.name), Cell(str(r.seed)), Cell(r.state), Cell(percent(r.reward)), Cell(exactly(r.seconds))]
        for r in run.done
    ]
    text = "No seed has been trained with every loss yet, so that nothing can be compared."
    table = Table(["loss", "seed", "state", metric, "time"], rows)
    return Section("scores", "Trainings so far", [Text(text, "note"), table])


def _about_the_losses(run: ComparisonRun, hues: dict[str, str]) -> list[Section]:
    known = [term.name for one in run.among for term in terms_of(one.text) if term.name in known_losses()]
    cards, sections = {**cards_of(run.among), **{name: known_card(name) for name in known}}, []
    for number, (name, card) in enumerate(cards.items()):
        title = f" of {name}" if len(cards) > 1 else ""
        sections += found_sections(card, str(number or ""), title)
    recipe = replace(run.recipe, num_classes=TWO)
    builders = {loss.name: partial(recipe.build, built_from(loss, run.path)) for loss in run.among}
    losses, missing = built_for_two(builders)
    for name, loss in companions("").items():
        losses.setdefault(name, loss)
    return [*sections, gradient_section(losses, {"ce": GREY, "soft Jaccard": GREY, **hues}, missing)]


def _predictions(run: ComparisonRun) -> list[Block]:
    complete = [record for record in run.records if record.state == COMPLETE]
    trainings = {record.name: record for record in complete if record.seed == run.seeds[0]}
    return gallery(run, trainings, run.reference, mine(run) or run.reference)
