"""Builds a loss from text: hand-made ones by name, those with curves by name or card, and sums."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoseg.errors import InputError, unknown_name
from autoseg.imports import OWN
from autoseg.losses.base import SegLoss
from autoseg.losses.card import LossCard
from autoseg.losses.expression import Term, parse
from autoseg.losses.registry import LOSSES, check_options, hand_made
from autoseg.losses.searched import OPTIONS, SearchedLoss, searched_loss
from autoseg.losses.sums import LossSum
from autoseg.metrics import parse as parse_metric
from autoseg.surrogates import SearchSpace, SurrogateLoss, build_space, known_losses

Loss = SegLoss | SurrogateLoss | LossSum
IDENTITY = "identity"


def build_loss(
    spec: str | os.PathLike[str],
    *,
    num_classes: int,
    ignore_index: int = 255,
    defaults: Mapping[str, Any] | None = None,
    **options: Any,
) -> Loss:
    """Build a loss from its name, a sum of losses, a published surrogate or a loss card.

    Args:
        spec: a name of `loss_names()`, optionally with options in brackets ("tversky(alpha=0.3,beta=0.7)"); a
            surrogate such as "asl2021/miou" or "identity/biou"; the path of a card (.json) or of the run folder
            with it; or a sum of these, "0.25*ce+0.75*jml".
        num_classes: C.
        ignore_index: id of the pixels that do not count.
        defaults: options of surrogates called by name, where the text gives none: `tolerance`, `drop_background`; of
            "identity/METRIC" also `space`. A card has its own.
        options: the loss's own options; in a sum only what every loss takes (`validate`).

    Returns:
        A module called as loss(logits, labels) or loss(logits, labels, extra), with `prepare(labels)` and
        `set_progress(share)`.

    Raises:
        InputError: unknown name or option, or a malformed sum.
    """
    terms = terms_of(spec)
    own = sorted(set(options) - {"validate"})
    if len(terms) > 1 and own:
        hint = f"Put it into the brackets of one loss, as in {terms[0].name}({own[0]}=...)."
        raise InputError("loss options", "none beside a sum", ", ".join(own), hint)
    losses = [_build_term(term, num_classes, ignore_index, options, defaults or {}) for term in terms]
    if len(terms) == 1 and terms[0].weight == 1:
        return losses[0]
    return LossSum([term.weight for term in terms], losses)


def _build_term(
    term: Term, num_classes: int, ignore_index: int, shared: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Loss:
    """Build one loss of a sum, without its weight."""
    options = {**shared, **term.options}
    if term.name in LOSSES:
        return hand_made(term.name, num_classes, ignore_index, options)
    _check_names(term.name, options)
    if _has_named_curves(term):
        fixed = {"space"} if term.name in known_losses() else set()  # its curves are those of one space
        options = {**{key: value for key, value in defaults.items() if key not in fixed}, **options}
    return load_loss(term.name, num_classes=num_classes, ignore_index=ignore_index, **options)


def has_named_curves(text: str) -> bool:
    """Return whether a loss in the text is a surrogate called by name, which takes the `defaults` of `build_loss`."""
    return any(map(_has_named_curves, terms_of(text)))


def _has_named_curves(term: Term) -> bool:
    return term.name in known_losses() or term.name.startswith(f"{IDENTITY}/")


def terms_of(text: str | os.PathLike[str]) -> list[Term]:
    """Return the losses of a sum; a path or an "identity/METRIC" is one term, even with characters that sums use.

    Raises:
        InputError: malformed.
    """
    if isinstance(text, os.PathLike):
        text = os.fspath(text)
    if not isinstance(text, str):
        raise InputError("loss", "text, such as 0.25*ce+0.75*jml, or a path", type(text).__name__)
    whole = os.path.exists(text) or identity_of(text) is not None
    return [Term(1.0, text)] if whole else parse(text)


def check_text(text: str, options: Mapping[str, Any] | None = None, cards: bool = True) -> None:
    """Raise if a text cannot be built for any number of classes.

    Args:
        text: as `spec` of `build_loss`.
        options: as of `build_loss`, but for `defaults`.
        cards: whether cards are read; else they may be written later.

    Raises:
        InputError: an unknown name or option, a malformed sum, a card that cannot be read.
    """
    for term in terms_of(text):
        if cards or term.name in LOSSES or not (term.name.endswith(".json") or os.path.isdir(term.name)):
            check_term(replace(term, options={**(options or {}), **term.options}))


def check_term(term: Term) -> None:
    """Raise if a loss of a sum cannot be built for any number of classes, since its name or an option is not known.

    Raises:
        InputError: that is so; or it is a card that cannot be read.
    """
    if term.name in LOSSES:
        check_options(term.name, term.options)
    elif (card := card_path(term.name)) is not None:
        LossCard.load(card)
    else:
        _check_names(term.name, term.options)
        load_loss(term.name, num_classes=2, **term.options)  # curves fit any number


def load_loss(
    card: str | Path | LossCard, num_classes: int | None = None, **options: Any
) -> SurrogateLoss | SearchedLoss:
    """Load a found loss from a card, or one with curves by its name.

    Args:
        card: a card; its path, or that of its run folder; or a name: "asl2021/miou" (published),
            "identity/miou" (g(x) = x, where a search starts).
        num_classes: C; by default the card's. Names need it.
        options: options of `SurrogateLoss` that replace the card's; for "identity/..." also `space`.

    Raises:
        InputError: an unknown name or option, or a file that is not a valid card.
    """
    if isinstance(card, LossCard):
        _check_names("a card", options, {"ignore_index"})
        return card.build(num_classes, **options)
    given: object = card
    if not isinstance(given, str | os.PathLike):
        hint = "Of the result of a search: load_loss(result.run_dir)." if hasattr(given, "run_dir") else ""
        raise InputError("card", "a card, its path or a name", type(given).__name__, hint)
    name = str(card)
    head, _, metric = name.partition("/")
    _check_names(name, options, {"ignore_index"})
    path = card_path(name)
    if path is not None:
        return LossCard.load(path).build(num_classes, **options)
    if name not in known_losses() and not (head == IDENTITY and metric):
        raise _unknown(name, num_classes)
    if num_classes is None:
        raise InputError("num_classes", f"a number of classes for {name}", "none")
    if head == IDENTITY:
        wanted = options.pop("space", "default")
        space = (wanted if isinstance(wanted, SearchSpace) else build_space(wanted, metric=metric)).bound_to(metric)
        return searched_loss(space, space.identity, num_classes, **options)
    known = known_losses()[name]
    points = list(known.control_points)
    return SurrogateLoss(known.metric, num_classes, control_points=points, space=known.space, **options)


def known_card(name: str) -> LossCard:
    """Return the card of a loss that comes with autoseg or of "identity/METRIC", for any number of classes."""
    return LossCard.of(load_loss(name, num_classes=2), num_classes=None, provenance={"known": name})


def card_path(name: str) -> Path | None:
    """Return the path of a card, given it or its run folder; None for a name.

    Raises:
        InputError: a run folder without a card.
    """
    path = Path(name).expanduser()
    if name in LOSSES or name in known_losses():
        return None
    if not os.path.isdir(path):  # not path.is_dir(), to which a long name is an error
        return path if path.suffix == ".json" else None
    if not (path / "loss.json").is_file():
        hint = "A search writes it after its first round."
        raise InputError("loss", "a run folder with a loss.json", f"{name} without one", hint)
    return path / "loss.json"


def identity_of(text: str) -> str | None:
    """Return the metric if the whole text is "identity/METRIC", where METRIC may be a sum; otherwise None."""
    head, _, metric = text.partition("/")
    if head.strip() != IDENTITY:
        return None
    try:
        parse_metric(metric)
    except InputError:
        return None
    return metric


def _unknown(name: str, num_classes: int | None) -> InputError:
    if name == IDENTITY:
        return InputError("loss", "the metric of the identity curves", repr(name), "For example identity/miou.")
    if name in LOSSES:
        hint = f"Did you mean autoseg.build_loss({name!r}, num_classes={num_classes or '...'})?"
        return InputError("loss", "a card, or the name of a loss with curves", f"{name!r}, a hand-made loss", hint)
    hint = "A found loss is the path of its loss.json or of its run folder, identity curves are identity/METRIC. " + OWN
    return unknown_name("loss", name, [*LOSSES, *known_losses()], hint)


def _check_names(name: str, options: Iterable[str], also: Iterable[str] = ()) -> None:
    """Raise for options that a loss with curves does not have."""
    known = OPTIONS.union(also, ["space"] if name.startswith(f"{IDENTITY}/") else [])
    if strange := sorted(set(options) - known):
        raise unknown_name(f"option of {name}", strange[0], known)
