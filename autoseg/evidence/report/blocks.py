"""What a page is made of: plain values that the template knows how to show. Texts are raw: the template escapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Args:
        text: of it.
        tone: "plain", "note" (small: how to read something), "warning".
    """

    text: str
    tone: str = "plain"
    kind: str = "text"


@dataclass(frozen=True)
class Plot:
    """An interactive figure.

    Args:
        title: above it.
        figure: of plotly, in the light theme's colours (see `theme`).
        height: pixels.
    """

    title: str
    figure: Any
    height: int = 380
    kind: str = "plot"


@dataclass(frozen=True)
class Grid:
    """Small figures side by side, as many in a row as there is room for.

    Args:
        plots: the figures.
        least: the width in pixels a figure must have.
    """

    plots: Sequence[Plot]
    least: int = 270
    kind: str = "grid"


@dataclass(frozen=True)
class Key:
    """What the lines of several figures are.

    Args:
        lines: (name, colour as in `theme`, "solid", "dashed", "dotted" or "dot" for a filled mark).
    """

    lines: Sequence[tuple[str, str, str]]
    kind: str = "key"


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Args:
        text: of it.
        tone: "", "best", "mine" (what the report is about), "quiet".
    """

    text: str
    tone: str = ""


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Args:
        head: of the columns.
        rows: as long as `head`.
        title: above it.
        folded: closed until it is clicked.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    folded: bool = False
    kind: str = "table"


@dataclass(frozen=True)
class Facts:
    """Pairs of what and how much.

    Args:
        items: them.
        large: as tiles with large figures, instead of a list.
    """

    items: Sequence[tuple[str, str]]
    large: bool = False
    kind: str = "facts"


@dataclass(frozen=True)
class Code:
    """Something to copy.

    Args:
        text: of it.
        title: what it is.
    """

    text: str
    title: str
    kind: str = "code"


@dataclass(frozen=True)
class Swatch:
    """A colour and what it stands for; `colour` is CSS."""

    colour: str
    name: str


@dataclass(frozen=True)
class Picture:
    """An image inside the page.

    Args:
        title: below it.
        uri: "data:image/..."
        size: (width, height) in pixels.
        mark: (left, top, width, height) of a frame in it, shares of 1; None for none.
        of: the loss it belongs to; "" if it is the same for all.
        detail: its pixels are shown enlarged.
    """

    title: str
    uri: str
    size: tuple[int, int]
    mark: tuple[float, float, float, float] | None = None
    of: str = ""
    detail: bool = False


@dataclass(frozen=True)
class Scene:
    """Pictures of one image, a row of whole ones above a row of details.

    Args:
        title: name of the image.
        whole: the first row.
        details: the second.
    """

    title: str
    whole: Sequence[Picture]
    details: Sequence[Picture]


@dataclass(frozen=True)
class Gallery:
    """Predictions side by side.

    Args:
        scenes: one per image.
        losses: whose predictions can be chosen, the first is shown at first.
        classes: colours of the masks.
        differences: colours of the pictures of where two losses differ.
    """

    scenes: Sequence[Scene]
    losses: Sequence[str]
    classes: Sequence[Swatch]
    differences: Sequence[Swatch]
    kind: str = "gallery"


Block = Text | Plot | Grid | Key | Table | Facts | Code | Gallery


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Args:
        slug: its anchor, unique in the run.
        title: its heading.
        blocks: what is in it.
    """

    slug: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class RunPage:
    """All that is said about one run.

    Args:
        slug: its anchor.
        title: "Search for miou", say.
        lead: the sentence at the top.
        notices: what must not be overlooked, e.g. that it is not finished.
        tiles: the few numbers that matter.
        sections: the rest.
    """

    slug: str
    title: str
    lead: str
    notices: Sequence[str]
    tiles: Facts
    sections: Sequence[Section]
