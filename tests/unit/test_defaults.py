"""Defaults that code of others relies on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

import autoseg
from autoseg.controllers import build_controller
from autoseg.controllers.ppo import PPOSettings
from autoseg.surrogates import SurrogateLoss

REQUIRED = inspect.Parameter.empty


@pytest.mark.parametrize(
    ("called", "expected"),
    [
        (
            SurrogateLoss,
            {
                "metric": REQUIRED, "num_classes": REQUIRED, "parameterization": None, "control_points": None,
                "ignore_index": 255, "absent": None, "eps": 1e-8, "loss_weight": 1.0, "tolerance": 5,
                "drop_background": False, "validate": "auto",
            },
        ),
        (
            autoseg.build_metric,
            {"name": REQUIRED, "num_classes": REQUIRED, "ignore_index": 255, "tolerance": 5, "drop_background": False},
        ),
        (build_controller, {"name": REQUIRED, "dim": REQUIRED, "mean": None, "std": 0.2, "seed": 0}),
        (
            PPOSettings,
            {
                "dim": REQUIRED, "mean": None, "std": 0.2, "seed": 0, "lr": 0.2, "epochs": 60, "clip": 0.2,
                "ratio": "per_dimension", "baseline": "mean",
            },
        ),
    ],
)  # fmt: skip
def test_arguments_and_their_order(called: Callable[..., Any], expected: dict[str, Any]) -> None:
    """Further ones come after these."""
    given = inspect.signature(called).parameters.values()
    assert [(one.name, one.default) for one in given][: len(expected)] == list(expected.items())


JDT = "reduction={D:1,I:0,C:0},classes=present,smooth=0.001,gamma=1.0,class_weight=[1,1,1],log=false"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("jml", f"alpha=1,beta=1,{JDT}"),
        ("dml", f"alpha=0.5,beta=0.5,{JDT}"),
        ("ctl", f"alpha=0.3,beta=0.7,{JDT}"),
        ("lmp", "p=1.3,share=0.25"),
    ],
)
def test_a_loss_by_its_name_has_these_options(name: str, options: str) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(2, 3, 9, 8, generator=generator), torch.randint(2, (2, 9, 8), generator=generator)
    labels[0, 0] = 255  # and no pixel of the third class
    plain, written = (autoseg.build_loss(text, num_classes=3)(logits, labels) for text in (name, f"{name}({options})"))
    assert plain == written
