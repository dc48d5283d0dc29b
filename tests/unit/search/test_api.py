from __future__ import annotations

import copy
import json
import math
import os
import pickle
import re
import subprocess
import sys
import threading
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from torch import nn

import autoseg
from autoseg import api
from autoseg.config import ProxyConfig
from autoseg.errors import Diverged, InputError
from autoseg.execution import Watched
from autoseg.losses import LossCard
from autoseg.metrics import MetricOptions, base
from autoseg.proxy.candidate import CandidateTask
from autoseg.proxy.predictions import KeepPredictions
from autoseg.proxy.rungs import Rungs, Watch
from autoseg.search.observer import Observer
from autoseg.store.user_code import Fresh, WithUserCode, code_of
from autoseg.surrogates import SurrogateLoss, build_space

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:test_api")  # what these small searches find is no use

SPACE = build_space("default", metric="miou")
SMALL: dict[str, Any] = {"rounds": 2, "candidates": 2, "confirm_top": 1, "confirm_seeds": 2, "controller": "random"}


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing figures takes two thirds of so small a search."""
    if "drawn" not in request.keywords:
        monkeypatch.setattr("autoseg.evidence.drawn.draw", lambda result, names: None)


def my_train(loss: nn.Module, seed: int, device: str) -> dict[str, float]:
    """A training of one step: how far the loss pulls a pixel of a rare class."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(2, 8, 8, generator=generator) * 3).long().to(device)
    logits = torch.randn(2, 3, 8, 8, generator=generator).to(device).requires_grad_()
    loss(logits, labels).backward()
    assert logits.grad is not None
    return {"miou": float(logits.grad.abs().mean()), "other": 1.0}


@pytest.mark.parametrize("train", [3, lambda loss, seed: 0.3, lambda loss, seed, device, more: 0.3])
def test_a_training_that_cannot_be_called_is_refused_at_once(quick_path: Path, train: Any) -> None:
    with pytest.raises(
        InputError, match=r"train: expected a function of \(loss, seed, device\), got (int|<lambda>\(loss)"
    ):
        autoseg.search("miou", train, run_dir=quick_path / "run", inline=True, **SMALL)
    assert not (quick_path / "run").exists()


def test_a_controller_begins_anew_whatever_it_was_told(quick_path: Path) -> None:
    """The run's record is what a resumed search goes on from: what was told before would be missing there."""
    used = autoseg.build_controller("cmaes", SPACE.dim)
    for _ in range(3):
        thetas = used.ask(4)
        used.tell(thetas, thetas.sum(1))
    kept = used.state_dict()
    found = [
        autoseg.search("miou", my_train, run_dir=quick_path / name, inline=True, **{**SMALL, "controller": controller})
        for name, controller in (("new", autoseg.build_controller("cmaes", SPACE.dim)), ("used", used))
    ]
    assert found[0].best == found[1].best and used.state_dict() == kept


@pytest.mark.parametrize(
    ("score", "words"),
    [
        ({"mIoU": 0.5}, "scores of train(): expected one called 'miou', got 'mIoU'"),
        ({"miou": 0.5, "note": "hi"}, "score 'note' of train(): expected a number, or"),
        ({"miou": None}, "score 'miou' of train(): expected a number"),
        (torch.tensor([0.1, 0.2]), "score of train(): expected a number"),
    ],
)
def test_a_score_that_is_none_is_named(quick_path: Path, score: object, words: str) -> None:
    options = {**SMALL, "num_classes": 3, "inline": True}
    with pytest.raises(InputError, match=re.escape(words)):
        autoseg.search("miou", lambda loss, seed, device: score, run_dir=quick_path / "run", **options)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    "score", [0.5, torch.tensor([0.5]), np.array([[0.5]]), {"miou": np.float32(0.5), "other": torch.tensor(0.1)}]
)
def test_a_score_is_any_number(quick_path: Path, score: Any) -> None:
    options = {**SMALL, "num_classes": 3, "inline": True}
    found = autoseg.search("miou", lambda loss, seed, device: score, run_dir=quick_path / "run", **options)
    assert found.best.reward == 0.5


def test_one_logit_for_a_foreground_is_refused(quick_path: Path) -> None:
    """A softmax over one class is always 1: every loss would be as good."""

    def train(loss: nn.Module, seed: int, device: str) -> float:
        logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
        return float(loss(logits, torch.zeros(1, 4, 4, dtype=torch.long)))

    with pytest.raises(InputError, match=r"of two classes or more, got \(1, 1, 4, 4\).*background is a class"):
        autoseg.search("miou", train, run_dir=quick_path / "run", inline=True, **SMALL)
    with pytest.warns(UserWarning, match="count the background as a class"):
        autoseg.SurrogateLoss("miou", num_classes=1)


def test_a_training_that_cannot_be_sent_to_a_worker_is_one_message(quick_path: Path) -> None:
    lock = threading.Lock()

    def train(loss: nn.Module, seed: int, device: str) -> float:
        with lock:
            return 0.5

    with pytest.raises(InputError, match=r"task: expected what can be sent to a worker, got .*lock.* Make inside it"):
        autoseg.search("miou", train, run_dir=quick_path / "run", num_classes=3, **SMALL)


def test_each_training_of_a_worker_begins_from_what_was_sent() -> None:
    """A network in one cell, its training in the next: later candidates would go on from the weights of the last."""
    network, steps = nn.Linear(1, 1), [0]

    def train(loss: nn.Module, seed: int, device: str) -> float:
        steps[0] += 1
        with torch.no_grad():
            network.weight += 1
        return float(steps[0] + network.weight)

    sent = pickle.loads(cloudpickle.dumps(WithUserCode(CandidateTask("miou", SPACE.to_dict(), 3, Fresh(train)))))
    again = pickle.loads(cloudpickle.dumps(sent))  # to a worker's own processes
    first = 2 + float(network.weight)
    for task in (sent, sent, sent, again, again):
        assert task({"loss": "ce", "seed": 0}, "cpu")["miou"] == pytest.approx(first)


def test_a_machine_with_other_versions_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its scores would be compared with those of the others."""
    sent = cloudpickle.dumps(WithUserCode(CandidateTask("miou", SPACE.to_dict(), 3, Fresh(len))))
    monkeypatch.setattr("autoseg.store.user_code.versions", lambda: {"autoseg": "0.0.9"})
    monkeypatch.delattr("autoseg.proxy.candidate.CandidateTask")  # which that version has elsewhere
    said = rf"versions: expected autoseg {re.escape(autoseg.__version__)}, torch .*, got autoseg 0\.0\.9 on .*Install"
    with pytest.raises(InputError, match=said):
        pickle.loads(sent)


@pytest.mark.parametrize("inline", [True, False])
def test_only_a_training_in_another_process_is_begun_anew(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch, inline: bool
) -> None:
    built = []

    def refuse(kind: str, task: Any, *args: Any, **options: Any) -> None:
        built.append(task.task.train)
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "build_executor", refuse)
    with pytest.raises(KeyboardInterrupt):
        autoseg.search("miou", my_train, run_dir=quick_path / "run", inline=inline, **SMALL)
    assert [isinstance(train, Fresh) for train in built] == [not inline]


def test_a_controller_of_another_space_is_refused_at_once(quick_path: Path) -> None:
    options = {**SMALL, "controller": autoseg.build_controller("random", SPACE.dim + 1)}
    with pytest.raises(InputError, match=f"controller: expected one of the space's {SPACE.dim} numbers, got one of"):
        autoseg.search("miou", my_train, run_dir=quick_path / "run", inline=True, **options)
    assert not (quick_path / "run").exists()


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("rounds", 0, "at least 1, got 0"), ("candidates", 2.5, "at least 1, got 2.5"),
        ("confirm_seeds", 1001, "at least 0 and at most 1000, got 1001"), ("tolerance", -1, "0 or more, got -1"),
        ("num_classes", "3", "a whole number, got '3'"),
        ("ignore_index", None, "a whole number, got None"), ("rivals", "ce", "a list, got 'ce'"),
        ("rivals", None, "a list, got None"), ("timeout_s", "soon", "above 0, got 'soon'"),
        ("timeout_s", 0, "above 0, got 0"), ("floor", 0.5, "str or None, got 0.5"),
        ("space", None, "str or SearchSpace, got None"), ("controller", 3, "str or Controller, got 3"),
        ("run_dir", 3, "str or Path or None, got 3"), ("observer", print, "Observer or None, got <built-in"),
        ("device", 0, "str, got 0"), ("inline", "no", "bool, got 'no'"), ("cluster", 1, "str or None, got 1"),
        ("workers", 1.5, "from 1 on, got 1.5"), ("workers", None, "from 1 on, got None"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_at_once(quick_path: Path, field: str, value: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"^{field}: expected .*{re.escape(said)}"):
        autoseg.search("miou", my_train, **{"run_dir": quick_path / "run", "inline": True, **SMALL, field: value})
    assert not (quick_path / "run").exists()


def test_a_controller_that_would_learn_nothing_is_refused_at_once(quick_path: Path) -> None:
    """PPO of one candidate a round: its reward would be its own baseline."""
    options = {**SMALL, "candidates": 1, "run_dir": quick_path / "run", "inline": True, "controller": "ppo"}
    with pytest.raises(InputError, match=r"search\.candidates: expected at least 2 with controller=ppo, got 1"):
        autoseg.search("miou", my_train, **options)
    assert not (quick_path / "run").exists()


def test_in_this_process_and_on_a_cluster_is_refused_at_once(quick_path: Path) -> None:
    with pytest.raises(InputError, match="cluster: expected none with inline=True"):
        autoseg.search("miou", my_train, run_dir=quick_path / "run", inline=True, cluster="auto", **SMALL)
    assert not (quick_path / "run").exists()


def test_the_search_around_ones_own_training(quick_path: Path) -> None:
    run = quick_path / "run"
    result = autoseg.search("miou", my_train, num_classes=3, run_dir=run, inline=True, **SMALL)
    card = LossCard.load(run / "loss.json")
    assert card.confirmed and tuple(card.theta) == result.best.theta
    assert card.scores["confirm"]["mean"] == result.best.scores and set(result.best.scores) == {"miou", "other"}
    assert card.provenance["candidate"] == result.best.name
    assert {row.name for row in result.rows} >= {"identity", "ce", "lovasz"}
    with pytest.warns(UserWarning, match="nothing was trained: .* Another train"):
        again = autoseg.search("miou", my_train, num_classes=3, run_dir=run, inline=True, **SMALL)
    assert again == result
    with pytest.raises(InputError, match="seed: expected 0, as when the run began, got 1"):
        autoseg.search("miou", my_train, num_classes=3, run_dir=run, inline=True, seed=1, **SMALL)
    more = {**SMALL, "confirm_seeds": SMALL["confirm_seeds"] + 1}  # as another default of a later version
    with pytest.warns(UserWarning, match=r"confirm_seeds was \d when the run began, and is \d"):
        autoseg.search("miou", my_train, num_classes=3, run_dir=run, inline=True, **more)


def test_a_found_loss_among_the_rivals_is_copied_into_the_run(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(loss: nn.Module, seed: int, device: str) -> dict[str, float]:
        os.chdir(run / "figures" if (run / "figures").exists() else run)
        return my_train(loss, seed, device)

    run, other = quick_path / "run", quick_path / "other.json"
    loss = SurrogateLoss.from_theta("miou", [0.3] * SPACE.dim, num_classes=3, space=SPACE)
    autoseg.save_loss(loss, other)
    options = {**SMALL, "rivals": [str(other)], "num_classes": 3, "run_dir": run, "inline": True, "progress": False}
    autoseg.search("miou", my_train, **options)
    other.unlink()
    kept = json.loads((run / "rivals.json").read_text())
    (run / "rivals.json").write_text(json.dumps({**kept, "old": [["of", "an"], "earlier form"]}))
    monkeypatch.chdir(quick_path)
    options["run_dir"] = "run"  # and every training goes elsewhere
    with pytest.warns(UserWarning, match="confirm_seeds was"):
        result = autoseg.search("miou", away, **{**options, "confirm_seeds": SMALL["confirm_seeds"] + 1})
    (rival,) = (row for row in result.rows if row.kind == "rival")
    assert rival.name == str(other) and len(rival.values) == SMALL["confirm_seeds"] + 1
    assert rival.values == tuple(my_train(loss, seed, "cpu")["miou"] for seed in result.best.seeds)


@pytest.mark.drawn
def test_it_says_how_far_it_is_and_leaves_what_a_command_does(
    quick_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {**SMALL, "num_classes": 3, "inline": True}
    result = autoseg.search("miou", my_train, run_dir=quick_path / "told", **options)
    out = capsys.readouterr().out
    assert "Searching a loss for miou: 2 rounds of 2 candidates" in out and "round 2/2   mean" in out
    assert "warning" not in out  # those are Python's
    assert (quick_path / "told" / "log.txt").read_text().count("winner") == 1
    drawn = {file.stem for file in (quick_path / "told" / "figures").iterdir()}
    assert drawn == {"reward", "curves", "surfaces", "confirmation"}
    quiet = autoseg.search("miou", my_train, run_dir=quick_path / "quiet", progress=False, **options)
    assert quiet.best == result.best and capsys.readouterr().out == ""


def test_an_observer_is_closed_also_after_an_error(quick_path: Path) -> None:
    class Closed(Observer):
        times = 0

        def close(self) -> None:
            self.times += 1

    def broken(loss: nn.Module, seed: int, device: str) -> float:
        raise KeyboardInterrupt

    observers = Closed(), Closed()
    options = {**SMALL, "inline": True, "num_classes": 3}
    autoseg.search("miou", my_train, observer=observers[0], run_dir=quick_path / "a", **options)
    with pytest.raises(KeyboardInterrupt):
        autoseg.search("miou", broken, observer=observers[1], run_dir=quick_path / "b", **options)
    assert [observer.times for observer in observers] == [1, 1]


def test_rounds_that_are_refused_change_nothing(quick_path: Path) -> None:
    run = quick_path / "run"
    kept = autoseg.search("miou", my_train, num_classes=3, run_dir=run, inline=True, **SMALL)
    before = (run / "config.yaml").read_text()
    for rounds, least in ((1, "at least 2, which were begun"), (0, "a whole number of at least 1")):
        with pytest.raises(InputError, match=rf"rounds: expected {least}, got {rounds}"):
            autoseg.search("miou", my_train, num_classes=3, run_dir=run, inline=True, **{**SMALL, "rounds": rounds})
        assert (run / "config.yaml").read_text() == before
    assert autoseg.search("miou", my_train, num_classes=3, run_dir=run, inline=True, **SMALL) == kept


@pytest.mark.parametrize(
    ("metric", "score", "said"),
    [
        ("miou", 43.0, "returned 43 for miou, which lies between 0 and 1: .* shown as 4300 %"),
        ("miou", -0.2, "returned -0.2 for miou, .* shown as -20 %"),
        ("miou+0.5*bf1", 1.6, r"between 0 and 1\.5"),
        ("miou+0.5*bf1", 1.4, None),
        ("miou", 1.0, None),
        ("psnr", 43.0, None),
    ],
)
def test_a_score_that_is_no_share_is_told_once_and_the_search_goes_on(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, score: float, said: str | None
) -> None:
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))

    @autoseg.register_metric
    class Psnr(base.registry()["gacc"]):  # a metric of the user's own may have any range
        name, summary = "psnr", "of any size"

    def train(loss: nn.Module, seed: int, device: str) -> dict[str, float]:
        return {metric: score, "seconds": 17.0}

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        result = autoseg.search(metric, train, num_classes=3, run_dir=quick_path / "run", inline=True, **SMALL)
    assert result.best.reward == score
    found = [str(one.message) for one in told if "train() returned" in str(one.message)]
    assert len(found) == (said is not None) and all(re.search(said or "", text) for text in found)


def test_what_a_search_says_of_its_loss_is_a_warning_of_python(quick_path: Path) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        result = autoseg.search("miou", lambda *_: 0.5, run_dir=quick_path / "run", inline=True, **SMALL)
    said = [str(one.message) for one in told]
    assert result.warnings and set(result.warnings) <= set(said)
    assert any("too short to tell them apart" in text for text in said)


@pytest.mark.parametrize(
    ("scores", "candidates", "said"),
    [([0.5], 2, "all 2 losses .* same miou, 0.5: train.. does not use"), ([0.5], 1, "all 2 "), ([0.5, 0.4], 2, None)],
)
def test_a_training_that_does_not_use_its_loss_is_told_after_the_first_round(
    quick_path: Path, scores: list[float], candidates: int, said: str | None
) -> None:
    done: list[float] = []
    told_after: list[int] = []

    def train(loss: nn.Module, seed: int, device: str) -> dict[str, float]:
        done.append(scores[len(done) % len(scores)])
        return {"miou": done[-1], "seconds": float(len(done))}

    class Told(Observer):
        def round_done(self, summary: Any, progress: Any) -> None:
            if any(re.search(said or "losses so far", str(one.message)) for one in told):
                told_after.append(summary.round)

    options = {**SMALL, "rounds": 3, "candidates": candidates, "num_classes": 3, "confirm_seeds": 0, "rivals": []}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        autoseg.search("miou", train, run_dir=quick_path / "run", inline=True, observer=Told(), **options)
    first = 2 // candidates - 1  # the round in which there are two to compare
    assert told_after == ([] if said is None else [*range(first, 3)])
    assert sum("losses so far" in str(one.message) for one in told) == (said is not None)


@pytest.mark.parametrize("num_classes", [None, 3])
def test_a_rival_with_a_number_for_each_class(quick_path: Path, num_classes: int | None) -> None:
    own: dict[str, Any] = {**SMALL, "rivals": ["focal(alpha=[0.1,0.2,0.3])"], "num_classes": num_classes}
    result = autoseg.search("miou", my_train, run_dir=quick_path / "run", inline=True, **own)
    assert {row.name for row in result.rows} >= {"focal(alpha=[0.1,0.2,0.3])"}


@pytest.mark.parametrize(
    "wrong",
    [{"rivals": ["crossentropy"]}, {"floor": "miou>=0.9*lovas"}, {"floor": "miou"}, {"floor": "ece>=0.1"}],
)
def test_wrong_rivals_are_told_before_the_search(quick_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        autoseg.search("miou", my_train, num_classes=3, run_dir=quick_path / "run", **SMALL, **wrong)
    assert not (quick_path / "run").exists()


def test_a_score_without_a_formula_is_searched_for_with_the_surrogate_of_a_metric(quick_path: Path) -> None:
    def train(loss: nn.Module, seed: int, device: str) -> dict[str, float]:
        return {"depth": my_train(loss, seed, device)["miou"]}

    with pytest.raises(InputError, match=r"metric: expected one of .*, got 'depth'.*space=default-miou"):
        autoseg.search("depth", train, num_classes=3, run_dir=quick_path / "run", inline=True, **SMALL)
    own: dict[str, Any] = {**SMALL, "num_classes": 3, "inline": True}
    named = autoseg.search("depth", train, run_dir=quick_path / "run", space="default-miou", **own)
    built = autoseg.search("depth", train, run_dir=quick_path / "built", space=SPACE, **own)
    direct = autoseg.search("miou", my_train, run_dir=quick_path / "direct", **own)
    assert named.best == built.best and named.best.theta == direct.best.theta
    card = LossCard.load(quick_path / "run" / "loss.json")
    assert (card.target, card.metric) == ("depth", "miou")


def test_a_metric_may_be_searched_for_with_more_than_its_own_surrogate(quick_path: Path) -> None:
    """Boundaries say nothing of what lies inside: their search may train with regions too."""
    asked: dict[str, Any] = {**SMALL, "num_classes": 3, "inline": True, "space": "default-biou+miou"}

    def train(loss: nn.Module, seed: int, device: str) -> dict[str, float]:
        return {"biou": my_train(loss, seed, device)["miou"], "miou": 0.0}

    found = autoseg.search("biou", train, run_dir=quick_path / "run", **asked)
    loss = autoseg.load_loss(str(quick_path / "run"), 3)
    assert found.metric == "biou" and loss.metric == "biou+miou" and len(found.best.theta) == 12
    operations, scores = loss.theta[:8].reshape(2, 4), loss.theta[8:].reshape(2, 2)  # of biou, then of miou
    parts = [
        autoseg.SurrogateLoss.from_theta(name, [*operations[at], *scores[at]], 3, space=f"default-{name}")
        for at, name in enumerate(("biou", "miou"))
    ]
    logits, labels = torch.randn(2, 3, 16, 16), torch.randint(0, 3, (2, 16, 16))
    torch.testing.assert_close(loss(logits, labels), sum(part(logits, labels) for part in parts))


def test_an_error_is_not_maximised(quick_path: Path) -> None:
    with pytest.raises(InputError, match="metric: expected a score, higher is better, got ece, an error"):
        autoseg.search("ece", my_train, run_dir=quick_path / "run", inline=True, space="default-miou", **SMALL)


@pytest.mark.slow  # two processes that import torch
def test_in_workers_it_comes_out_the_same(quick_path: Path) -> None:
    inline = autoseg.search("miou", my_train, num_classes=3, run_dir=quick_path / "a", inline=True, **SMALL)
    workers = autoseg.search("miou", my_train, num_classes=3, run_dir=quick_path / "b", workers=2, **SMALL)
    assert workers.best == inline.best and workers.rows == inline.rows


def test_the_package_and_the_function_share_their_name() -> None:
    import autoseg.search.loop

    assert callable(autoseg.search) and autoseg.search.loop.run_search


def task(returned: Any) -> CandidateTask:
    return CandidateTask("miou", SPACE.to_dict(), 3, lambda loss, seed, device: returned)


@pytest.mark.parametrize(
    "returned", [0.5, torch.tensor(0.5), np.array([0.5]), {"miou": 0.5}, {"miou": torch.tensor(0.5)}]
)
def test_what_a_training_may_return(returned: Any) -> None:
    assert task(returned)({"theta": SPACE.identity.tolist(), "seed": 0}, "cpu") == {"miou": 0.5}


@pytest.mark.parametrize("returned", [None, "0.5", torch.zeros(2), {"mioU": 0.5}])
def test_what_it_may_not(returned: Any) -> None:
    with pytest.raises(InputError, match=r"train\(\)"):
        task(returned)({"loss": "ce", "seed": 0}, "cpu")


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_not_finite_is_a_divergence(score: float) -> None:
    with pytest.raises(Diverged, match="the score miou is"):
        task(score)({"loss": "ce", "seed": 0}, "cpu")


def test_identity_curves_by_name_are_those_of_the_space() -> None:
    space = build_space("paper", metric="miou")
    task = CandidateTask("miou", space.to_dict(), 3, lambda loss, seed, device: 0.5)
    named = task.build({"loss": "identity/miou", "seed": 0})
    plain = task.build({"theta": space.identity.tolist(), "seed": 0})
    assert (named.space, named.absent) == (plain.space, plain.absent) == (space, "include")


@dataclass(frozen=True)
class Built:
    """As the built-in training: iterations can be others, it may be looked at after five, and leave predictions."""

    proxy: ProxyConfig = field(default_factory=lambda: ProxyConfig(iters=10))
    watch: Watch | None = None
    predictions: str | None = None

    def __call__(self, loss: Any, seed: int, device: str) -> dict[str, float]:
        if self.watch is not None:
            self.watch.look(5, 0.05)
        return {"miou": self.proxy.iters / 100, "kept": self.predictions is not None}


def test_a_longer_confirmation_says_how_long() -> None:
    judge = CandidateTask("miou", SPACE.to_dict(), 3, Built())
    assert judge({"loss": "ce", "seed": 0, "iters": 25}, "cpu")["miou"] == 0.25
    assert judge({"loss": "ce", "seed": 0}, "cpu")["miou"] == 0.1


def test_scores_at_the_rungs_come_with_the_last_ones_or_without_them() -> None:
    judge = CandidateTask("miou", SPACE.to_dict(), 3, Built())
    for earlier, scores in ((0.01, {"miou": 0.1, "kept": 0.0}), (0.9, {})):
        rungs = Rungs("median", (0.5,), {"n_startup_trials": 1}, earlier=({5: earlier},))
        found = judge({"loss": "ce", "seed": 0, **rungs.payload()}, "cpu")
        assert isinstance(found, Watched)
        assert (dict(found), found.rungs, found.pruned) == (scores, {5: 0.05}, not scores)


def test_trainings_with_one_seed_leave_predictions(tmp_path: Path) -> None:
    judge = CandidateTask("miou", SPACE.to_dict(), 3, Built(), keep=KeepPredictions(str(tmp_path), 7))
    assert [judge({"loss": "ce", "seed": seed}, "cpu")["kept"] for seed in (7, 8)] == [1.0, 0.0]


def test_payloads_become_losses() -> None:
    surrogate = task(0.5).build({"theta": SPACE.identity.tolist(), "seed": 0})
    assert isinstance(surrogate, autoseg.SurrogateLoss) and surrogate.metric == "miou"
    assert not isinstance(task(0.5).build({"loss": "ce", "seed": 0}), autoseg.SurrogateLoss)
    with pytest.raises(InputError, match="theta"):
        task(0.5).build({"theta": [0.5], "seed": 0})


def test_void_pixels_and_boundaries_are_what_the_search_was_told(quick_path: Path) -> None:
    seen = []

    def train(loss: Any, seed: int, device: str) -> float:
        seen.append(loss.options if isinstance(loss, autoseg.SurrogateLoss) else loss.ignore_index)
        return 0.5

    told = {"num_classes": 3, "ignore_index": 7, "tolerance": 2, "drop_background": True}
    more: dict[str, Any] = {"rivals": ["ce", "identity/biou"], **told, **SMALL, "rounds": 1}
    autoseg.search("biou", train, run_dir=quick_path / "run", inline=True, **more)
    assert 7 in seen and all(one in (7, MetricOptions(3, 7, 2, True)) for one in seen)
    assert autoseg.load_loss(quick_path / "run").options == MetricOptions(3, 7, 2, True)


@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize("what", [{"theta": SPACE.identity.tolist()}, {"loss": "0.5*ce+0.5*jml"}])
def test_a_loss_can_be_sent_to_other_processes(num_classes: int | None, what: dict[str, Any]) -> None:
    """As a training does that starts some: with as little as a loss is, and not with what `train` holds."""
    lock = threading.Lock()
    judge = CandidateTask("miou", SPACE.to_dict(), num_classes, lambda loss, seed, device: lock)  # type: ignore[arg-type, return-value]
    loss = judge.build({**what, "seed": 0})
    logits, labels = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    for other in (pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss)):
        assert other(logits, labels) == loss(logits, labels)
    assert pickle.loads(pickle.dumps(loss))(logits, labels) == loss(logits, labels)  # after its first batch too


def train_two_classes(loss, seed, device):
    """Knows its own number of classes; one gradient step tells that the loss works."""
    logits = torch.zeros(1, 2, 8, 8, requires_grad=True)
    labels = torch.arange(64).view(1, 8, 8) % 2
    loss(logits, labels).backward()
    return float(logits.grad.abs().sum())


def test_the_number_of_classes_may_be_left_to_the_training(quick_path):
    result = autoseg.search("miou", train=train_two_classes, run_dir=quick_path / "run", inline=True, **SMALL)
    card = result.run_dir / "loss.json"
    with pytest.raises(InputError, match="num_classes"):
        autoseg.load_loss(card)
    assert autoseg.load_loss(card, num_classes=5).options.num_classes == 5


def diverging_at_first(loss, seed, device):
    """The first candidates fail, as a space's first round may."""
    counter = Path(os.environ["AUTOSEG_TEST_COUNTER"])
    done = len(counter.read_text()) if counter.exists() else 0
    counter.write_text("x" * (done + 1))
    return math.nan if done < SMALL["candidates"] else 0.5


def test_a_round_without_any_result_does_not_stop_the_search(quick_path, monkeypatch):
    monkeypatch.setenv("AUTOSEG_TEST_COUNTER", str(quick_path / "count"))
    result = autoseg.search("miou", diverging_at_first, num_classes=2, run_dir=quick_path / "run", inline=True, **SMALL)
    assert result.best.scores["miou"] == 0.5


def interrupted(run: Path, train: Any, after: int, **options: Any) -> list[str]:
    """Search until `train` was called so often; what was warned of which train() made the trainings."""

    class Stop(Observer):
        def trained(self, record: Any, progress: Any) -> None:
            nonlocal after
            after -= 1
            if after == 0:
                raise KeyboardInterrupt

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            given = {**SMALL, "num_classes": 3, "inline": True, "observer": Stop(), **options}
            autoseg.search("miou", train, run_dir=run, **given)
        except KeyboardInterrupt:
            pass
    return [str(one.message) for one in told if "another function" in str(one.message)]


def defined(source: str) -> Any:
    """`train` as a cell of a notebook defines it: in a module that has no file."""
    scope = {"__name__": "__main__", "my_train": my_train}
    exec(source, scope)
    return scope["train"]


def test_another_training_in_an_old_run_is_told(quick_path: Path) -> None:
    """Interrupted, mended and called again with the same folder, scores of both would stand beside each other."""
    run, helper = quick_path / "run", "def score(s): return s['miou'] * {}\n"
    cell = helper + "def train(loss, seed, device): return score(my_train(loss, seed, device))"
    first, same, other = (defined(cell.format(text)) for text in ("0.5", "0.5  # a half", "0.25"))
    assert interrupted(run, first, 1) == interrupted(run, same, 1) == []
    (said,) = interrupted(run, other, 1)
    assert said.startswith("train() is another function than the one that made the 2 trainings in ")
    assert said.endswith("Another run_dir begins anew.")
    (said,) = interrupted(run, same, 1)
    assert "than one that made some of the 3 trainings" in said
    (run / "trainers.json").unlink()  # of an earlier version
    assert interrupted(run, other, 1) == []
    (run / "trainers.json").write_text('{"trainers": [3]}')
    with pytest.raises(InputError, match=r"trainers\.json: expected a list of trainers"):
        interrupted(run, other, 1)


def test_a_training_that_made_nothing_is_not_told_of(quick_path: Path) -> None:
    run = quick_path / "run"

    def broken(loss: nn.Module, seed: int, device: str) -> float:
        raise KeyboardInterrupt

    assert interrupted(run, broken, 1) == interrupted(run, my_train, 1) == []
    assert len(interrupted(run, broken, 1)) == 1  # it might
    assert interrupted(run, my_train, 1) == []


def made(scale: float) -> Any:
    return lambda loss, seed, device: scale


def test_what_a_function_does_is_the_same_in_every_process() -> None:
    code = (
        "from functools import partial\nfrom autoseg.store.user_code import code_of\n"
        "class Net:\n    size = 3\n    def run(self): return {'a': 1, 'b': 2}, 1 in {'x', 'y', 'z'}, lambda: 0.1\n"
        "def train(loss, seed, device, lr=0.1, *, net=Net()):\n    return [Net().run() for _ in 'ab'], train\n"
        "print(code_of(train), code_of(partial(train, lr=0.2)), code_of(Net))\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", text], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout
        for seed, text in (("1", code), ("2", f"# moved\n{code}"))
    }
    assert len(found) == 1 and len(set(found.pop().split())) == 3
    assert code_of(made(0.5)) == code_of(made(0.5)) != code_of(made(0.25))
    assert code_of(defined("def train(a, b, c): return 1")) != code_of(defined("def train(a, b, c): return 2"))
    assert code_of(defined("def train(a, b): return a + b")) != code_of(defined("def train(a, b): return a - b"))
    assert code_of(Built()) == code_of(Built())


@pytest.mark.parametrize(
    "cell",
    [
        "def train(a, b={}): pass",
        "def train(a, *, b={}): pass",
        "def train(a): return a.mean{}()",
        "def run(a, b): pass\ntrain = __import__('functools').partial(run, b={})",
        "def score(s): return {}\ndef train(a): return [score(s) for s in a]",
        "class Base:\n    def run(self): return {}\nclass train(Base): pass",
        "class train:\n    @property\n    def size(self): return {}",
        "class train:\n    @staticmethod\n    def run(): return {}",
    ],
)
def test_what_a_function_does_stands_beside_its_own_lines_too(cell: str) -> None:
    one, same, other = (code_of(defined(cell.format(number))) for number in (1, 1, 2))
    assert one == same != other


def test_an_edited_formula_of_ones_own_is_another_search(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the command refuses it; here of a class in a notebook, of which Python has no source."""
    run, register = quick_path / "run", {"autoseg": autoseg, "__name__": "__main__"}
    cell = (
        "class Hits(autoseg.Metric):\n    name, summary = 'hits', 'recall'\n"
        "    def sums(self, p, y, logic): return {'and': logic.total(logic.and_(p, y)), 'label': logic.total(y)}\n"
        "    def scores(self, s, ratio): return ratio(s['and'], %s)\n"
        "autoseg.register_metric(Hits)"
    )

    def train(loss: nn.Module, seed: int, device: str) -> float:
        return 0.5

    def search(formula: str) -> Any:
        monkeypatch.setattr(base, "_REGISTRY", {k: v for k, v in base._REGISTRY.items() if k != "hits"})
        exec(cell % formula, dict(register))
        options = {**SMALL, "num_classes": 3, "inline": True, "rivals": [], "confirm_seeds": 0}
        return autoseg.search("hits", train, run_dir=run, **options)

    assert search("s['label']") == search("(s['label'])")
    with pytest.raises(InputError, match=r"formula of hits: expected 'python.*, as when the run began, got 'python"):
        search("s['label'] + s['and']")
    fixed = json.loads((run / "fingerprint.json").read_text())
    del fixed["formula of hits"]  # as earlier versions left it
    (run / "fingerprint.json").write_text(json.dumps(fixed))
    search("s['label'] + s['and']")


def test_an_own_metric_is_known_in_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))

    @autoseg.register_metric
    class Hits(autoseg.Metric):
        name, summary = "hits", "recall under another name"

        def sums(self, p: Any, y: Any, logic: Any) -> Any:
            return {"and": logic.total(logic.and_(p, y)), "label": logic.total(y)}

        def scores(self, s: Any, ratio: Any) -> Any:
            return ratio(s["and"], s["label"])

    def train(loss: nn.Module, seed: int, device: str) -> float:
        labels = torch.zeros(1, 4, 4, dtype=torch.int64)
        metric = autoseg.build_metric("hits", num_classes=2)
        metric.update(labels, labels)
        return float(metric.compute()) * float(loss(torch.zeros(1, 2, 4, 4), labels) >= 0)

    result = autoseg.search(
        "hits", train=train, rounds=1, candidates=1, confirm_seeds=0, rivals=[], workers=1, run_dir=tmp_path / "run"
    )
    assert result.best.reward == 1.0
