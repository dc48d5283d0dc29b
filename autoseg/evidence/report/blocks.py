"""The parts of a page: plain values that the template can show. Texts are raw: the template escapes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


class Block:
    """Base of the parts of a section."""

    @property
    def kind(self) -> str:
        """The name of the block's class, for the template."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Text(Block):
    """A paragraph."""

    text: str
    tone: str = "plain"  # "plain", "note" (small: how to read something)


@dataclass(frozen=True)
class Plot(Block):
    """An interactive figure."""

    title: str  # above it
    figure: Any  # plotly figure, in the light theme's colours (see `theme`)
    height: int = 380  # pixels


@dataclass(frozen=True)
class Grid(Block):
    """Small figures side by side, as many in a row as fit."""

    plots: Sequence[Plot]
    least: int = 270  # the width in pixels a figure must have


@dataclass(frozen=True)
class Key(Block):
    """The legend of several figures."""

    # (name, colour as in `theme`, "solid", "dashed", "dotted" or "dot" for a filled mark)
    lines: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Cell:
    """One cell of a table."""

    text: str
    tone: str = ""  # "", "best", "mine" (what the report is about), "quiet"


@dataclass(frozen=True)
class Table(Block):
    """A table whose first column names the rows."""

    head: Sequence[str]  # names of the columns
    rows: Sequence[Sequence[Cell]]  # as long as `head`
    title: str = ""  # above it
    folded: bool = False  # closed until it is clicked


@dataclass(frozen=True)
class Facts(Block):
    """Pairs of a name and a value."""

    items: Sequence[tuple[str, str]]
    large: bool = False  # as tiles with large figures, instead of a list


@dataclass(frozen=True)
class Code(Block):
    """A text to copy."""

    text: str
    title: str  # above it


@dataclass(frozen=True)
class Swatch:
    """A colour and its meaning; `colour` is CSS."""

    colour: str
    name: str


@dataclass(frozen=True)
class Picture:
    """An image inside the page."""

    title: str  # below it
    uri: str  # "data:image/..."
    size: tuple[int, int]  # (width, height) in pixels
    # (left, top, width, height) of a frame in it, shares of 1; None for none
    mark: tuple[float, float, float, float] | None = None
    of: str = ""  # the loss it belongs to; "" if it is the same for all
    detail: bool = False  # its pixels are shown enlarged


@dataclass(frozen=True)
class Scene:
    """Pictures of one image: a row of whole pictures above a row of details."""

    title: str  # name of the image
    whole: Sequence[Picture]
    details: Sequence[Picture]


@dataclass(frozen=True)
class Gallery(Block):
    """Predictions side by side."""

    scenes: Sequence[Scene]  # one per image
    losses: Sequence[str]  # losses whose predictions can be chosen; the first is shown initially
    classes: Sequence[Swatch]  # colours of the masks
    differences: Sequence[Swatch]  # colours of the pictures that show where two losses differ


@dataclass(frozen=True)
class Section:
    """A part of a page."""

    slug: str  # its anchor, unique in the run
    title: str  # its heading
    blocks: Sequence[Block]


@dataclass(frozen=True)
class RunPage:
    """The page of one run."""

    slug: str  # its anchor
    title: str  # "Search for miou", say
    lead: str  # the sentence at the top
    notices: Sequence[str]  # important warnings, e.g. that it is not finished
    tiles: Facts  # the most important numbers
    sections: Sequence[Section]  # the rest
