"""The task of the workers: from a payload to a loss, from the loss to scores through any training function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Real
from typing import Any

from torch import nn

from autoseg.errors import Diverged, InputError
from autoseg.execution import Watched
from autoseg.losses import build_loss, searched_loss
from autoseg.losses.late import LateLoss
from autoseg.proxy.predictions import KeepPredictions
from autoseg.proxy.rungs import Stopped, Watch
from autoseg.store.records import usable
from autoseg.surrogates import SearchSpace

Train = Callable[[nn.Module, int, str], float | Mapping[str, float]]


@dataclass(frozen=True)
class CandidateTask:
    """What an executor runs: builds the loss a payload describes and judges it by training with it."""

    metric: str  # the target
    space: dict[str, Any]  # the search space, as `SearchSpace.to_dict`
    # C; None if only the training function knows: the loss is then built for the logits it gets
    num_classes: int | None
    train: Train  # `train(loss, seed, device)` returns a score, or {name: score} with the target among the names
    ignore_index: int = 255  # id of the pixels that do not count
    # further options of `SurrogateLoss`, e.g. tolerance, for losses from θ and rivals with curves
    options: dict[str, Any] = field(default_factory=dict)
    keep: KeepPredictions | None = None  # which trainings leave predictions behind; only for the built-in training
    # what a name in a payload is built from, where that is not its own text: a copy of the card that it names
    texts: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, payload: dict[str, Any], device: str) -> dict[str, float]:
        """Scores of `{"theta": [...], "seed": n}` or `{"loss": name, "seed": n}`.

        With "rungs" those there too; with "iters", which only the built-in training takes, after so many iterations.

        Raises:
            Diverged: the target's score is not finite.
            InputError: `train` returned no score, or none of the target.
        """
        loss = self.build(payload).to(device)
        watch = Watch.of(payload, self.metric)
        changes: dict[str, Any] = {} if self.keep is None else self.keep.changes(payload)
        if "iters" in payload:
            changes["proxy"] = replace(self.train.proxy, iters=payload["iters"])  # type: ignore[attr-defined]
        if watch is not None:
            changes["watch"] = watch
        train: Any = replace(self.train, **changes) if changes else self.train  # type: ignore[type-var]
        try:
            scores = self._named(train(loss, payload["seed"], device))
        except Stopped:
            return Watched({}, watch.scores if watch is not None else {}, pruned=True)
        if not usable(scores[self.metric]):
            raise Diverged(f"the score {self.metric} is {scores[self.metric]}")
        return scores if watch is None else Watched(scores, watch.scores)

    def build(self, payload: dict[str, Any]) -> nn.Module:
        """The loss of a payload."""
        if "loss" in payload:
            payload = {**payload, "loss": self.texts.get(payload["loss"], payload["loss"])}
        build = partial(_build, payload, self.space, self.ignore_index, self.options)  # a pickle has no train in it
        return LateLoss(build) if self.num_classes is None else build(self.num_classes)

    def _named(self, returned: object) -> dict[str, float]:
        if isinstance(returned, Mapping):
            if self.metric not in returned:
                raise InputError("scores of train()", f"one called {self.metric!r}", ", ".join(map(repr, returned)))
            return {str(name): _number(score, f"score {name!r} of train()") for name, score in returned.items()}
        return {self.metric: _number(returned, "score of train()")}


def _build(
    payload: dict[str, Any], space: dict[str, Any], ignore_index: int, options: dict[str, Any], num_classes: int
) -> nn.Module:
    own = SearchSpace.from_dict(space)
    if "theta" in payload:
        return searched_loss(own, payload["theta"], num_classes, ignore_index, **options)
    defaults = {"space": own, **options}
    return build_loss(payload["loss"], num_classes=num_classes, ignore_index=ignore_index, defaults=defaults)


def _number(score: Any, field: str) -> float:
    """A number, or a tensor or array of one."""
    if getattr(score, "size", None) == 1 or getattr(score, "numel", lambda: 0)() == 1:
        score = score.item()
    if isinstance(score, Real):
        return float(score)
    raise InputError(field, "a number, or {name: number} as train()'s result", repr(score))
