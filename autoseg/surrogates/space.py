"""Search spaces: the numbers that a controller chooses, and how they become curves.

A controller sees raw θ in [0, 1]^d. `SearchSpace` is the only place that knows what the numbers mean: it decodes
them to the points of curves, one curve after the other, each as x1, y1, x2, y2, … of its free points. Spaces are
data (`search_spaces/*.yaml`), bound to a metric whose formula determines the curves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from autoseg import metrics
from autoseg.errors import InputError
from autoseg.kinds import CheckedArguments
from autoseg.metrics.trace import curves_of
from autoseg.surrogates.parameterization import CurveSpec, Scalar

_PLACEHOLDER = re.compile(r"\{(1-)?(\w+)\}")  # {a} or {1-a} in a space's loss
Absent = Literal["include", "skip"]
MANY = 256  # number of classes with which a formula is traced; it may refer to some by their index
SCORE_MAX_SLOPE = 100.0  # largest slope at a class score of 0 (about that of -log(score + .001))


@dataclass(frozen=True)
class SearchSpace(CheckedArguments):
    """All curves of a metric's surrogate, and how they are used.

    Attributes:
        name: "paper-miou", "default-biou", …
        metric: the metric's name, or a sum, which has the curves of each of its terms.
        curve: degrees of freedom of every AND and OR curve.
        score: degrees of freedom of the score curve, None for none (the paper). Its ends are always fixed.
        shared: one curve per operation for all its operands.
        absent: "include" averages over all classes (the paper's release), "skip" over those in the batch's labels.
        loss: the loss to train with: "surrogate", or a sum of hand-made losses with or without "surrogate",
            and {name} or {1-name} for a scalar: "{a}*ce+{1-a}*surrogate". It may not name a file: a card is complete.
        scalars: those numbers, last in θ.
    """

    name: str
    metric: str
    curve: CurveSpec = field(default_factory=CurveSpec)
    score: CurveSpec | None = None
    shared: bool = False
    absent: Absent = "include"
    loss: str = "surrogate"
    scalars: tuple[Scalar, ...] = ()

    def __post_init__(self) -> None:
        named = {name for _, name in _PLACEHOLDER.findall(self.loss)}
        if named != {scalar.name for scalar in self.scalars}:
            declared = ", ".join(scalar.name for scalar in self.scalars) or "none"
            raise InputError("loss of the space", f"the scalars {declared}, each in braces", repr(self.loss))
        metrics.parse_target(self.metric)  # raises for an unknown metric, and for one without a surrogate
        if self.score is not None and not (self.score.truth_table and self.score.monotone):
            raise InputError("score", "a monotone curve with fixed ends", asdict(self.score))

    @cached_property
    def curves(self) -> dict[str, CurveSpec]:
        """Every curve in the order of θ: AND and OR of each term, then the score curves; empty without a surrogate."""
        if not self.has_surrogate:
            return {}
        terms = [name for _, name in metrics.parse(self.metric)]
        out = {curve: self.curve for term in terms for curve in self.keys(term).values()}
        if self.score is not None:
            out |= {self.qualified(term, "score"): self.score for term in terms}
        return out

    def qualified(self, term: str, curve: str) -> str:
        """Return a curve's name within the space: if the metric is a sum, with its term in front."""
        return curve if len(metrics.parse(self.metric)) == 1 else f"{term}.{curve}"

    def keys(self, term: str) -> dict[tuple[str, str], str]:
        """Return {(operation, operand): curve name} for one term of the metric, from its formula."""
        metric = metrics.build_metric(term, num_classes=MANY)
        assert isinstance(metric, metrics.Metric)
        found = curves_of(metric.sums, self.shared, MANY)
        return {key: self.qualified(term, curve) for key, curve in found.items()}

    @property
    def dim(self) -> int:
        """The length d of θ."""
        return sum(spec.dim for spec in self.curves.values()) + len(self.scalars)

    @property
    def has_surrogate(self) -> bool:
        """Whether curves take part in the loss."""
        return re.search(r"\bsurrogate\b", self.loss) is not None

    @property
    def names(self) -> list[str]:
        """The names of θ's numbers."""
        curves = [n for curve, spec in self.curves.items() for n in spec.names(curve)]
        return curves + [scalar.name for scalar in self.scalars]

    @property
    def identity(self) -> np.ndarray:
        """The raw θ, (d,) float64, with all curves g(x) = x, the metric's plain soft form, and scalars at their
        start.
        """
        scalars = np.array([scalar.identity for scalar in self.scalars])
        return np.concatenate([*(spec.identity for spec in self.curves.values()), scalars])

    def split(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """Split (…, d) into {curve: (…, its dim)}, without the scalars."""
        out, at = {}, 0
        for curve, spec in self.curves.items():
            out[curve] = theta[..., at : at + spec.dim]
            at += spec.dim
        return out

    def check_theta(self, theta: Any) -> np.ndarray:
        """Return θ as a float64 array (…, d); raise `InputError` for a wrong length or numbers outside [0, 1]."""
        array = _numbers(theta, "theta")
        if array.ndim == 0 or array.shape[-1] != self.dim:
            raise InputError("theta", f"{self.dim} numbers for space {self.name}", f"shape {array.shape}")
        if not np.isfinite(array).all() or (array < 0).any() or (array > 1).any():
            raise InputError("theta", "numbers in [0, 1]", array.tolist())
        return array

    def decode(self, theta: Any) -> Any:
        """Turn raw θ (d,) or (n, d) into coordinates of the same shape.

        A tensor stays one, all else becomes float64 numpy.

        Raises:
            InputError: wrong length, or numbers outside [0, 1].
        """
        array = self.check_theta(theta)
        parts = self.split(array)
        scalars = [s.low + array[..., i : i + 1] * (s.high - s.low) for i, s in self._places()]
        none = array[..., :0]  # a formula without AND and OR has no curves
        out = np.concatenate([none, *(spec.decode(parts[c]) for c, spec in self.curves.items()), *scalars], axis=-1)
        if not isinstance(theta, Tensor):
            return out
        return torch.as_tensor(out).to(theta.device, theta.dtype if theta.is_floating_point() else None)

    def encode(self, decoded: Any) -> np.ndarray:
        """Turn coordinates (d,) or (n, d) back into raw θ.

        Raises:
            InputError: wrong length.
        """
        array = _numbers(decoded, "control_points")
        if array.ndim == 0 or array.shape[-1] != self.dim:
            expected = f"{self.dim} numbers for space {self.name}"
            raise InputError("control_points", expected, f"shape {array.shape}")
        parts = self.split(array)
        scalars = [(array[..., i : i + 1] - s.low) / (s.high - s.low) for i, s in self._places()]
        none = array[..., :0]
        return np.concatenate([none, *(spec.encode(parts[c]) for c, spec in self.curves.items()), *scalars], axis=-1)

    def _places(self) -> list[tuple[int, Scalar]]:
        """Return each scalar with its index in θ."""
        return list(enumerate(self.scalars, start=self.dim - len(self.scalars)))

    def scalar_values(self, theta: Any) -> dict[str, float]:
        """Return {name: value} of the scalars of one raw θ (d,)."""
        decoded = self.decode(self.check_theta(theta))
        return {scalar.name: float(decoded[i]) for i, scalar in self._places()}

    def loss_text(self, theta: Any) -> str:
        """Return the space's loss with the scalars of θ (d,) filled in."""
        values = self.scalar_values(theta)
        fill = {True: lambda v: 1 - v, False: lambda v: v}
        return _PLACEHOLDER.sub(lambda m: repr(round(fill[bool(m[1])](values[m[2]]), 12)), self.loss)

    def curves_only(self) -> SearchSpace:
        """Return a space with the same curves, without the scalars and the losses mixed with them."""
        return replace(self, loss="surrogate", scalars=())

    def check_decoded(self, decoded: Any) -> np.ndarray:
        """Return coordinates, flat (d,) or {curve: (m, 2) or flat}, as a checked float64 array (d,)."""
        if isinstance(decoded, Mapping):
            if set(decoded) != set(self.curves):
                raise InputError("control_points", "curves " + ", ".join(self.curves), ", ".join(map(str, decoded)))
            parts = [_numbers(decoded[curve], f"control_points of {curve}") for curve in self.curves]
            for curve, part in zip(self.curves, parts, strict=True):
                if part.ndim > 2 or (part.ndim == 2 and part.shape[1] != 2):  # of (2, m) other points would be made
                    expected = "(m, 2), a row x, y for each point"
                    raise InputError(f"control_points of {curve}", expected, f"shape {part.shape}")
            decoded = np.concatenate([part.reshape(-1) for part in parts])
        array = _numbers(decoded, "control_points").reshape(-1)
        if len(array) != self.dim:
            raise InputError("control_points", f"{self.dim} numbers for space {self.name}", len(array))
        for curve, part in self.split(array).items():
            self.curves[curve].check(part, curve)
        array = array.copy()
        array.setflags(write=False)  # the curves are made of it once: a change would be of the card alone
        return array

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `from_dict` reads back."""
        return {**asdict(self), "scalars": [asdict(scalar) for scalar in self.scalars]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SearchSpace:
        """Read the form of `to_dict`.

        Raises:
            InputError: missing or unknown keys, or values out of range.
        """
        try:
            score = data["score"]
            return cls(
                **{
                    **data,
                    "curve": CurveSpec(**data["curve"]),
                    "score": None if score is None else CurveSpec(**score),
                    "scalars": tuple(Scalar(**scalar) for scalar in data.get("scalars", ())),
                }
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError("space", "the fields of a search space", f"a problem with {error}") from None

    def bound_to(self, metric: str) -> SearchSpace:
        """Return the same degrees of freedom for another metric."""
        return replace(self, metric=metric)


def _numbers(given: Any, field: str) -> np.ndarray:
    given = given.detach().cpu() if isinstance(given, Tensor) else given
    try:
        return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise InputError(field, "numbers", repr(given)) from None
