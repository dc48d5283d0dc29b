"""Search spaces: which numbers a controller chooses, and how they become curves.

A controller sees raw θ in [0, 1]^d. `SearchSpace` is the only place that knows what the numbers mean: it decodes
them to the points of curves, one curve after the other, each as x1, y1, x2, y2, … of its free points. Spaces are
data (`search_spaces/*.yaml`), bound to a metric whose formula says which curves there are.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from autoseg import metrics
from autoseg.errors import InputError
from autoseg.metrics.logic import curves_of
from autoseg.surrogates import curves

if TYPE_CHECKING:
    from autoseg.surrogates.loss import SurrogateLoss

FAMILIES = ("bezier", "linear")
_PLACEHOLDER = re.compile(r"\{(1-)?(\w+)\}")  # {a} or {1-a} in a space's loss
SCORE_MAX_SLOPE = 100.0  # a class that scores 0 is pulled up at most this hard (about that of -log(score + .001))
Array = TypeVar("Array", np.ndarray, Tensor)


@dataclass(frozen=True)
class CurveSpec:
    """The freedom of one curve.

    Attributes:
        family: "bezier" (piecewise quadratic) or "linear".
        pieces: Bezier pieces K (2K-1 free points) or line segments M (M-1 free points).
        truth_table: ends fixed at (0, 0) and (1, 1); if not, the two end ordinates are free and come last.
        monotone: ordinates never fall; if not, they are free in [0, 1]. Abscissae are always sorted.
    """

    family: str = "bezier"
    pieces: int = 2
    truth_table: bool = True
    monotone: bool = True

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise InputError("parameterization", " or ".join(FAMILIES), repr(self.family))
        least = 1 if self.family == "bezier" else 2
        if not isinstance(self.pieces, int) or self.pieces < least:
            raise InputError("pieces", f"an integer, at least {least} for {self.family} curves", self.pieces)

    @property
    def points(self) -> int:
        """Free interior points m."""
        return 2 * self.pieces - 1 if self.family == "bezier" else self.pieces - 1

    @property
    def dim(self) -> int:
        """Numbers that describe the curve."""
        return 2 * self.points + (0 if self.truth_table else 2)

    def names(self, curve: str) -> list[str]:
        """Names of those numbers: "and.p1.x" and so on."""
        names = [f"{curve}.p{i + 1}.{axis}" for i in range(self.points) for axis in "xy"]
        return names if self.truth_table else [*names, f"{curve}.y0", f"{curve}.y1"]

    @property
    def identity(self) -> np.ndarray:
        """Raw numbers, (dim,), of the curve g(x) = x: points evenly spaced."""
        m = self.points
        step = 1.0 / np.arange(m + 1, 1, -1)  # by remaining range: 1/(m+1), 1/m, …, 1/2
        even = np.arange(1, m + 1) / (m + 1)
        pairs = np.stack([step, step if self.monotone else even], axis=1).reshape(-1)
        return pairs if self.truth_table else np.concatenate([pairs, [0.0, 1.0]])

    def decode(self, raw: Array) -> Array:
        """Raw numbers (…, dim) in [0, 1] to coordinates (…, dim): each by the range that remains above the last.

        B_1 = θ_1, B_i = B_{i-1} + θ_i (1 - B_{i-1}) (the release's `autoloss_ppo_bezier.py`).
        """
        out = raw.copy() if isinstance(raw, np.ndarray) else raw.clone()
        low_y, high_y = self._end_ordinates(raw, out)
        x, y = 0.0 * raw[..., 0], low_y
        for i in range(self.points):
            x = x + raw[..., 2 * i] * (1.0 - x)
            out[..., 2 * i] = x
            if self.monotone:
                y = y + raw[..., 2 * i + 1] * (high_y - y)
                out[..., 2 * i + 1] = y
        return out

    def _end_ordinates(self, raw: Array, out: Array) -> tuple[Any, Any]:
        """The ordinates at x = 0 and x = 1; with monotone curves the second uses the range above the first."""
        if self.truth_table:
            return 0.0 * raw[..., 0], 0.0 * raw[..., 0] + 1.0
        if self.monotone:
            out[..., -1] = raw[..., -2] + raw[..., -1] * (1.0 - raw[..., -2])
        return out[..., -2], out[..., -1]

    def encode(self, decoded: np.ndarray) -> np.ndarray:
        """Inverse of `decode`; where no range remains, the raw number is 0."""
        raw = np.array(decoded, dtype=np.float64)
        low_y, high_y = (0.0, 1.0) if self.truth_table else (decoded[..., -2], decoded[..., -1])
        if not self.truth_table and self.monotone:
            raw[..., -1] = _share(decoded[..., -1] - low_y, 1.0 - low_y)
        x, y = np.zeros_like(raw[..., 0]), np.zeros_like(raw[..., 0]) + low_y
        for i in range(self.points):
            raw[..., 2 * i] = _share(decoded[..., 2 * i] - x, 1.0 - x)
            x = decoded[..., 2 * i]
            if self.monotone:
                raw[..., 2 * i + 1] = _share(decoded[..., 2 * i + 1] - y, high_y - y)
                y = decoded[..., 2 * i + 1]
        return np.clip(raw, 0.0, 1.0)

    def knots(self, decoded: Tensor) -> Tensor:
        """Coordinates (dim,) to all points with their ends, (m+2, 2) float64."""
        decoded = decoded.double()
        y0, y1 = (0.0, 1.0) if self.truth_table else (float(decoded[-2]), float(decoded[-1]))
        inner = decoded[: 2 * self.points].view(-1, 2)
        return torch.cat([inner.new_tensor([[0.0, y0]]), inner, inner.new_tensor([[1.0, y1]])])

    def coefficients(self, decoded: Tensor, max_slope: float = float("inf")) -> Tensor:
        """Coordinates (dim,) to what `curves.evaluate` takes."""
        knots = self.knots(decoded)
        return curves.prepare(knots if self.family == "bezier" else curves.linear_knots(knots), max_slope)

    def check(self, decoded: np.ndarray, curve: str) -> None:
        """Raises `InputError` unless (dim,) are coordinates this curve may have."""
        inner = decoded[: 2 * self.points].reshape(-1, 2)
        ends = decoded[2 * self.points :]
        if not np.isfinite(decoded).all() or (decoded < 0).any() or (decoded > 1).any():
            raise InputError(f"control_points of {curve}", "coordinates in [0, 1]", decoded.tolist())
        if (np.diff(inner[:, 0]) < 0).any():
            raise InputError(f"control_points of {curve}", "x in ascending order", inner[:, 0].tolist())
        y = np.concatenate([ends[:1], inner[:, 1], ends[1:]])
        if self.monotone and (np.diff(y) < 0).any():
            raise InputError(f"control_points of {curve}", "y that never falls (a monotone curve)", y.tolist())


def _share(part: np.ndarray, whole: Any) -> np.ndarray:
    whole = np.asarray(whole, dtype=np.float64)
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), 0.0)


@dataclass(frozen=True)
class Scalar:
    """A number beside the curves: an option of a hand-made loss, or a weight of a sum.

    Attributes:
        name: as the space's loss names it.
        low: value of raw 0.
        high: value of raw 1; in between evenly.
        start: where a search begins, beside the identity curves; None for the middle.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    start: float | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise InputError(f"scalar {self.name}", "low below high, both finite", f"{self.low} and {self.high}")
        if self.start is not None and not self.low <= self.start <= self.high:
            raise InputError(f"scalar {self.name}", f"a start in [{self.low}, {self.high}]", self.start)

    @property
    def identity(self) -> float:
        """Raw number of the start."""
        return 0.5 if self.start is None else (self.start - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class SearchSpace:
    """All curves of a metric's surrogate, and how they are used.

    Attributes:
        name: "paper-miou", "default-biou", …
        metric: as users type it; a sum has the curves of each of its terms.
        curve: freedom of every AND and OR curve.
        score: freedom of the score curve, None for none (the paper). Its ends are always fixed.
        shared: one curve per operation for all its operands.
        absent: "include" averages over all classes (the paper's release), "skip" over those the batch's labels have.
        loss: what is trained with: "surrogate", or a text as `build_loss` reads it with "surrogate" among its losses
            or without, and {name} or {1-name} where a scalar stands: "{a}*ce+{1-a}*surrogate".
        scalars: those numbers, last in θ.
    """

    name: str
    metric: str
    curve: CurveSpec = CurveSpec()
    score: CurveSpec | None = None
    shared: bool = False
    absent: str = "include"
    loss: str = "surrogate"
    scalars: tuple[Scalar, ...] = ()

    def __post_init__(self) -> None:
        named = {name for _, name in _PLACEHOLDER.findall(self.loss)}
        if named != {scalar.name for scalar in self.scalars}:
            declared = ", ".join(scalar.name for scalar in self.scalars) or "none"
            raise InputError("loss of the space", f"the scalars {declared}, each in braces", repr(self.loss))
        metrics.parse_target(self.metric)  # raises for an unknown metric, and for one without a surrogate
        if self.absent not in ("include", "skip"):
            raise InputError("absent", "include or skip", repr(self.absent))
        if self.score is not None and not (self.score.truth_table and self.score.monotone):
            raise InputError("score", "a monotone curve with fixed ends", asdict(self.score))

    @cached_property
    def curves(self) -> dict[str, CurveSpec]:
        """Every curve in the order of θ: AND and OR of each term, then the score curves; none without a surrogate."""
        if not self.has_surrogate:
            return {}
        terms = [name for _, name in metrics.parse(self.metric)]
        out = {curve: self.curve for term in terms for curve in self.keys(term).values()}
        if self.score is not None:
            out |= {self.qualified(term, "score"): self.score for term in terms}
        return out

    def qualified(self, term: str, curve: str) -> str:
        """A curve's name within the space: with its term in front where the metric is a sum."""
        return curve if len(metrics.parse(self.metric)) == 1 else f"{term}.{curve}"

    def keys(self, term: str) -> dict[tuple[str, str], str]:
        """{(operation, operand): curve name} of one term of the metric, read off its formula."""
        metric = metrics.build_metric(term, num_classes=2)
        assert isinstance(metric, metrics.Metric)
        found = curves_of(metric.sums, self.shared)
        return {key: self.qualified(term, curve) for key, curve in found.items()}

    @property
    def dim(self) -> int:
        """Length d of θ."""
        return sum(spec.dim for spec in self.curves.values()) + len(self.scalars)

    @property
    def has_surrogate(self) -> bool:
        """Whether curves take part in the loss."""
        return re.search(r"\bsurrogate\b", self.loss) is not None

    @property
    def names(self) -> list[str]:
        """Names of θ's numbers."""
        curves = [n for curve, spec in self.curves.items() for n in spec.names(curve)]
        return curves + [scalar.name for scalar in self.scalars]

    @property
    def identity(self) -> np.ndarray:
        """(d,) float64 raw θ whose curves are all g(x) = x, the metric's plain soft form; scalars at their start."""
        scalars = np.array([scalar.identity for scalar in self.scalars])
        return np.concatenate([*(spec.identity for spec in self.curves.values()), scalars])

    def split(self, theta: Array) -> dict[str, Array]:
        """(…, d) into {curve: (…, its dim)}, scalars left out."""
        out, at = {}, 0
        for curve, spec in self.curves.items():
            out[curve] = theta[..., at : at + spec.dim]
            at += spec.dim
        return out

    def check_theta(self, theta: Any) -> np.ndarray:
        """As float64 array (…, d); raises `InputError` for a wrong length or numbers outside [0, 1]."""
        array = np.asarray(theta, dtype=np.float64)
        if array.ndim == 0 or array.shape[-1] != self.dim:
            raise InputError("theta", f"{self.dim} numbers for space {self.name}", f"shape {array.shape}")
        if not np.isfinite(array).all() or (array < 0).any() or (array > 1).any():
            raise InputError("theta", "numbers in [0, 1]", array.tolist())
        return array

    def decode(self, theta: Any) -> Any:
        """Raw θ (d,) or (n, d) to coordinates of the same shape; a tensor stays one, all else becomes float64 numpy.

        Raises:
            InputError: wrong length, or numbers outside [0, 1].
        """
        array = self.check_theta(theta.detach().cpu() if isinstance(theta, Tensor) else theta)
        parts = self.split(array)
        scalars = [s.low + array[..., i : i + 1] * (s.high - s.low) for i, s in self._places()]
        out = np.concatenate([*(spec.decode(parts[c]) for c, spec in self.curves.items()), *scalars], axis=-1)
        return torch.as_tensor(out).to(theta) if isinstance(theta, Tensor) else out

    def encode(self, decoded: Any) -> np.ndarray:
        """Coordinates (d,) or (n, d) back to raw θ."""
        array = np.asarray(decoded, dtype=np.float64)
        parts = self.split(array)
        scalars = [(array[..., i : i + 1] - s.low) / (s.high - s.low) for i, s in self._places()]
        return np.concatenate([*(spec.encode(parts[c]) for c, spec in self.curves.items()), *scalars], axis=-1)

    def _places(self) -> list[tuple[int, Scalar]]:
        """Where in θ each scalar stands."""
        return list(enumerate(self.scalars, start=self.dim - len(self.scalars)))

    def scalar_values(self, theta: Any) -> dict[str, float]:
        """{name: value} of the scalars of one raw θ (d,)."""
        decoded = self.decode(self.check_theta(theta))
        return {scalar.name: float(decoded[i]) for i, scalar in self._places()}

    def loss_text(self, theta: Any) -> str:
        """The space's loss with the scalars of θ (d,) filled in, as `build_loss` reads it."""
        values = self.scalar_values(theta)
        fill = {True: lambda v: 1 - v, False: lambda v: v}
        return _PLACEHOLDER.sub(lambda m: repr(round(fill[bool(m[1])](values[m[2]]), 12)), self.loss)

    def curves_only(self) -> SearchSpace:
        """The same curves without the scalars and what is mixed with them."""
        return replace(self, loss="surrogate", scalars=())

    def check_decoded(self, decoded: Any) -> np.ndarray:
        """Coordinates, flat (d,) or {curve: (m, 2)}, as a checked float64 array (d,)."""
        if isinstance(decoded, dict):
            if set(decoded) != set(self.curves):
                raise InputError("control_points", "curves " + ", ".join(self.curves), ", ".join(decoded))
            decoded = np.concatenate([np.asarray(decoded[c], dtype=np.float64).reshape(-1) for c in self.curves])
        array = np.asarray(decoded, dtype=np.float64).reshape(-1)
        if len(array) != self.dim:
            raise InputError("control_points", f"{self.dim} numbers for space {self.name}", len(array))
        for curve, part in self.split(array).items():
            self.curves[curve].check(part, curve)
        return array

    def build_loss(self, theta: Any, num_classes: int, ignore_index: int = 255, **options: Any) -> SurrogateLoss:
        """The surrogate loss of raw θ. `options` are those of `SurrogateLoss`.

        Raises:
            InputError: the space mixes the surrogate with other losses; `autoseg.losses.searched_loss` builds those.
        """
        if self.loss != "surrogate":
            hint = "autoseg.losses.searched_loss builds it."
            raise InputError("space", "curves alone", f"the loss {self.loss!r}", hint)
        from autoseg.surrogates.loss import SurrogateLoss

        return SurrogateLoss.from_theta(
            self.metric, theta, num_classes, space=self, ignore_index=ignore_index, **options
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back."""
        return {**asdict(self), "scalars": [asdict(scalar) for scalar in self.scalars]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> SearchSpace:
        """Reads `to_dict`'s form.

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
        except (KeyError, TypeError) as error:
            raise InputError("space", "the fields of a search space", f"a problem with {error}") from None

    def bound_to(self, metric: str) -> SearchSpace:
        """The same freedom for another metric."""
        return replace(self, metric=metric)
