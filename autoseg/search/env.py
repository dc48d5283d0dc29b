"""The search as a gymnasium environment: one step is one training, for people who bring their own RL code.

Plain stable-baselines3 learns on it: `PPO("MlpPolicy", make_env(cfg), n_steps=8, batch_size=8).learn(64)`. There
are no workers and no ledger here, every training runs in this process: for a real search use `autoseg search`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import gymnasium
import numpy as np
import numpy.typing as npt
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from autoseg import limits
from autoseg.config import SearchConfig
from autoseg.controllers.base import FloatArray, check_integer, check_thetas
from autoseg.errors import Diverged, InputError, unknown_name
from autoseg.files import shipped_folder
from autoseg.imports import import_modules

Float32 = npt.NDArray[np.float32]
Score = Callable[[FloatArray], float | Mapping[str, float]]

PRESETS = {"model": ("tiny", "config"), "data": ("builtin", "kind")}  # default preset, key of a user's own
FLOOR = 0.0  # no built-in metric scores below it; a user's own may


class SearchEnv(gymnasium.Env[Float32, Float32]):
    """One-step episodes: the action is a raw θ, the reward is the score of the loss with this θ.

    There is nothing to observe: the observation is constant, zeros (1,) float32. Every episode terminates with
    its first step. `info` holds "state" ("complete", "diverged" or "failed"), "scores" (of every metric, empty
    unless complete) and "error" (what went wrong, else empty). The reward of a candidate without a score is `floor`.

    SB3's checker recommends actions in [-1, 1]; θ lies in [0, 1], and an action here is a θ.

    Args:
        score: function from θ (d,) float64 in [0, 1] to a score, or to scores by name; higher is better. May raise
            `Diverged`, or anything else for a candidate that failed; `InputError` is passed on.
        dim: d.
        metric: name of the score that is the reward.
        floor: the reward of a candidate that failed; at most the score of the worst complete one.

    Raises:
        InputError: `dim` is not positive or `floor` not finite.
    """

    def __init__(self, score: Score, dim: int, metric: str, floor: float = FLOOR) -> None:
        check_integer("environment dim", dim, least=1)
        if not math.isfinite(floor):
            raise InputError("environment floor", "a finite number", floor)
        self.score, self.metric, self.floor = score, metric, float(floor)
        self.metadata = {"render_modes": []}
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Box(0.0, 1.0, (dim,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float32, dict[str, Any]]:
        """Start an episode; `seed` and `options` change nothing, since the proxy's seed is fixed."""
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: npt.ArrayLike) -> tuple[Float32, float, bool, bool, dict[str, Any]]:
        """Train with the loss of θ = `action`, (d,) in [0, 1].

        Raises:
            InputError: the action is no θ of this space, or the score of `metric` is missing.
        """
        theta = check_thetas("action", [np.asarray(action)], self.action_space.shape[0])[0]  # type: ignore[index]
        state, scores, error = self._try(theta)
        reward = scores[self.metric] if state == "complete" else self.floor
        info = {"state": state, "scores": scores, "error": error}
        return np.zeros(1, np.float32), reward, True, False, info

    def _try(self, theta: FloatArray) -> tuple[str, dict[str, float], str]:
        """Return state, scores and error of one candidate."""
        try:
            result = self.score(theta)
            scores = dict(result) if isinstance(result, Mapping) else {self.metric: result}
            scores = {name: float(value) for name, value in scores.items()}
        except InputError:
            raise
        except Diverged as error:
            return "diverged", {}, str(error) or "the loss is not finite"
        except Exception as error:  # whatever a training may raise: the candidate failed, the episode goes on
            return "failed", {}, f"{type(error).__name__}: {error}"
        if self.metric not in scores:
            raise unknown_name("environment metric", self.metric, scores)
        if not math.isfinite(scores[self.metric]):
            return "failed", {}, f"{self.metric} is {scores[self.metric]}"
        return "complete", scores, ""


def make_env(cfg: SearchConfig | Mapping[str, Any]) -> SearchEnv:
    """Build the environment of a search: real space, real proxy, reward = `metric` on the held-out part of train.

    Args:
        cfg: a configuration, or the keys that differ from the default, e.g. `{"metric": "biou", "proxy": {"iters":
            50}}`. `{"model": {"name": "segformer_b0"}}` loads the preset of `model=segformer_b0`, unless it has a
            `config` of its own, and `{"data": {"name": "camvid", "root": DIR}}` that of `data=camvid`, unless it has a
            `kind`.

    Raises:
        InputError: an unknown key, a wrong value, missing data, a module of `imports` that cannot be imported.
    """
    from autoseg.data import open_data
    from autoseg.execution import local_devices
    from autoseg.losses import searched_loss
    from autoseg.metrics import names
    from autoseg.proxy.task import ProxyTask
    from autoseg.search.target import space_of

    config = cfg if isinstance(cfg, SearchConfig) else _read(cfg)
    limits.check(config)
    import_modules(config.imports)
    if (floor := config.search.floor) is not None:
        raise InputError("search.floor", "null for an environment", floor, "Use autoseg search.")
    device = local_devices(1, config.device)[0]
    space = space_of(config.space.name, config.metric)
    data = open_data(config.data, config.proxy.size)
    task = ProxyTask.of(config, [*names(), config.metric], data.fingerprint)

    def score(theta: FloatArray) -> dict[str, float]:
        loss = searched_loss(space, theta, data.num_classes, data.ignore_index, **config.boundary_options)
        return task(loss, config.seed, device)

    return SearchEnv(score, space.dim, config.metric)


def _read(changes: Mapping[str, Any]) -> SearchConfig:
    """Return the default configuration with some keys changed."""
    try:
        presets = {group: _preset(group, changes.get(group, {})) for group in PRESETS}
        usual = OmegaConf.merge(OmegaConf.structured(SearchConfig), presets)
        return cast(SearchConfig, OmegaConf.to_object(OmegaConf.merge(usual, dict(changes))))
    except OmegaConfBaseException as error:
        problem = str(error).splitlines()[0]
        raise InputError("configuration", "keys and types of SearchConfig", problem) from error


def _preset(group: str, section: Any) -> Any:
    """Return the preset that a section names, a file of `configs/<group>`; by default the command line's default.

    The schema's own defaults are not used here, since they would be merged into every preset.
    """
    usual, of_its_own = PRESETS[group]
    if not isinstance(section, Mapping) or of_its_own in section:
        return {}
    folder, name = shipped_folder("configs") / group, str(section.get("name", usual))
    known = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    if name not in known:
        raise unknown_name(f"{group}.name", name, known)
    return OmegaConf.create((folder / f"{name}.yaml").read_text(encoding="utf-8"))
