from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium.utils.env_checker
import numpy as np
import pytest
import stable_baselines3.common.env_checker
from stable_baselines3 import PPO

from autoseg.cli.configuration.compose import compose
from autoseg.config import DataConfig, ModelConfig, SearchConfig
from autoseg.controllers.base import FloatArray
from autoseg.errors import Diverged, InputError
from autoseg.search.env import Score, SearchEnv, make_env

TOP = np.array([0.2, 0.9])


def hill(theta: FloatArray) -> float:
    return 1.0 - float(((theta - TOP) ** 2).sum())


def toy(score: Score = hill, **options: Any) -> SearchEnv:
    return SearchEnv(score, dim=2, metric="miou", **options)


def test_passes_the_checker_of_gymnasium() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gymnasium.utils.env_checker.check_env(toy(), skip_render_check=True)


def test_passes_the_checker_of_stable_baselines() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Its one advice we cannot follow: an action is a θ, and θ lives in [0, 1].
        warnings.filterwarnings("ignore", "We recommend you to use a symmetric and normalized Box action")
        stable_baselines3.common.env_checker.check_env(toy())


@pytest.mark.slow
def test_plain_ppo_learns_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SB3_LOGDIR", str(tmp_path))  # its logger makes a folder in any case
    env = toy()
    ppo = PPO("MlpPolicy", env, n_steps=32, batch_size=32, learning_rate=0.01, seed=0, device="cpu")

    def reward() -> float:
        action, _ = ppo.predict(env.reset()[0], deterministic=True)
        return env.step(action)[1]

    before = reward()
    ppo.learn(640)
    assert reward() > before + 0.2


def test_step_is_one_episode_with_the_score_as_reward() -> None:
    seen = []

    def score(theta: FloatArray) -> dict[str, float]:
        seen.append(theta)
        return {"miou": 0.25, "biou": 0.5}

    env = toy(score)
    first, info = env.reset(seed=3)
    obs, reward, terminated, truncated, info = env.step(np.array([0.5, 0.25], np.float32))
    np.testing.assert_array_equal(first, obs)
    assert (reward, terminated, truncated) == (0.25, True, False)
    assert info == {"state": "complete", "scores": {"miou": 0.25, "biou": 0.5}, "error": ""}
    assert seen[0].dtype == np.float64 and seen[0].tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    ("failure", "state", "message"),
    [
        (Diverged("the loss is NaN"), "diverged", "the loss is NaN"),
        (RuntimeError("out of memory"), "failed", "RuntimeError: out of memory"),
        (float("nan"), "failed", "miou is nan"),
        ({"miou": float("inf")}, "failed", "miou is inf"),
    ],
)
def test_candidate_without_a_score_gets_the_floor(failure: Any, state: str, message: str) -> None:
    def score(theta: FloatArray) -> float | Mapping[str, float]:
        if isinstance(failure, Exception):
            raise failure
        return failure  # type: ignore[no-any-return]

    _, reward, terminated, _, info = toy(score).step(TOP)
    assert (reward, terminated) == (0.0, True)
    assert info == {"state": state, "scores": {}, "error": message}
    assert toy(score, floor=-1.0).step(TOP)[1] == -1.0


def test_wrong_input_of_the_user_is_passed_on() -> None:
    def score(theta: FloatArray) -> float:
        raise InputError("data.root", "a folder", "nothing")

    with pytest.raises(InputError, match=r"data\.root"):
        toy(score).step(TOP)
    with pytest.raises(InputError, match="environment metric"):
        toy(lambda theta: {"biou": 1.0}).step(TOP)
    with pytest.raises(InputError, match="action"):
        toy().step(np.array([0.5, 1.5]))
    with pytest.raises(InputError, match="action"):
        toy().step(np.array([0.5]))
    with pytest.raises(InputError, match="environment dim"):
        SearchEnv(hill, dim=0, metric="miou")
    with pytest.raises(InputError, match="environment floor"):
        toy(floor=float("nan"))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"metricc": "miou"}, "metricc"),
        ({"proxy": {"iters": "many"}}, "many"),
        ({"metric": "moiu"}, "miou"),
        ({"search": {"floor": "miou>=0.9*ce"}}, r"search\.floor"),
        ({"device": "cuda:77"}, "device"),
        ({"proxy": {"iters": 0}}, r"proxy\.iters"),
        ({"proxy": {"batch_size": 1}}, r"proxy\.batch_size: expected at least 2, got 1\. Batch norm needs"),
        ({"proxy": {"optimizer": "sgd", "momentum": -1}}, r"proxy\.momentum"),
        ({"proxy": {"iters": 3, "warmup": 3}}, r"proxy\.warmup"),
        ({"model": {"name": "tinny"}}, r"model\.name.*tiny"),
        ({"data": {"name": "camvd"}}, r"data\.name.*camvid"),
        ({"data": {"name": "camvid", "root": "no/such"}}, r"data\.root.*no/such"),
        ({"imports": ["none.py"]}, "imports"),
    ],
)
def test_wrong_configuration_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        make_env(changes)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({}, []),
        ({"name": "segformer_b0"}, ["model=segformer_b0"]),
        ({"overrides": {"decode_head": {"channels": 8}}}, ["model.overrides.decode_head.channels=8"]),
    ],
)
def test_the_network_is_that_of_the_command_line(
    section: dict[str, Any], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[SearchConfig] = []
    monkeypatch.setattr("autoseg.proxy.task.ProxyTask.of", lambda config, *_: made.append(config))
    data = {"count": [4, 2, 2], "cache_dir": str(tmp_path)}
    make_env({"device": "cpu", "data": data, "proxy": {"size": [48, 64]}, "model": section})
    assert made[0].model == compose("search", SearchConfig, words).model


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"name": "camvid", "root": "x"}, ["data=camvid", "data.root=x"]),
        ({"count": [4, 2, 2]}, ["data.count=[4,2,2]"]),
        ({"name": "mine", "kind": "folder", "root": "x"}, ["data=folder", "data.name=mine", "data.root=x"]),
    ],
)
def test_the_data_are_those_of_the_command_line(
    section: dict[str, Any], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[DataConfig] = []
    known = SimpleNamespace(fingerprint="")
    monkeypatch.setattr("autoseg.data.open_data", lambda data, size: opened.append(data) or known)
    monkeypatch.setattr("autoseg.proxy.task.ProxyTask.of", lambda *_: None)
    make_env({"device": "cpu", "data": section})
    assert opened == [compose("search", SearchConfig, words).data]


def test_a_network_of_the_users_own_has_nothing_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[SearchConfig] = []
    monkeypatch.setattr("autoseg.proxy.task.ProxyTask.of", lambda config, *_: made.append(config))
    data = {"count": [4, 2, 2], "cache_dir": str(tmp_path)}
    own = {"name": "mine", "config": "mine.py", "overrides": {"decode_head": {"channels": 8}}}
    make_env({"device": "cpu", "data": data, "proxy": {"size": [48, 64]}, "model": own})
    assert made[0].model == ModelConfig(**own)


@pytest.mark.slow
def test_real_proxy_scores_a_candidate(tmp_path: Any) -> None:
    proxy = {"iters": 2, "batch_size": 2, "size": [48, 64], "crop": 32}
    data = {"count": [10, 2, 2], "cache_dir": str(tmp_path)}
    env = make_env({"metric": "miou+0.5*biou", "device": "cpu", "proxy": proxy, "data": data})
    assert env.action_space.shape is not None
    theta = np.full(env.action_space.shape, 0.5)
    _, reward, _, _, info = env.step(theta)
    assert info["state"] == "complete", info["error"]
    assert reward == info["scores"]["miou+0.5*biou"]
    assert reward == pytest.approx(info["scores"]["miou"] + 0.5 * info["scores"]["biou"])
    assert env.step(theta)[1] == reward  # same θ, same seed: the same bits
