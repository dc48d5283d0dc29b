"""The losses of a comparison: turns the user's text into named, checked, buildable losses."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from autoseg.errors import InputError
from autoseg.losses import LossCard, build_loss
from autoseg.losses.build import IDENTITY, card_path, check_term, terms_of
from autoseg.losses.expression import packed, parse, quoted, renamed
from autoseg.metrics import is_known
from autoseg.metrics import parse as parse_metric
from autoseg.store.run_folder import slug
from autoseg.surrogates import known_losses

CARDS = "cards"  # folder of a comparison with copies of its cards


@dataclass(frozen=True)
class Contender:
    """One loss of a comparison."""

    # its name in tables and in the ledger. A card in it is named by its metric and the digest of its content, so that
    # another loss under the same path is another contender
    name: str
    text: str  # the user's text, without spaces except those in quotes
    kept: str  # the same with cards as files of the comparison's own folder, "cards/<name>.json"
    searched: bool  # found by a search; all others are hand-made, the identity curves (such as soft Jaccard) too
    cards: Mapping[str, LossCard] = field(default_factory=dict)  # the cards in it by name
    typed: Mapping[str, str] = field(default_factory=dict)  # what the user typed for each of them, a path


@dataclass(frozen=True)
class Recipe:
    """Builds the losses of a comparison; plain data, sent to the workers."""

    num_classes: int  # C
    ignore_index: int = 255  # id of the pixels that do not count
    space: str = "default"  # name of the search space with the identity curves of "identity/<metric>"
    # options of the boundary metrics, for surrogates called by name: tolerance, drop_background
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, text: str) -> nn.Module:
        """Build a loss from the user's text ("ce", "0.25*ce+0.75*jml", the path of a card, "identity/biou").

        Raises:
            InputError: no such loss or option, a malformed sum, a file that is no card.
        """
        own = {"space": self.space, **self.options}
        return build_loss(text, num_classes=self.num_classes, ignore_index=self.ignore_index, defaults=own)


def contenders(texts: Sequence[str], metrics: Sequence[str], home: Path | None = None) -> list[Contender]:
    """Return the losses of a comparison.

    Args:
        texts: the user's texts: names, sums, "identity" (of the first metric), "identity/<metric>", cards, run folders.
        metrics: the metrics that are compared.
        home: an existing comparison; its own cards "cards/<name>.json" have priority.

    Raises:
        InputError: fewer than two losses, one twice, or one that is not known.
    """
    found = [contender(text, metrics[0], home) for text in texts]
    if len(found) < 2:
        more = "" if home is None else " Name those that the comparison has, too, if they are to be shown."
        raise InputError("losses", "at least two", list(texts), f"For example losses=[ce,lovasz].{more}")
    names = [one.name for one in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError("losses", "each loss once", f"{', '.join(twice)} more than once")
    return found


def reference_of(text: str, among: Sequence[Contender]) -> Contender:
    """Return the contender with this name, this text, or this card, which a comparison has a copy of.

    Raises:
        InputError: there is none.
    """
    file = card_path(text)
    label = _label(LossCard.load(file)) if file is not None and file.is_file() else None
    for contender in among:
        if packed(text) in (contender.name, contender.text) or label == contender.name:
            return contender
    names = [contender.name for contender in among]
    hint = "Add it to losses, or name another."
    raise InputError("reference", "one of the losses: " + ", ".join(names), repr(text), hint)


def cards_of(among: Sequence[Contender]) -> dict[str, LossCard]:
    """Return all cards in the contenders by name, each once."""
    return {name: card for one in among for name, card in one.cards.items()}


def sources(among: Sequence[Contender]) -> dict[str, str]:
    """Describe where each card in the contenders comes from."""
    return {
        name: f"cards/{name}.json, searched for {card.target}, {_origin(card)}"
        for name, card in cards_of(among).items()
    }


def _origin(card: LossCard) -> str:
    """Return the run of a card, and which of its losses it is: also others than the winner can be exported."""
    origin = card.provenance
    which = f"{origin['candidate']} " if "candidate" in origin else ""
    return f"{which}of run {origin.get('run', 'unknown')}"


def key_of(among: Sequence[Contender]) -> list[str]:
    """Return a line for each card in the contenders: its name in the tables, and what the user typed for it.

    Of the copies that a comparison goes on with, the origin is added.
    """
    found = {}
    for one in among:
        for name, card in one.cards.items():
            own = f"{CARDS}/{name}.json"
            origin = f", {_origin(card)}" if one.typed[name] == own else ""
            found[name] = f"{name}: {' '.join(one.typed[name].split())}{origin}"
    return list(found.values())


def keep_cards(among: Sequence[Contender], home: Path) -> dict[str, str]:
    """Copy all cards into the comparison's folder; return the text that each contender is built from, by name."""
    for name, card in cards_of(among).items():
        card.save(home / CARDS / f"{name}.json")
    return {contender.name: built_from(contender, home) for contender in among}


def built_from(contender: Contender, home: Path) -> str:
    """Return the text a contender is built from, after `keep_cards` has copied its cards into the comparison's
    folder.
    """
    paths = {f"{CARDS}/{name}.json": str(home / CARDS / f"{name}.json") for name in contender.cards}
    if contender.kept in paths:
        return paths[contender.kept]
    text = contender.kept
    for kept, path in paths.items():
        text = renamed(text, kept, quoted(path))
    return text


def contender(text: str, metric: str, home: Path | None = None) -> Contender:
    """Return one loss from the user's text; `metric` is that of a plain "identity", `home` as in `contenders`.

    Raises:
        InputError: a sum that cannot be read, a name or an option in it that is not known, a file that is no card.
    """
    text = text.strip()
    path = text if os.path.exists(text) else None  # may hold characters that sums use
    text = path or packed(text)
    if text == IDENTITY:
        parse_metric(metric)
        return Contender(f"{IDENTITY}/{metric}", text, f"{IDENTITY}/{metric}", searched=False)
    cards, typed, name, kept = {}, {}, text, text
    terms = terms_of(text)
    for term in terms:
        own = home / term.name if home is not None else None
        file = own if own is not None and own.is_file() else card_path(term.name)
        if file is None:
            check_term(term)
            continue
        card = LossCard.load(file)
        label = _label(card)
        cards[label], typed[label] = card, term.name
        name, kept = renamed(name, term.name, label), renamed(kept, term.name, f"{CARDS}/{label}.json")
    searched = bool(cards) or any(term.name in known_losses() for term in terms)
    return Contender(name, text, kept, searched, cards, typed)


def _label(card: LossCard) -> str:
    content = json.dumps([card.metric, card.space, card.theta, card.options], sort_keys=True)
    return f"{slug(card.target)}-{hashlib.sha256(content.encode()).hexdigest()[:6]}"


def words_of(among: Sequence[Contender]) -> set[str]:
    """Return all words that may name a hand-made loss in any contender, also those that a card mixes with its
    curves.
    """
    texts = [*(one.kept for one in among), *(str(card.space.get("loss")) for card in cards_of(among).values())]
    return {word for text in texts for word in re.findall(r"\w+", text)}


def warnings_about(
    among: Sequence[Contender], metrics: Sequence[str], num_classes: int, seeds: Sequence[int]
) -> list[str]:
    """Return warnings about found losses that limit what a comparison shows."""
    texts = []
    for contender in among:
        for target in not_among(contender, metrics):
            more = f": metrics=[{','.join([*metrics, target])}]" if is_known(target) else ""
            texts.append(f"{contender.name} was searched for {target}, which is not among metrics{more}")
        for card in contender.cards.values():
            if card.num_classes not in (None, num_classes):
                texts.append(f"{contender.name} was searched on {card.num_classes} classes, the data has {num_classes}")
            if not card.confirmed:
                texts.append(f"{contender.name} was not confirmed with fresh seeds by its search")
            if used := sorted(_seeds_of(card) & set(seeds)):
                texts.append(f"{contender.name} was chosen with seed {used[0]}, which is not fresh: take other seeds")
    return texts


def not_among(contender: Contender, metrics: Sequence[str]) -> list[str]:
    """Return the metrics for which the searched losses in a contender were searched and no part of which is among
    these; a user's own may not be known here.
    """
    scored = {term for metric in metrics for _, term in parse_metric(metric)}
    targets = dict.fromkeys(_targets(contender))
    return [t for t in targets if not (is_known(t) and scored & {term for _, term in parse_metric(t)})]


def _targets(contender: Contender) -> list[str]:
    """Return the metrics for which the searched losses in a contender were searched."""
    names = [term.name for term in parse(contender.kept)] if contender.searched else []
    targets = [known_losses()[name].metric for name in names if name in known_losses()]
    return [*targets, *(card.target for card in contender.cards.values())]


def _seeds_of(card: LossCard) -> set[int]:
    stages = [stage for stage in card.scores.values() if isinstance(stage, dict)]
    return {seed for stage in stages for seed in stage.get("seeds", []) if isinstance(seed, int)}
