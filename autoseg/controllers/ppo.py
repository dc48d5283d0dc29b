"""PPO2 over raw θ as in Auto Seg-Loss, on stable-baselines3's PPO, rollout buffer and policy.

A round is a batch of one-step episodes: the policy proposes (`ask`), then policy → `rollout_buffer.add` →
`compute_returns_and_advantage` → `PPO.train` (`tell`). The baseline takes the critic's place as the value of
every episode. SB3's defaults that would change the paper's update are switched off: minibatches and their
shuffling, gradient clipping, advantage normalisation, value and entropy terms, Adam's eps of 1e-5.

Source: ASL_search/autoloss_ppo_bezier.py of fundamentalvision/Auto-Seg-Loss @ e2349db.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import RolloutBufferSamples

from autoseg.controllers.base import Controller, FloatArray, Settings, check_choice, check_integer, check_number
from autoseg.controllers.truncated_normal import TruncatedNormalPolicy
from autoseg.errors import AutosegError, InputError
from autoseg.optimizers import PlainAdam

# Below it the square (for Adam) of a ratio of two densities on [0, 1], up to exp(1 / std²), leaves float64.
_LEAST_STD = 0.04
_MARGIN = 0.001


@dataclass(frozen=True)
class PPOSettings(Settings):
    """Options of "ppo"; the defaults are the release's but for `baseline`: its search configs have "mean_policy".

    The policy's mean is a sigmoid and never reaches a bound: where `mean` is nearer than 0.001 to one, as the
    identity of a space without the truth-table constraint is, the policy starts at that distance from it. (A search
    without a start of its own begins 0.02 inside.)

    Args:
        lr: Adam's learning rate on the logits of the mean; its state is kept over the rounds.
        epochs: full-batch Adam steps after each round.
        clip: ε of the clipped ratio.
        ratio: "per_dimension": one clipped ratio per coordinate, as the release,
            loss = -mean_i Σ_d min(r_id A_i, clip(r_id, 1 - ε, 1 + ε) A_i);
            "joint": one per candidate, r_i = Π_d r_id, as SB3 and PPO as published.
        baseline: "mean" of the round's rewards, or "mean_policy": candidate 0 is the mean itself and its
            reward the baseline.
        std_end: None: `std` stays (the release); a number: `std` goes there linearly over `rounds` rounds.
        rounds: the round in which `std_end` is reached; needed with it.
    """

    lr: float = 0.2
    epochs: int = 60
    clip: float = 0.2
    ratio: str = "per_dimension"
    baseline: str = "mean"
    std_end: float | None = None
    rounds: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("controller std", self.std, above=_LEAST_STD)
        check_number("controller lr", self.lr)
        check_integer("controller epochs", self.epochs, least=1)
        check_number("controller clip", self.clip)
        check_choice("controller ratio", self.ratio, ("per_dimension", "joint"))
        check_choice("controller baseline", self.baseline, ("mean", "mean_policy"))
        if self.rounds is not None:
            check_integer("controller rounds", self.rounds, least=1)
        if self.std_end is not None:
            check_number("controller std_end", self.std_end, above=_LEAST_STD)
            if self.rounds is None:
                raise InputError("controller rounds", "the number of rounds until std_end", "nothing")

    @property
    def start(self) -> FloatArray:
        """The start of the policy's mean, (d,), at least 0.001 inside the bounds."""
        return super().start.clip(_MARGIN, 1.0 - _MARGIN)

    def std_at(self, round: int) -> float:
        """Return the std of a round, counted from 0."""
        if self.std_end is None or self.rounds is None:
            return self.std
        share = min(round / max(self.rounds - 1, 1), 1.0)
        return self.std + share * (self.std_end - self.std)


class RoundBuffer(RolloutBuffer):
    """One round as SB3's rollout buffer: float64, one batch, in order.

    SB3's own shuffles with numpy's global generator; a sum in another order has other last bits, and a
    resumed search would drift away from one never stopped.

    With `per_dimension` SB3's loss sees n·d entries, coordinate by coordinate. It averages over them, the
    release sums over d and averages over n: the advantages are multiplied by d to make up for it.
    """

    def __init__(self, *args: Any, per_dimension: bool, **kwargs: Any) -> None:
        self.per_dimension = per_dimension
        super().__init__(*args, **kwargs)

    def resize(self, count: int) -> None:
        """Empty the buffer and make room for `count` candidates."""
        self.buffer_size = count
        self.reset()

    def reset(self) -> None:
        """Empty the buffer."""
        super().reset()
        shape = (self.buffer_size, self.n_envs)
        self.rewards, self.values, self.advantages, self.returns = np.zeros((4, *shape))
        self.log_probs = np.zeros((self.buffer_size, self.action_dim if self.per_dimension else 1))

    def get(self, batch_size: int | None = None) -> Generator[RolloutBufferSamples, None, None]:
        """Yield the whole round as one batch; `batch_size` is ignored."""
        advantages = self.advantages[:, 0]
        if self.per_dimension:
            advantages = np.repeat(advantages * self.action_dim, self.action_dim)
        columns = (
            self.observations[:, 0],
            self.actions[:, 0],
            self.values[:, 0],
            self.log_probs.flatten(),
            advantages,
            self.returns[:, 0],
        )
        yield RolloutBufferSamples(*(self.to_torch(column) for column in columns))


def _build_ppo(settings: PPOSettings) -> PPO:
    """Build SB3's PPO without an environment, as `PPO.load` does; this draws from no random generator."""
    per_dimension = settings.ratio == "per_dimension"
    ppo = PPO(
        TruncatedNormalPolicy,
        env=None,  # type: ignore[arg-type]  # allowed with _init_setup_model=False
        learning_rate=settings.lr,
        n_steps=1,  # the buffer is resized to each round
        n_epochs=settings.epochs,
        gamma=1.0,
        gae_lambda=1.0,
        clip_range=settings.clip,
        normalize_advantage=False,
        ent_coef=0.0,
        vf_coef=0.0,
        max_grad_norm=float("inf"),
        rollout_buffer_class=RoundBuffer,
        rollout_buffer_kwargs={"per_dimension": per_dimension},
        policy_kwargs={
            "mean": settings.start,
            "std": settings.std,
            "per_dimension": per_dimension,
            "optimizer_class": PlainAdam,
        },
        device="cpu",
        _init_setup_model=False,
    )
    ppo.observation_space = spaces.Box(0.0, 1.0, (1,), np.float64)
    ppo.action_space = spaces.Box(0.0, 1.0, (settings.dim,), np.float64)
    ppo.n_envs = 1
    ppo._setup_model()
    ppo.set_logger(Logger(folder=None, output_formats=[]))
    return ppo


class PPOController(Controller):
    """Proximal policy optimisation of the mean of a truncated normal on [0, 1]^d."""

    name: ClassVar[str] = "ppo"
    least: ClassVar[int] = 2  # a single one's reward is the baseline, so that it is neither better nor worse
    settings_type: ClassVar[type[Settings]] = PPOSettings
    settings: PPOSettings

    def __init__(self, settings: PPOSettings) -> None:
        super().__init__(settings)
        self._rng = np.random.default_rng(settings.seed)
        self._ppo = _build_ppo(settings)

    @property
    def _policy(self) -> TruncatedNormalPolicy:
        return cast(TruncatedNormalPolicy, self._ppo.policy)

    @property
    def mean(self) -> FloatArray:
        """The policy's mean, (d,), where its density is highest."""
        return torch.sigmoid(self._policy.mean_logits.detach()).numpy()

    @property
    def std(self) -> float:
        """The std of every coordinate in this round."""
        return self.settings.std_at(self.round)

    def _propose(self, n: int) -> FloatArray:
        self._policy.std = self.std
        uniform = torch.from_numpy(self._rng.random((n, self.settings.dim)))
        with torch.no_grad():
            thetas = self._policy.candidates(n).icdf(uniform).numpy()
        if self.settings.baseline == "mean_policy":
            thetas[0] = self.mean
        return thetas

    def _learn(self, thetas: FloatArray, rewards: FloatArray) -> None:
        """Do one PPO update on the candidates that have a reward; if none has, do nothing."""
        valid = np.isfinite(rewards)
        if not valid.any():
            return
        own = self.settings.baseline == "mean_policy" and bool(valid[0])
        baseline = rewards[0] if own else rewards[valid].mean()
        self._policy.std = self.std
        self._fill(thetas[valid], rewards[valid], float(baseline))
        self._ppo.train()
        adam = self._policy.optimizer.state[self._policy.mean_logits]
        if not all(bool(values.isfinite().all()) for values in (self._policy.mean_logits, *adam.values())):
            raise AutosegError("The PPO update overflowed; a larger std or ratio=per_dimension avoids it.")

    def _fill(self, thetas: FloatArray, rewards: FloatArray, baseline: float) -> None:
        """Put the round into the rollout buffer, every candidate as an episode of one step."""
        buffer = cast(RoundBuffer, self._ppo.rollout_buffer)
        buffer.resize(len(thetas))
        obs, start, value = np.zeros(1), np.ones(1), torch.tensor([baseline], dtype=torch.float64)
        with torch.no_grad():
            _, log_probs, _ = self._policy.evaluate_actions(np.zeros(len(thetas)), torch.from_numpy(thetas))
        for theta, reward, log_prob in zip(thetas, rewards, log_probs.view(len(thetas), -1), strict=True):
            buffer.add(obs, theta, reward, start, value, log_prob)
        buffer.compute_returns_and_advantage(last_values=torch.zeros(1), dones=np.ones(1))

    def _state(self) -> dict[str, Any]:
        policy = self._policy
        adam = policy.optimizer.state.get(policy.mean_logits, {})
        return {
            "mean_logits": policy.mean_logits.tolist(),
            "adam": {name: value.tolist() for name, value in adam.items()},  # empty before the first update
            "rng": self._rng.bit_generator.state,
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        self._rng.bit_generator.state = state["rng"]
        policy, shape = self._policy, (self.settings.dim,)
        policy.mean_logits.data = _vector(state["mean_logits"], shape)
        if adam := state["adam"]:
            policy.optimizer.state[policy.mean_logits] = {
                "step": torch.tensor(float(adam["step"])),
                "exp_avg": _vector(adam["exp_avg"], shape),
                "exp_avg_sq": _vector(adam["exp_avg_sq"], shape),
            }


def _vector(values: object, shape: tuple[int, ...]) -> torch.Tensor:
    """Return values of a state as a float64 tensor of exactly this shape."""
    tensor = torch.tensor(values, dtype=torch.float64)
    if tensor.shape != shape or not bool(tensor.isfinite().all()):
        raise ValueError(f"{shape} finite numbers expected, shape {tuple(tensor.shape)} found")
    return tensor
