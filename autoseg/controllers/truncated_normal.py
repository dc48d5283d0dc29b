"""A policy on [0, 1]^d for stable-baselines3: independent truncated normals with a learnt mean.

SB3's own Gaussian is unbounded and its actions are clipped on the way out: with its defaults 29% of all
proposed values land on a bound, while the buffer keeps the unclipped ones. Here the density itself ends at 0
and 1, as in the release of Auto Seg-Loss (ASL_search/truncated_normal.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution, sum_independent_dims
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import get_action_dim
from torch import Tensor, nn

_SQRT2 = math.sqrt(2.0)
_LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)
_EDGE = 2.0**-53  # 1 - _EDGE is the largest float64 below 1


class TruncatedNormal(torch.distributions.Distribution):
    """Normal(loc, scale²) restricted to [0, 1], elementwise.

    Args:
        loc: (...,) float64 in [0, 1], the mode; gradient flows through it, through the normaliser as well.
        scale: standard deviation of the normal before it is cut, > 0.
    """

    def __init__(self, loc: Tensor, scale: float) -> None:
        self.loc, self.scale = loc, scale
        self._alpha, self._beta = -loc / scale, (1.0 - loc) / scale  # standardised bounds, alpha <= 0 <= beta
        super().__init__(loc.shape, validate_args=False)

    @property
    def mode(self) -> Tensor:
        """(...,): the most likely value, `loc`."""
        return self.loc

    @property
    def mass(self) -> Tensor:
        """(...,): what the uncut normal puts on [0, 1].

        A difference of two cumulative probabilities cancels in the tails; with `loc` inside the interval it
        is the sum of the masses on either side of `loc`, of one sign and exact to rounding for every scale.
        """
        return 0.5 * (torch.erf(self._beta / _SQRT2) + torch.erf(-self._alpha / _SQRT2))

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of each coordinate, (...,); `value` in [0, 1]."""
        z = (value - self.loc) / self.scale
        return -0.5 * z.square() - _LOG_SQRT_2PI - math.log(self.scale) - self.mass.log()

    def icdf(self, value: Tensor) -> Tensor:
        """The quantile of each probability in [0, 1]; the result lies strictly inside (0, 1).

        Each half is inverted from its own tail, where probabilities are small and therefore exact.
        """
        below = torch.special.ndtr(self._alpha) + value * self.mass
        above = torch.special.ndtr(-self._beta) + (1.0 - value) * self.mass
        z = torch.where(below < above, torch.special.ndtri(below), -torch.special.ndtri(above))
        # Rounding may push the outermost quantiles onto a bound or past it.
        return (self.loc + self.scale * z).clamp(_EDGE, 1.0 - _EDGE)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws (*sample_shape, ...) by inverse CDF from torch's global generator; no gradient."""
        with torch.no_grad():
            return self.icdf(torch.rand(self._extended_shape(torch.Size(sample_shape)), dtype=self.loc.dtype))

    def entropy(self) -> Tensor:
        """Differential entropy of each coordinate in nats, (...,)."""
        low, high = (z * torch.exp(-0.5 * z.square() - _LOG_SQRT_2PI) for z in (self._alpha, self._beta))
        cut = (low - high) / (2.0 * self.mass)
        return _LOG_SQRT_2PI + 0.5 + math.log(self.scale) + self.mass.log() + cut


class TruncatedNormalDistribution(Distribution):
    """`TruncatedNormal` as one of SB3's action distributions; log densities are sums over the coordinates."""

    distribution: TruncatedNormal

    def __init__(self, action_dim: int) -> None:
        super().__init__()
        self.action_dim = action_dim

    def proba_distribution_net(self) -> nn.Parameter:  # type: ignore[override]  # nothing but a parameter
        """The learnt part: (d,) logits of the mean, float64, mean = sigmoid(logits), at first 0.5."""
        return nn.Parameter(torch.zeros(self.action_dim, dtype=torch.float64))

    def proba_distribution(self, mean_logits: Tensor, std: float) -> Self:
        """Sets the parameters: `mean_logits` (..., d), `std` > 0."""
        self.distribution = TruncatedNormal(torch.sigmoid(mean_logits), std)
        return self

    def log_prob(self, actions: Tensor) -> Tensor:
        """(n,) joint log density of `actions` (n, d)."""
        return sum_independent_dims(self.distribution.log_prob(actions))

    def entropy(self) -> Tensor:
        """(n,) entropy in nats."""
        return sum_independent_dims(self.distribution.entropy())

    def sample(self) -> Tensor:
        """(n, d) draws, strictly inside (0, 1)."""
        return self.distribution.sample()

    def mode(self) -> Tensor:
        """(n, d): sigmoid of the logits, where the density is highest."""
        return self.distribution.mode

    def actions_from_params(self, mean_logits: Tensor, std: float, deterministic: bool = False) -> Tensor:
        """Draws (or the mode) for these parameters."""
        return self.proba_distribution(mean_logits, std).get_actions(deterministic=deterministic)

    def log_prob_from_params(self, mean_logits: Tensor, std: float) -> tuple[Tensor, Tensor]:
        """Draws for these parameters and their joint log density."""
        actions = self.actions_from_params(mean_logits, std)
        return actions, self.log_prob(actions)


class TruncatedNormalPolicy(ActorCriticPolicy):
    """A policy that knows nothing but its mean: observations play no part, the value of every state is 0.

    Args:
        observation_space: any; a search has no state to observe.
        action_space: Box(0, 1, (d,)).
        lr_schedule: SB3's schedule, called with the remaining progress.
        mean: (d,) initial mean, strictly inside (0, 1).
        std: of every coordinate; not learnt, the owner may change it between rounds.
        per_dimension: `evaluate_actions` returns the n·d log densities of single coordinates instead of the n
            of whole candidates, so that SB3's loss forms and clips one ratio per coordinate.
        **kwargs: of `ActorCriticPolicy`; its Adam is built with eps 1e-8, torch's default and the release's.
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
        """Called by SB3's constructor in place of its networks."""
        self.truncated = TruncatedNormalDistribution(get_action_dim(self.action_space))
        self.mean_logits = self.truncated.proba_distribution_net()
        options = {"lr": lr_schedule(1.0), **self.optimizer_kwargs}
        self.optimizer = self.optimizer_class([self.mean_logits], **options)

    def get_distribution(self, obs: Any) -> TruncatedNormalDistribution:
        """The distribution of (n, d) actions for n observations."""
        return self.truncated.proba_distribution(self.mean_logits.expand(len(obs), -1), self.std)

    def forward(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Actions (n, d), values (n, 1), log densities as `evaluate_actions`."""
        actions = self.get_distribution(obs).get_actions(deterministic=deterministic)
        values, log_prob, _ = self.evaluate_actions(obs, actions)
        return actions, values, log_prob

    def evaluate_actions(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values (n, 1), log densities (n,) or (n·d,), row by row, and the entropy (n,)."""
        policy = self.get_distribution(obs)
        log_prob = policy.distribution.log_prob if self.per_dimension else policy.log_prob
        return self.predict_values(obs), log_prob(actions).flatten(), policy.entropy()

    def predict_values(self, obs: Any) -> Tensor:
        """(n, 1) zeros: there is no critic, the baseline stands in its place."""
        return torch.zeros(len(obs), 1, dtype=torch.float64)
