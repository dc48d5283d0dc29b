"""The numbers that describe one curve, or one scalar beside the curves, and their meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from autoseg.errors import InputError
from autoseg.kinds import CheckedArguments
from autoseg.surrogates import curves

MOST_PIECES = 1000  # limit, since a card or a run's file may come from anybody
Family = Literal["bezier", "linear"]


@dataclass(frozen=True)
class CurveSpec(CheckedArguments):
    """The degrees of freedom of one curve."""

    family: Family = "bezier"  # "bezier" (piecewise quadratic) or "linear"
    pieces: int = 2  # Bezier pieces K (2K-1 free points) or line segments M (M-1 free points)
    truth_table: bool = True  # ends fixed at (0, 0) and (1, 1); if not, the two end ordinates are free and come last
    monotone: bool = True  # ordinates never fall; if not, they are free in [0, 1]. Abscissae are always sorted

    def __post_init__(self) -> None:
        least = 1 if self.family == "bezier" else 2
        if not least <= self.pieces <= MOST_PIECES:
            expected = f"at least {least} for {self.family} curves, and at most {MOST_PIECES}"
            raise InputError("pieces", expected, self.pieces)

    @property
    def points(self) -> int:
        """The number m of free interior points."""
        return 2 * self.pieces - 1 if self.family == "bezier" else self.pieces - 1

    @property
    def dim(self) -> int:
        """The number of numbers that describe the curve."""
        return 2 * self.points + (0 if self.truth_table else 2)

    def names(self, curve: str) -> list[str]:
        """Return the names of those numbers: "and.p1.x" and so on."""
        names = [f"{curve}.p{i + 1}.{axis}" for i in range(self.points) for axis in "xy"]
        return names if self.truth_table else [*names, f"{curve}.y0", f"{curve}.y1"]

    @property
    def identity(self) -> np.ndarray:
        """The raw numbers, (dim,), of the curve g(x) = x: points evenly spaced."""
        m = self.points
        step = 1.0 / np.arange(m + 1, 1, -1)  # by remaining range: 1/(m+1), 1/m, …, 1/2
        even = np.arange(1, m + 1) / (m + 1)
        pairs = np.stack([step, step if self.monotone else even], axis=1).reshape(-1)
        return pairs if self.truth_table else np.concatenate([pairs, [0.0, 1.0]])

    def decode(self, raw: np.ndarray) -> np.ndarray:
        """Turn raw numbers (…, dim) in [0, 1] into coordinates (…, dim): each is a share of the range above the last.

        B_1 = θ_1, B_i = B_{i-1} + θ_i (1 - B_{i-1}) (the release's `autoloss_ppo_bezier.py`).
        """
        out = np.array(raw, dtype=np.float64)
        if not self.truth_table and self.monotone:
            out[..., -1] = raw[..., -2] + raw[..., -1] * (1.0 - raw[..., -2])
        low_y, high_y = self._end_ordinates(out)
        x, y = np.zeros(raw.shape[:-1]), low_y
        for i in range(self.points):
            x = x + raw[..., 2 * i] * (1.0 - x)
            out[..., 2 * i] = x
            if self.monotone:
                y = y + raw[..., 2 * i + 1] * (high_y - y)
                out[..., 2 * i + 1] = y
        return out

    def encode(self, decoded: np.ndarray) -> np.ndarray:
        """Turn coordinates into raw numbers, the inverse of `decode`; where no range remains, the raw number is 0."""
        raw = np.array(decoded, dtype=np.float64)
        low_y, high_y = self._end_ordinates(decoded)
        if not self.truth_table and self.monotone:
            raw[..., -1] = _share(decoded[..., -1] - low_y, 1.0 - low_y)
        x, y = np.zeros(raw.shape[:-1]), low_y
        for i in range(self.points):
            raw[..., 2 * i] = _share(decoded[..., 2 * i] - x, 1.0 - x)
            x = decoded[..., 2 * i]
            if self.monotone:
                raw[..., 2 * i + 1] = _share(decoded[..., 2 * i + 1] - y, high_y - y)
                y = decoded[..., 2 * i + 1]
        return np.clip(raw, 0.0, 1.0)

    def _end_ordinates(self, decoded: np.ndarray) -> tuple[Any, Any]:
        """Return the ordinates at x = 0 and x = 1; each (…) or one number."""
        return (0.0, 1.0) if self.truth_table else (decoded[..., -2], decoded[..., -1])

    def coefficients(self, decoded: np.ndarray, max_slope: float = float("inf")) -> Tensor:
        """Turn coordinates (dim,) into the argument of `curves.evaluate`, (K, 6) float64.

        `max_slope` as in `curves.prepare`.
        """
        y0, y1 = self._end_ordinates(decoded)
        inner = decoded[: 2 * self.points].reshape(-1, 2)
        knots = torch.from_numpy(np.vstack([[0.0, y0], inner, [1.0, y1]]))
        return curves.prepare(knots if self.family == "bezier" else curves.linear_knots(knots), max_slope)

    def check(self, decoded: np.ndarray, curve: str) -> None:
        """Raise `InputError` unless (dim,) are coordinates this curve may have."""
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
class Scalar(CheckedArguments):
    """A number beside the curves: an option of a hand-made loss, or a weight of a sum."""

    name: str  # its name in the space's loss
    low: float = 0.0  # value of raw 0
    high: float = 1.0  # value of raw 1; linear in between
    start: float | None = None  # value at which a search starts, with the identity curves; None for the middle

    def __post_init__(self) -> None:
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise InputError(f"scalar {self.name}", "low below high, both finite", f"{self.low} and {self.high}")
        if self.start is not None and not self.low <= self.start <= self.high:
            raise InputError(f"scalar {self.name}", f"a start in [{self.low}, {self.high}]", self.start)

    @property
    def identity(self) -> float:
        """The raw number of the start."""
        return 0.5 if self.start is None else (self.start - self.low) / (self.high - self.low)
