"""Makes the cards of a search's losses, and writes that of the best, `loss.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoseg.files import no_space
from autoseg.losses import LossCard, searched_loss
from autoseg.store.records import Finding
from autoseg.surrogates.space import SearchSpace

UNKNOWN = 2  # number of classes to write a card with if it is not known; curves fit any number


@dataclass(frozen=True)
class CardPublisher:
    """Writes the card of the finding that it is called with."""

    path: Path  # `loss.json`
    space: SearchSpace  # the search space
    num_classes: int | None  # number of classes of the data; None if only the training function knows
    ignore_index: int = 255  # label of pixels without a class
    # further options of `SurrogateLoss`, as the workers have them
    options: Mapping[str, Any] = field(default_factory=dict)
    # plain data on where the loss comes from: data fingerprint, model, proxy, versions
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, finding: Finding) -> None:
        """Replace the card.

        Raises:
            InputError: no space on the disk; the previous card stays.
        """
        with no_space(self.path):
            self.card(finding).save(self.path)

    def card(self, finding: Finding) -> LossCard:
        """Return the card of a finding."""
        loss = searched_loss(self.space, finding.theta, self.num_classes or UNKNOWN, self.ignore_index, **self.options)
        means = {name: score if math.isfinite(score) else None for name, score in finding.scores.items()}
        stage = "confirm" if finding.confirmed else "search"
        length = {"iters": finding.iters} if finding.iters else {}
        return LossCard.of(
            loss,
            num_classes=self.num_classes,
            confirmed=finding.confirmed,
            scores={stage: {"mean": means, "seeds": list(finding.seeds), **length}},
            provenance={
                **self.provenance,
                "candidate": finding.name,
                "run": self.path.parent.name,
                **({"behind": list(finding.behind)} if finding.behind else {}),
            },
        )
