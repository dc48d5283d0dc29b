"""The interface of every controller: it proposes raw θ in [0, 1]^d, learns from rewards, and can save and load its
state.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from autoseg.errors import InputError, unknown_name

FloatArray = npt.NDArray[np.float64]
Round = tuple[FloatArray, FloatArray]  # candidates (n, d) and their rewards (n,), NaN for failed

# Another processor or version of a library rounds otherwise, so that it proposes nearly the same candidates: up to so
# far in each coordinate they are one.
NEAR = 1e-3


@dataclass(frozen=True)
class Settings:
    """Settings that all controllers have.

    Args:
        dim: d, the number of coordinates of θ.
        mean: where the search starts, d numbers in [0, 1]; None: the middle, 0.5 everywhere.
        std: how far around it the first candidates of "ppo" and "cmaes" lie, > 0; the others do not use it.
        seed: seeds every random generator of the controller, 0 to 2³² - 1.

    Raises:
        InputError: a value is outside its range.
    """

    dim: int
    mean: tuple[float, ...] | None = None
    std: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        check_integer("controller dim", self.dim, least=1)
        check_integer("controller seed", self.seed, least=0, most=2**32 - 1)  # what every library takes
        check_number("controller std", self.std)
        for name, kind in (("dim", int), ("seed", int), ("std", float)):  # numpy's numbers are no JSON
            object.__setattr__(self, name, kind(getattr(self, name)))
        if self.mean is not None:
            mean = check_thetas("controller mean", [self.mean], self.dim)[0]
            object.__setattr__(self, "mean", tuple(mean.tolist()))  # lists and arrays become plain data

    @property
    def start(self) -> FloatArray:
        """The mean, (d,), or the middle of the cube if none was given."""
        return np.full(self.dim, 0.5) if self.mean is None else np.array(self.mean)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """Build settings from names and values.

        Raises:
            InputError: a name is not a setting of this controller, or a value is wrong.
        """
        for name in values:
            if name not in cls.__dataclass_fields__:
                raise unknown_name("controller option", name, cls.__dataclass_fields__)
        if "dim" not in values:
            raise InputError("controller dim", "the number of dimensions of the search space", "nothing")
        return cls(**values)


class Controller(ABC):
    """Proposes candidates and learns from their rewards, which it maximises.

    Loading a state replaces everything, the settings included: the controller goes on as the saved one would.
    """

    name: ClassVar[str]
    least: ClassVar[int] = 1  # candidates in a round, fewer of which teach it nothing
    settings_type: ClassVar[type[Settings]] = Settings

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self.round = 0  # number of `tell` calls so far

    @property
    def jumps(self) -> bool:
        """Whether rounding, or another version of a library, may move the next candidates farther than `NEAR`.

        Only where they follow from the rounds so far alone: a candidate elsewhere is then no sign of another search.
        """
        return False

    def ask(self, n: int) -> FloatArray:
        """Return (n, d) float64 raw θ in [0, 1].

        Raises:
            InputError: n is not a positive integer.
        """
        check_integer("candidates asked for", n, least=1)
        return self._propose(int(n))

    def tell(self, thetas: npt.ArrayLike, rewards: npt.ArrayLike) -> None:
        """Learn from one round.

        Args:
            thetas: (n, d) in [0, 1], in the order in which they were asked for; up to `NEAR` from the proposed ones,
                where these were made on another processor.
            rewards: (n,), higher is better; NaN: this candidate failed.

        Raises:
            InputError: a shape is wrong, a θ is outside [0, 1] or a reward infinite.
        """
        told = check_thetas("thetas", thetas, self.settings.dim)
        self._learn(told, check_rewards(rewards, len(told)))
        self.round += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data (JSON keeps every bit), with the state of every random generator in it."""
        return {**self.brief_state(), **self._record()}

    def brief_state(self) -> dict[str, Any]:
        """Return the part of `state_dict()` that a record of the rounds does not have.

        Its size does not grow with the rounds.
        """
        settings = asdict(self.settings)
        settings["mean"] = None if settings["mean"] is None else list(settings["mean"])
        return {"controller": self.name, "settings": settings, "round": self.round, **self._state()}

    def load_brief_state(self, state: Mapping[str, Any], rounds: Sequence[Round]) -> None:
        """Resume from `brief_state()`.

        Args:
            state: the saved state.
            rounds: every round so far; each was asked for and told as a whole.

        Raises:
            InputError: as in `load_state_dict`.
        """
        self.load_state_dict({**state, **self._record_of(rounds)})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from `state_dict()`.

        Raises:
            InputError: the state belongs to another controller or dimension, or is damaged.
        """
        try:
            for key, expected, got in (
                ("controller", self.name, state["controller"]),
                ("dim", self.settings.dim, state["settings"]["dim"]),
            ):
                if got != expected:
                    raise InputError(f"controller state, {key}", repr(expected), repr(got))
            saved = type(self)(self.settings_type.read(state["settings"]))
            saved._restore(state)
            saved.round = int(state["round"])
        except InputError:
            raise
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            hint = "The file is damaged or from another version."
            raise InputError("controller state", "what state_dict() returned", repr(error), hint) from error
        vars(self).update(vars(saved))  # all or nothing

    def _record(self) -> dict[str, Any]:
        """Return the part of the state that grows with the rounds, if there is one."""
        return {}

    def _record_of(self, rounds: Sequence[Round]) -> dict[str, Any]:
        """Return the value that `_record` has after these rounds."""
        return {}

    @abstractmethod
    def _propose(self, n: int) -> FloatArray: ...

    @abstractmethod
    def _learn(self, thetas: FloatArray, rewards: FloatArray) -> None: ...

    def _state(self) -> dict[str, Any]:
        """Return the rest of the state."""
        return {}

    @abstractmethod
    def _restore(self, state: Mapping[str, Any]) -> None: ...


def distance(theta: Sequence[float], other: Sequence[float]) -> float:
    """Return the largest difference of two θ in a coordinate."""
    return max(abs(a - b) for a, b in zip(theta, other, strict=True))


def check_integer(field: str, value: object, least: int, most: float = math.inf) -> None:
    """Raise InputError unless `value` is an integer from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
        limit = f" and at most {most:.0f}" if most < math.inf else ""
        raise InputError(field, f"a whole number of at least {least}{limit}", repr(value))


def check_number(field: str, value: object, above: float = 0.0) -> None:
    """Raise InputError unless `value` is a finite number greater than `above`."""
    if isinstance(value, bool) or not isinstance(value, Real) or not above < float(value) < math.inf:
        raise InputError(field, f"a finite number above {above:g}", repr(value))


def check_choice(field: str, value: str, known: Sequence[str]) -> None:
    """Raise InputError, naming the nearest known ones, unless `value` is one of `known`."""
    if value not in known:
        raise unknown_name(field, str(value), known)


def check_thetas(field: str, thetas: npt.ArrayLike, dim: int) -> FloatArray:
    """Return (n, d) float64, n >= 1, every entry in [0, 1]; raise InputError otherwise."""
    try:
        array = np.array(thetas, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(field, f"numbers, {dim} per candidate", str(error)) from error
    if array.ndim != 2 or array.shape[1] != dim or len(array) == 0:
        raise InputError(field, f"the shape (n, {dim}), n at least 1", f"the shape {array.shape}")
    outside = array[~((array >= 0.0) & (array <= 1.0))]
    if outside.size:
        raise InputError(field, "raw θ, every entry in [0, 1]", f"{outside[0]!s}")
    return array


def check_rewards(rewards: npt.ArrayLike, count: int) -> FloatArray:
    """Return (n,) float64, finite or NaN; raise InputError otherwise."""
    try:
        array = np.array(rewards, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("rewards", f"{count} numbers, one per candidate", str(error)) from error
    if array.shape != (count,):
        raise InputError("rewards", f"the shape ({count},), one per candidate", f"the shape {array.shape}")
    if np.isinf(array).any():
        raise InputError("rewards", "finite numbers, or NaN for a failed candidate", "an infinite reward")
    return array
