"""From the text a user writes to a loss: every hand-made loss by name, surrogates and cards, and sums."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from torch import nn

from autoseg.errors import InputError
from autoseg.losses.card import LossCard
from autoseg.losses.expression import Term, parse
from autoseg.losses.named import IDENTITY, card_path, identity_of, load_loss
from autoseg.losses.registry import LOSSES, check_options, hand_made
from autoseg.losses.sums import summed


def build_loss(
    spec: str | os.PathLike[str],
    *,
    num_classes: int,
    ignore_index: int = 255,
    identity: Mapping[str, Any] | None = None,
    **options: Any,
) -> nn.Module:
    """Builds a loss from its name, a sum of losses, a published surrogate or a loss card.

    Args:
        spec: a name of `loss_names()`, optionally with options in brackets ("tversky(alpha=0.3,beta=0.7)"); a
            surrogate such as "asl2021/miou" or "identity/biou"; the path of a card (.json) or of the run folder
            with it; or a sum of these, "0.25*ce+0.75*jml".
        num_classes: C.
        ignore_index: id of the pixels that do not count.
        identity: options of "identity/METRIC" where the text gives none: `space`, `tolerance`, `drop_background`.
        options: the loss's own options; in a sum only what every loss takes (`validate`).

    Returns:
        A module called as loss(logits, labels) or loss(logits, labels, extra). Hand-made losses and sums have
        `prepare(labels)` and `set_progress(share)` too.

    Raises:
        InputError: unknown name or option, or a malformed sum.
    """
    terms = terms_of(spec)
    own = sorted(set(options) - {"validate"})
    if len(terms) > 1 and own:
        hint = f"Put it into the brackets of one loss, as in {terms[0].name}({own[0]}=...)."
        raise InputError("loss options", "none beside a sum", ", ".join(own), hint)
    return summed(terms, lambda term: _build_term(term, num_classes, ignore_index, options, identity or {}))


def _build_term(
    term: Term, num_classes: int, ignore_index: int, shared: Mapping[str, Any], identity: Mapping[str, Any]
) -> nn.Module:
    """One loss of a sum, without its weight."""
    options = {**shared, **term.options}
    if term.name in LOSSES:
        return hand_made(term.name, num_classes, ignore_index, options)
    usual = identity if term.name.startswith(f"{IDENTITY}/") else {}
    return load_loss(term.name, num_classes=num_classes, ignore_index=ignore_index, **{**usual, **options})


def terms_of(text: str | os.PathLike[str]) -> list[Term]:
    """The losses of a sum; paths and "identity/METRIC" may hold characters that sums use, and are one by themselves.

    Raises:
        InputError: malformed.
    """
    if isinstance(text, os.PathLike):
        text = os.fspath(text)
    if not isinstance(text, str):
        raise InputError("loss", "text, such as 0.25*ce+0.75*jml, or a path", type(text).__name__)
    whole = os.path.exists(text) or identity_of(text) is not None
    return [Term(1.0, text)] if whole else parse(text)


def check_text(text: str) -> None:
    """Refuse what can be built for no number of classes; errors as in `check_term`, or a malformed sum."""
    for term in terms_of(text):
        check_term(term)


def check_term(term: Term) -> None:
    """Refuse a loss of a sum that can be built for no number of classes: its name or an option is not known.

    Raises:
        InputError: that; or it is a card that cannot be read.
    """
    if term.name in LOSSES:
        check_options(term.name, term.options)
    elif (card := card_path(term.name)) is not None:
        LossCard.load(card)
    else:
        load_loss(term.name, num_classes=2, **term.options)  # curves fit any number
