"""Loss cards: a found loss as one JSON file with its definition, its origin and its scores."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from autoseg.errors import InputError, first_line, unknown_name
from autoseg.files import replacing
from autoseg.kinds import CheckedArguments
from autoseg.losses.searched import SearchedLoss, searched_loss
from autoseg.surrogates import SearchSpace, SurrogateLoss

SCHEMA = 1
DEPTH = 100  # levels of brackets in a card; what Python itself can take differs by version and by what called it
_OPTIONS = ("ignore_index", "tolerance", "drop_background", "absent", "eps", "loss_weight")


@dataclass(frozen=True)
class LossCard(CheckedArguments):
    """A found loss with its provenance; plain data.

    Attributes:
        metric: the metric that it is a surrogate of, as text.
        num_classes: number of classes of the data it was searched on, None if not known; curves fit any number.
        space: the search space, from `SearchSpace.to_dict`.
        theta: raw numbers in [0, 1]^d.
        control_points: {curve: [[x, y], …]} decoded (end ordinates last, if they are free).
        scalars: {name: value} decoded, for a space that has some.
        options: ignore_index, tolerance (pixels), drop_background, absent, eps, loss_weight.
        confirmed: whether its search has trained it with fresh seeds, beside its rivals.
        scores: its scores, e.g. {"search": {…}, "confirm": {…}}, with seeds.
        provenance: data fingerprint, model, proxy, versions, run; `behind` names rivals that its search found ahead.
    """

    metric: str
    num_classes: int | None
    space: dict[str, Any]
    theta: list[float]
    control_points: dict[str, Any]
    scalars: dict[str, float] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    confirmed: bool = False
    scores: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def target(self) -> str:
        """The metric it was searched for: the one it is a surrogate of, unless the search trained with another's
        surrogate.
        """
        return str(self.provenance.get("target", self.metric))

    @property
    def behind(self) -> tuple[str, ...]:
        """The rivals that were ahead of it when its search confirmed it; older cards do not say so."""
        names = self.provenance.get("behind")
        return tuple(map(str, names)) if isinstance(names, list) else ()

    @classmethod
    def of(cls, loss: SurrogateLoss | SearchedLoss, **about: Any) -> LossCard:
        """Make the card of a loss; `about` are confirmed, scores, provenance, or num_classes in place of the loss's."""
        o = loss.options
        parts = loss.space.split(loss.control_points)
        points = {c: _points(loss.space, c, part.tolist()) for c, part in parts.items()}
        return cls(
            metric=loss.metric,
            num_classes=about.pop("num_classes", o.num_classes),
            space=loss.space.to_dict(),
            theta=[float(v) for v in loss.theta],
            control_points=points,
            scalars=loss.space.scalar_values(loss.theta),
            options={name: getattr(o if hasattr(o, name) else loss, name) for name in _OPTIONS},
            **about,
        )

    def as_json(self) -> str:
        """Return the text of the card's file."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"

    def save(self, path: str | Path) -> None:
        """Write the card completely or not at all."""
        with replacing(Path(path)) as draft:
            draft.write_text(self.as_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> LossCard:
        """Read a card; no code in it is executed.

        Raises:
            InputError: no such file, not JSON (truncated, say), another schema, or fields that are missing, unknown
                or of another type.
        """
        path = Path(path)
        where = f"loss card {path}"
        if not path.is_file():
            raise InputError(where, "an existing file", "none there")
        try:
            data = json.loads(path.read_text(encoding="utf-8-sig"))
        except (ValueError, OSError, RecursionError) as error:
            hint = "It may be cut off; export it again from its run."
            raise InputError(where, "a JSON file", f"{error}", hint) from None
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            got = data.get("schema") if isinstance(data, dict) else type(data).__name__
            raise InputError(where, f"schema {SCHEMA}", repr(got), "Use the autoseg version that wrote it.")
        if _is_deeper(data, DEPTH):
            raise InputError(where, f"lists and mappings in at most {DEPTH} levels", "more")
        known = {f.name for f in fields(cls)}
        missing = sorted({"metric", "num_classes", "space", "theta"} - set(data))
        if missing or set(data) - known:
            raise InputError(where, "the fields of a card", f"missing {missing}, unknown {sorted(set(data) - known)}")
        card = None
        try:
            card = cls(**{"control_points": {}, **data})
            if strange := set(card.options) - set(_OPTIONS):
                raise InputError("options", ", ".join(_OPTIONS), ", ".join(sorted(strange)))
            # A card that cannot be built is refused here, with its reason.
            loss = card.build(2 if card.num_classes is None else None)
            _check_points(card.control_points, cls.of(loss).control_points)
            card.as_json()  # what is read can be written
        except InputError as error:
            made = [str(name) for name in card.provenance.get("imports") or ()] if card else []
            if made and error.field in ("metric", "loss"):
                given = shlex.quote(f"imports=[{','.join(made)}]")  # a card's text must not be a shell command
                hint = f"It was made with {given}: look at that code, then add it to the command."
                raise InputError(where, f"a known {error.field}", error.got, hint) from None
            raise InputError(f"{error.field} in {where}", error.expected, error.got, error.hint) from error
        except ValueError as error:
            raise InputError(where, "finite numbers", first_line(error)) from None
        return card

    def build(self, num_classes: int | None = None, **options: Any) -> SurrogateLoss | SearchedLoss:
        """Build the loss, for `num_classes` classes if not the card's own number."""
        classes = self.num_classes if num_classes is None else num_classes
        if classes is None:
            raise InputError("num_classes", "a number of classes", "none", "The card does not know it; pass it.")
        space = SearchSpace.from_dict(self.space).bound_to(self.metric)
        return searched_loss(space, self.theta, classes, **{**self.options, **options})


def _is_deeper(value: object, levels: int) -> bool:
    """Return whether lists and mappings are nested in more than so many levels."""
    nested = [value]
    for _ in range(levels + 1):
        nested = [
            inner
            for one in nested
            if isinstance(one, list | dict)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
    return bool(nested)


def _points(space: SearchSpace, curve: str, flat: list[float]) -> list[Any]:
    m = space.curves[curve].points
    return [flat[2 * i : 2 * i + 2] for i in range(m)] + flat[2 * m :]


def _check_points(said: Any, decoded: dict[str, Any]) -> None:
    """Raise if control points differ from theta's: they are only for reading, but whoever edits them wants another
    loss.
    """
    if not isinstance(said, dict):
        raise InputError("control_points", "a mapping from curves to points", said)
    if strange := sorted(said.keys() - decoded.keys()):
        raise unknown_name("curve of control_points", strange[0], decoded)
    for curve in said:
        try:
            same = len(said[curve]) == len(decoded[curve]) and np.allclose(
                np.hstack(said[curve] or [0.0]), np.hstack(decoded[curve] or [0.0]), rtol=1e-3, atol=1e-6
            )
        except (TypeError, ValueError):  # no numbers, or other shapes
            same = False
        if not same:
            hint = "The loss is made of theta: change that, or leave control_points out."
            raise InputError(f"control_points.{curve}", f"theta's, {decoded[curve]}", said[curve], hint)


def save_loss(
    loss: SurrogateLoss | SearchedLoss,
    path: str | Path,
    *,
    confirmed: bool = False,
    scores: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write a loss as a card.

    Args:
        loss: with curves, or searched options.
        path: the card's file, replaced completely or not at all.
        confirmed: whether it won a comparison with fresh seeds.
        scores: plain data to keep with it.
        provenance: where it comes from, plain data.

    Raises:
        InputError: a hand-made loss, or a sum of losses: its text is enough to build it; or what JSON cannot hold.
    """
    given: object = loss
    if not isinstance(given, SurrogateLoss | SearchedLoss):
        hint = "Others need no card: their text, as in build_loss, says all."
        raise InputError("save_loss", "a loss with searched curves or options", type(given).__name__, hint)
    about = {"confirmed": confirmed, "scores": dict(scores or {}), "provenance": dict(provenance or {})}
    card = LossCard.of(loss, **about)
    try:
        card.as_json()
    except (TypeError, ValueError) as error:
        hint = "Numbers must be finite, tensors become .tolist()."
        raise InputError("scores or provenance", "plain data for a JSON file", str(error), hint) from None
    card.save(path)
