"""The plain logic of an exported file reads formulas as the package does, those that no metric of ours has too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from autoseg.evidence.export.standalone import Logic
from autoseg.surrogates import CurveSpec
from autoseg.surrogates.logic import CurveLogic

C = 4
OPERANDS = ("p", "eroded", "edge", "dilated", "and", "or")
Formula = Callable[[Any], Tensor]

FORMULAS: dict[str, Formula] = {
    "prediction": lambda g: g.total(g.pred),
    "label": lambda g: g.total(g.label),
    "void": lambda g: g.total(g.pred, void=True) + g.total(g.label, void=True),
    "and": lambda g: g.total(g.and_(g.pred, g.label)),
    "or": lambda g: g.total(g.or_(g.pred, g.label)),
    "the other way round": lambda g: g.total(g.or_(g.label, g.pred)) - g.total(g.and_(g.label, g.pred)),
    "edges": lambda g: g.total(g.boundary(g.pred), void=True) + g.total(g.boundary(g.label), void=True),
    "wide edges with the border": lambda g: g.total(
        g.or_(g.boundary(g.pred, 2, border=True), g.boundary(g.label, 2, border=True))
    ),
    "edge and label": lambda g: g.total(g.and_(g.boundary(g.pred), g.label)),
    "two predictions": lambda g: g.total(g.or_(g.pred, g.boundary(g.pred))),
    "two labels": lambda g: g.total(g.and_(g.label, g.boundary(g.label))),
    "nested": lambda g: g.total(g.or_(g.and_(g.pred, g.label), g.label)),
    "dilated": lambda g: g.total(g.dilate(g.pred, 2), void=True),  # of a label a total is refused
    "and dilated": lambda g: g.total(g.and_(g.dilate(g.pred, 1), g.label)),
    "with a dilated label": lambda g: g.total(g.or_(g.pred, g.dilate(g.label, 1))),
    "within a plane": lambda g: g.total(g.boundary(g.pred), within=g.dilate(g.boundary(g.label), 2), void=True),
    "within a soft plane": lambda g: g.total(g.boundary(g.label), within=g.dilate(g.boundary(g.pred), 2)),
    "within a region": lambda g: g.total(g.or_(g.pred, g.label), within=g.anywhere(g.dilate(g.boundary(g.label), 1))),
    "within a region without class 0": lambda g: g.total(
        g.pred, within=g.anywhere(g.boundary(g.label), skip_first=True), void=True
    ),
}


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("name", FORMULAS)
def test_totals_and_gradients_are_those_of_the_package(name: str, per_image: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    spec = CurveSpec("bezier", 2, truth_table=False)  # ends that are not 0 and 1, so that no product vanishes by itself
    curves = {
        (op, operand): spec.coefficients(spec.decode(torch.rand(spec.dim, generator=generator).double().numpy()))
        for op in ("and", "or")
        for operand in OPERANDS
    }
    rows = {key: table.tolist() for key, table in curves.items()}
    labels = torch.randint(0, C, (3, 4, 5), generator=generator).repeat_interleave(3, 1).repeat_interleave(2, 2)
    labels[0, :3], labels[2, 5, 5] = -1, -1
    logits = torch.randn(3, C, 12, 10, generator=generator, dtype=torch.float64)
    found = []
    for kind, table in ((Logic, rows), (CurveLogic, curves)):
        leaf = logits.clone().requires_grad_()
        total = FORMULAS[name](kind(leaf.softmax(1), labels, table, per_image))  # type: ignore[arg-type]
        factor = torch.rand(total.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        if total.requires_grad:
            (total * factor).sum().backward()
        found.append((total.detach().double(), torch.zeros(()) if leaf.grad is None else leaf.grad))
    (ours, our_slope), (theirs, their_slope) = found
    assert ours.shape == ((3, C) if per_image else (C,)) and ours.abs().max() > 0
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(our_slope, their_slope)
