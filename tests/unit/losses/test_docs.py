from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from autoseg.losses import build_loss, loss_names
from autoseg.losses.registry import LOSSES, option_names

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "losses.md").read_text(encoding="utf-8")
SHARED = {"validate", "reduction", "classes", "class_weight", "smooth", "gamma", "log"}


def section(name: str) -> str:
    found = re.search(rf"^### {name}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/losses.md has no section {name}"
    return found[1]


@pytest.mark.parametrize("name", loss_names())
def test_every_loss_is_documented_with_its_options(name: str) -> None:
    text = section(name)
    shared = SHARED if "and the above" in text or "the above." in text else {"validate"}
    if name == "dice_squared":
        shared = shared | {"alpha", "beta"}  # inherited and refused
    for option in set(option_names(LOSSES[name])) - shared:
        assert f"`{option}=" in text, option
    assert f"Soft: {'yes' if LOSSES[name].soft_labels else 'no'}" in text
    assert ("*Extra*" in text) is bool(build_loss(name, num_classes=2).extra_keys)


@pytest.mark.parametrize("name", loss_names())
def test_documented_defaults_are_the_real_ones(name: str) -> None:
    signature, loss = inspect.signature(LOSSES[name].__init__).parameters, build_loss(name, num_classes=2)
    for option, shown in re.findall(r"`(\w+)=([\d.]+)`", section(name)):
        if option in signature:
            default = signature[option].default  # None: a region loss, whose class says it
            assert (getattr(loss, option) if default is None else default) == float(shown), option


def test_examples_on_the_page_are_losses() -> None:
    table = PAGE.split("## Which one")[1].split("## Pixel")[0]
    for spec in re.findall(r"`([^`]+)`", table):
        build_loss(spec, num_classes=3)


def test_the_page_on_soft_labels_names_the_losses_that_take_them() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "soft_labels.md").read_text(encoding="utf-8")
    (named,) = re.findall(r"Searched surrogates and `([a-z_ ]+)` take soft labels", page)
    losses = {name: build_loss(name, num_classes=3) for name in loss_names()}
    assert set(named.split()) == {name for name, loss in losses.items() if loss.soft_labels or loss.multilabel}
