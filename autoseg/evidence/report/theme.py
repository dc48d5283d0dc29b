"""Colours of the page and its figures: figures are drawn in the light ones, and the page replaces them in a dark theme.

They are Okabe and Ito's hues, darkened or lightened until they have a contrast of 3 or more with the background of
their theme. A colour has one meaning on the whole page: the loss that the report is about is blue, its reference
orange.
"""

from __future__ import annotations

BLUE, ORANGE, GREEN, PURPLE, RED, OLIVE, GREY = (
    "#0067a8",
    "#b35900",
    "#00795a",
    "#a3478a",
    "#c43a31",
    "#766d00",
    "#767c88",
)
DARK = {
    BLUE: "#6cb8f0",
    ORANGE: "#f2a54a",
    GREEN: "#3fc79a",
    PURPLE: "#e29bca",
    RED: "#ff8078",
    OLIVE: "#d0c24a",
    GREY: "#8d95a3",
}
CYCLE = (GREEN, PURPLE, RED, OLIVE)  # for losses that are neither found nor the reference
SEQUENTIAL = "Viridis"  # works on light and dark backgrounds


def colours(names: list[str], mine: str | None, reference: str | None) -> dict[str, str]:
    """Return a colour per loss: blue for `mine`, orange for `reference`, grey for identity curves, others in turn."""
    special = {name: GREY for name in names if name.partition("/")[0] == "identity"}
    special |= {name: colour for name, colour in ((mine, BLUE), (reference, ORANGE)) if name is not None}
    rest = [name for name in names if name not in special]
    turns = {name: CYCLE[place % len(CYCLE)] for place, name in enumerate(rest)}
    return {name: special.get(name) or turns[name] for name in names}
