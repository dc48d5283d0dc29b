"""What a loss that is not hand-made is called: a card or the run folder with one, a published one, identity curves."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from autoseg.errors import InputError, unknown_name
from autoseg.imports import OWN
from autoseg.losses.card import LossCard
from autoseg.losses.registry import LOSSES
from autoseg.losses.searched import SearchedLoss, searched_loss
from autoseg.metrics import parse as parse_metric
from autoseg.surrogates import SurrogateLoss, build_space, published

IDENTITY = "identity"
OPTIONS = set(inspect.signature(SurrogateLoss).parameters) - {
    "metric", "num_classes", "control_points", "space", "parameterization",
}  # fmt: skip


def load_loss(
    card: str | Path | LossCard, num_classes: int | None = None, **options: Any
) -> SurrogateLoss | SearchedLoss:
    """A found loss from a card, or one with curves by its name.

    Args:
        card: a card; its path, or that of the run folder it is in; or a name: "asl2021/miou" (published),
            "identity/miou" (g(x) = x, what a search begins with).
        num_classes: C; by default the card's. Names need it.
        options: of `SurrogateLoss`, instead of the card's; of "identity/..." also `space`.

    Raises:
        InputError: an unknown name or option, or a file that is not a valid card.
    """
    if isinstance(card, LossCard):
        return card.build(num_classes, **options)
    name = str(card)
    head, _, metric = name.partition("/")
    known = OPTIONS | {"space"} if head == IDENTITY else OPTIONS
    if strange := sorted(set(options) - known):
        raise unknown_name(f"option of {name}", strange[0], known)
    path = card_path(name)
    if path is not None:
        return LossCard.load(path).build(num_classes, **options)
    if name not in published() and not (head == IDENTITY and metric):
        raise _unknown(name)
    if num_classes is None:
        raise InputError("num_classes", f"a number of classes for {name}", "none")
    if head == IDENTITY:
        space = build_space(options.pop("space", "default"), metric=metric)
        return searched_loss(space, space.identity, num_classes, **options)
    entry = published()[name]
    space = build_space(f"paper-{entry['metric']}")
    return SurrogateLoss(entry["metric"], num_classes, control_points=entry["control_points"], space=space, **options)


def card_path(name: str) -> Path | None:
    """The card that is meant by its own path or by that of its run folder; None for a name.

    Raises:
        InputError: a run folder without a card.
    """
    path = Path(name).expanduser()
    if name in LOSSES or name in published():
        return None
    if not path.is_dir():
        return path if path.suffix == ".json" else None
    if not (path / "loss.json").is_file():
        hint = "A search writes it after its first round."
        raise InputError("loss", "a run folder with a loss.json", f"{name} without one", hint)
    return path / "loss.json"


def identity_of(text: str) -> str | None:
    """The metric of a text that is "identity/METRIC" as a whole, where METRIC may be a sum; None for all else."""
    head, _, metric = text.partition("/")
    if head.strip() != IDENTITY:
        return None
    try:
        parse_metric(metric)
    except InputError:
        return None
    return metric


def _unknown(name: str) -> InputError:
    if name == IDENTITY:
        return InputError("loss", "the metric of the identity curves", repr(name), "For example identity/miou.")
    hint = "A found loss is the path of its loss.json or of its run folder, identity curves are identity/METRIC. " + OWN
    return unknown_name("loss", name, [*LOSSES, *published()], hint)
