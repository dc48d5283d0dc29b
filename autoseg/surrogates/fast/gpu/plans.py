"""The inputs of the kernels of `launches`: a pass as they are compiled for it, and a batch as they read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

import torch
from torch import Tensor

from autoseg.surrogates.fast.passes import CurveT, Pass, Pixels, PixelsT

IDS = {
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
}  # dtypes of labels that kernels read directly


@dataclass(frozen=True)
class Structure:
    """The properties that the kernels are compiled for, besides C and types; see `kernels.loops`.

    Attributes:
        everywhere: (group, group that counts as 1 or -1, index) of each total everywhere.
        hits: (group, index) of each own total.
        counts: (group, index) of each count.
        labels: the group whose ids are checked, -1 for none.
        pieces: K of each curve.
        groups: for each group of pixels whether it has ids, and whether it has a mask.
    """

    everywhere: tuple[tuple[int, int, int], ...]
    hits: tuple[tuple[int, int], ...]
    counts: tuple[tuple[int, int], ...]
    labels: int
    pieces: tuple[int, ...]
    groups: tuple[tuple[bool, bool], ...]

    def __len__(self) -> int:
        return len(self.everywhere) + len(self.hits) + len(self.counts)


@dataclass(frozen=True, eq=False)
class Layout(Generic[CurveT, PixelsT]):
    """A pass as the kernels compute it, for any batch.

    Attributes:
        structure: its totals and groups.
        groups: the groups of pixels.
        curves: the curves of each total everywhere, then of each own one.
    """

    structure: Structure
    groups: tuple[PixelsT, ...]
    curves: tuple[CurveT, ...]


@dataclass(eq=False)
class Plan:
    """A pass over a batch as the kernels read it; not frozen, which would take three times as long to make.

    Attributes:
        structure: its totals and groups.
        ids: (N, P) integer labels of each group, or None.
        within: (N, P) uint8 mask of each group, or None.
        curves: (K, 6) float64 of each total everywhere, then of each own one.
        ignore: the id that is neither a class nor wrong; None: ids are not checked.
    """

    structure: Structure
    ids: tuple[Tensor | None, ...]
    within: tuple[Tensor | None, ...]
    curves: tuple[Tensor, ...]
    ignore: int | None


def laid_out(
    work: Pass[CurveT, PixelsT], pieces: Callable[[CurveT], int], labels: Callable[[PixelsT], bool] = lambda _: False
) -> Layout[CurveT, PixelsT]:
    """Return a pass as the kernels compute it.

    Args:
        work: the totals to compute.
        pieces: returns the number of pieces of a curve.
        labels: returns whether the ids of these pixels are the labels to check: an id that is neither a
            class nor the ignored one is wrong.
    """
    of = [pixels for e in work.everywhere for pixels in (e.pixels, e.own) if pixels] + [own.pixels for own in work.own]
    place = {pixels: g for g, pixels in enumerate(dict.fromkeys(of))}
    own = [(place[each.pixels], *total) for each in work.own for total in each.curves]
    curves = [each.curve for each in work.everywhere] + [curve for _, curve, _ in own if curve is not None]
    structure = Structure(
        everywhere=tuple((place[e.pixels], place[e.own] if e.own else -1, e.at) for e in work.everywhere),
        hits=tuple((g, at) for g, curve, at in own if curve is not None),
        counts=tuple((g, at) for g, curve, at in own if curve is None),
        labels=next((g for pixels, g in place.items() if labels(pixels)), -1),
        pieces=tuple(map(pieces, curves)),
        groups=tuple((each.ids is not None, each.within is not None) for each in place),
    )
    return Layout(structure, tuple(place), tuple(curves))


def planned(
    structure: Structure, groups: Sequence[Pixels], curves: tuple[Tensor, ...], ignore: int | None = None
) -> Plan:
    """Return the plan of a pass over a batch; groups and curves are those of its `Layout`."""
    ids = tuple([None if each.ids is None else _flat(each.ids) for each in groups])
    within = tuple([None if each.within is None else _flat(each.within.view(torch.uint8)) for each in groups])
    return Plan(structure, ids, within, curves, ignore)


def _flat(x: Tensor) -> Tensor:
    """Return (N, P) without gaps."""
    return (x if x.dtype in IDS else x.long()).contiguous().flatten(1)
