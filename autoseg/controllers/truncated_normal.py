"""A policy on [0, 1]^d for stable-baselines3: independent truncated normals with a learnt mean.

SB3's own Gaussian is unbounded and its actions are clipped on the way out: with its defaults 29% of all
proposed values land on a bound, while the buffer keeps the unclipped ones. Here the density itself ends at 0
and 1, as in the release of Auto Seg-Loss (ASL_search/truncated_normal.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import get_action_dim
from torch import Tensor, nn

_SQRT2 = math.sqrt(2.0)
_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
_EDGE = 2.0**-53  # 1 - _EDGE is the largest float64 below 1


class TruncatedNormal(torch.distributions.Distribution):
    """Normal(loc, scale²) restricted to [0, 1], elementwise.

    Args:
        loc: (...,) float64 in [0, 1], the mode; gradient flows through it, also through the normaliser.
        scale: standard deviation of the normal before truncation, > 0.
    """

    def __init__(self, loc: Tensor, scale: float) -> None:
        self.loc, self.scale = loc, scale
        self._alpha, self._beta = -loc / scale, (1.0 - loc) / scale  # standardised bounds, alpha <= 0 <= beta
        super().__init__(loc.shape, validate_args=False)

    @property
    def mass(self) -> Tensor:
        """The probability that the untruncated normal has on [0, 1], (...,).

        A difference of two cumulative probabilities cancels in the tails; with `loc` inside the interval it
        is the sum of the masses on either side of `loc`, of one sign and exact to rounding for every scale.
        """
        return 0.5 * (torch.erf(self._beta / _SQRT2) + torch.erf(-self._alpha / _SQRT2))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density of each coordinate, (...,); `value` in [0, 1]."""
        z = (value - self.loc) / self.scale
        return -0.5 * z.square() - _LOG_SQRT_2PI - math.log(self.scale) - self.mass.log()

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantile of each probability in [0, 1]; the result lies strictly inside (0, 1).

        Each half is inverted from its own tail, where probabilities are small and therefore exact.
        """
        below = torch.special.ndtr(self._alpha) + value * self.mass
        above = torch.special.ndtr(-self._beta) + (1.0 - value) * self.mass
        z = torch.where(below < above, torch.special.ndtri(below), -torch.special.ndtri(above))
        # Rounding may push the outermost quantiles onto a bound or past it.
        return (self.loc + self.scale * z).clamp(_EDGE, 1.0 - _EDGE)


class TruncatedNormalPolicy(ActorCriticPolicy):
    """A policy that learns only its mean: observations are ignored, the value of every state is 0.

    It has the methods that SB3's update needs; candidates are drawn by the controller, not by SB3's `collect_rollouts`.

    Args:
        observation_space: any; a search has no state to observe.
        action_space: Box(0, 1, (d,)).
        lr_schedule: SB3's schedule, called with the remaining progress.
        mean: (d,) initial mean, strictly inside (0, 1).
        std: std of every coordinate; not learnt, the controller may change it between rounds.
        per_dimension: `evaluate_actions` returns the n·d log densities of single coordinates instead of the n
            of whole candidates, so that SB3's loss forms and clips one ratio per coordinate.
        **kwargs: arguments of `ActorCriticPolicy`; its Adam is built with eps 1e-8, torch's default and the release's.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Box,
        lr_schedule: Callable[[float], float],
        mean: npt.ArrayLike,
        std: float,
        per_dimension: bool,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("optimizer_kwargs", {"eps": 1e-8})  # SB3's own default is 1e-5
        super().__init__(observation_space, action_space, lr_schedule, **kwargs)
        self.std, self.per_dimension = std, per_dimension
        with torch.no_grad():
            self.mean_logits.copy_(torch.logit(torch.as_tensor(mean, dtype=torch.float64)))

    def _build(self, lr_schedule: Callable[[float], float]) -> None:
        """Create the mean and its optimiser; SB3's constructor calls this to build its networks."""
        # mean = sigmoid(logits)
        self.mean_logits = nn.Parameter(torch.zeros(get_action_dim(self.action_space), dtype=torch.float64))
        options = {"lr": lr_schedule(1.0), **self.optimizer_kwargs}
        self.optimizer = self.optimizer_class([self.mean_logits], **options)

    def candidates(self, n: int) -> TruncatedNormal:
        """Return the distribution of n candidates, (n, d)."""
        return TruncatedNormal(torch.sigmoid(self.mean_logits.expand(n, -1)), self.std)

    def evaluate_actions(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return values (n, 1), log densities (n,) or (n·d,), row by row, and no entropy: it has no term in the
        loss.
        """
        log_prob = self.candidates(len(actions)).log_prob(actions)
        return self.predict_values(obs), log_prob.flatten() if self.per_dimension else log_prob.sum(dim=1), None

    def predict_values(self, obs: Any) -> Tensor:
        """Return (n, 1) zeros: there is no critic, the baseline takes its place."""
        return torch.zeros(len(obs), 1, dtype=torch.float64)
