"""Sections about losses as functions: their curves, their AND and OR, their gradient at a pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from autoseg.evidence import sampled
from autoseg.evidence.report import gradient, loss_plots
from autoseg.evidence.report.blocks import Block, Grid, Key, Plot, Section, Text
from autoseg.evidence.report.theme import BLUE, GREY, PURPLE
from autoseg.losses import LossCard, build_loss, load_loss
from autoseg.surrogates import SurrogateLoss, known_losses

CURVES = (
    "Where a metric counts with AND and OR, the loss puts probabilities through a curve g with g(0) = 0 and g(1) = 1. "
    "Above the diagonal a probability counts for more than it is, below for less; steep parts have the gradient."
)
SURFACES = "AND(a, b) = g(a) g(b), OR(a, b) = g(a) + g(b) - g(a) g(b); red points: the truth table. Drag to rotate."
READING = (
    "Cross-entropy pulls hardest where the network is most wrong; soft Jaccard lets go of such pixels and pulls where "
    "it is undecided. A found curve moves the pull to where it is steep."
)
JUMPS = "Jumps are where the pixel changes its rank: among all pixels (Lovász), in its 3 x 3 window (BF1)."
DASHES = {"asl2021": "dash", "soft Jaccard": "dot"}
STROKES = {"solid": "solid", "dash": "dashed", "dot": "dotted", "dashdot": "dashed"}
TWO = 2  # number of classes of the constructed image


def found_sections(card: LossCard, slug: str = "", title: str = "") -> list[Section]:
    """Return curves and surfaces of a found loss; none if it has no curves."""
    loss = card.build(card.num_classes or TWO).surrogate
    if loss is None:
        return []
    itself = card.provenance.get("known") == f"asl2021/{card.metric}"  # the published curves are not drawn twice
    other = None if itself else sampled.published_points(card.metric)
    note = "" if other or itself else f" The paper has published none for {card.metric}."
    curves = [
        Plot(name, loss_plots.curve(line, other.get(name) if other else None), 300)
        for name, line in sampled.curve_points(loss).items()
    ]
    surfaces = [
        Plot(name, loss_plots.surface(g, h, name.endswith("AND")), 360)
        for name, (g, h) in sampled.operands(loss).items()
    ]
    lines = [("found", BLUE, "solid"), ("identity", GREY, "dotted")]
    key = Key(lines + ([(f"published for {card.metric}", PURPLE, "dashed")] if other else []))
    return [
        Section(f"curves{slug}", f"Found curves{title}", [Text(CURVES + note, "note"), key, Grid(curves)]),
        Section(f"surfaces{slug}", f"AND and OR{title}", [Text(SURFACES, "note"), Grid(surfaces, 300)]),
    ]


def companions(metric: str) -> dict[str, nn.Module]:
    """Return the losses to show beside another: cross-entropy, soft Jaccard, the published loss of `metric` if there
    is one.
    """
    losses: dict[str, nn.Module] = {"ce": build_loss("ce", num_classes=TWO), "soft Jaccard": SurrogateLoss("miou", TWO)}
    name = f"asl2021/{metric}"
    return {**losses, name: load_loss(name, TWO)} if name in known_losses() else losses


def gradient_section(losses: Mapping[str, nn.Module], colours: Mapping[str, str], failed: Sequence[str]) -> Section:
    """Build the section of gradients at a pixel for losses of two classes.

    `failed` are those that cannot be built for two. Those that cannot be called with two are left out too.
    """
    pulls = gradient.pulls(losses)
    missing = [*failed, *(name for name in losses if name not in pulls)]
    styles = _styles(list(pulls), colours)
    targets, others = ({name: pull[side] for name, pull in pulls.items()} for side in (0, 1))
    grid = [
        Plot("target pixel: towards the class", loss_plots.pull(gradient.GRID, targets, styles, "up"), 380),
        Plot("non-target pixel: away from the class", loss_plots.pull(gradient.GRID, others, styles, "down"), 380),
    ]
    key = Key([(name, colour, STROKES[dash]) for name, (colour, dash) in styles.items()])
    blocks: list[Block] = [Text(READING), key, Grid(grid, 320), Text(f"{gradient.DESCRIPTION} {JUMPS}", "note")]
    if missing:
        blocks.append(Text(f"Left out, since they cannot be computed on it: {', '.join(missing)}.", "note"))
    return Section("gradient", "Why it works: the pull on a pixel", blocks)


def _styles(names: Sequence[str], colours: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return colour and dash of each line; those of one colour have different dashes, as far as there are some."""
    styles: dict[str, tuple[str, str]] = {}
    for name in names:
        usual = DASHES.get(name.partition("/")[0], "solid")
        free = (dash for dash in (usual, *STROKES) if (colours[name], dash) not in styles.values())
        styles[name] = (colours[name], next(free, usual))
    return styles


def built_for_two(builders: Mapping[str, Callable[[], nn.Module]]) -> tuple[dict[str, nn.Module], list[str]]:
    """Build losses from functions without arguments; return them, and the names of those that cannot be built."""
    losses: dict[str, nn.Module] = {}
    failed = []
    for name, build in builders.items():
        try:
            losses[name] = build()
        except Exception:  # a loss of the user's own may raise anything
            failed.append(name)
    return losses, failed
