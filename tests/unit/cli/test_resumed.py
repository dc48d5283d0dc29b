"""What a resumed run says and starts before anything heavy is imported."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import autoseg.cli as cli
from autoseg.cli.configuration import compose, stored
from autoseg.cli.configuration.repeat import command_for
from autoseg.cli.configuration.resume import like, resumed
from autoseg.cli.jobs import compare, trust
from autoseg.cli.jobs.trust_source import kept_entries, kept_seeds
from autoseg.config import CompareConfig, ModelConfig, RetrainConfig, SearchConfig, TrustConfig
from autoseg.errors import InputError
from autoseg.evidence.comparison.contenders import contenders
from autoseg.evidence.trust.rankings import Entry
from autoseg.losses import LossCard, searched_loss
from autoseg.store.run_files import read_config
from autoseg.store.run_folder import RunFolder, write_config
from autoseg.surrogates import build_space


@pytest.mark.parametrize(
    ("given", "run", "said"),
    [
        (SearchConfig(), CompareConfig(losses=["ce"]), "a search, got .* which is of a comparison"),
        (CompareConfig(), SearchConfig(), "a comparison, got .* which is of a search"),
        (TrustConfig(), RetrainConfig(loss="ce"), "a trust run, got .* which is of a training"),
        (
            RetrainConfig(loss="ce"),
            TrustConfig(run="r"),
            "a training by retrain, got .* which is of a trust run",
        ),
    ],
)
def test_a_run_of_another_kind_is_told_as_that(tmp_path: Path, given: Any, run: Any, said: str) -> None:
    RunFolder.create(tmp_path, stored.plain(run), {}).close()
    given.resume = str(tmp_path)
    with pytest.raises(InputError, match=f"resume: expected the folder of {said}"):
        resumed(given, [f"resume='{tmp_path}'"])


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["search", "resume=nope"], "resume"),
        (["retrain", "resume=nope"], "resume"),
        (["compare", "losses=[ce,dice]", "like=nope"], "like"),
        (["trust", "nope"], "RUN"),
    ],
)
def test_a_run_that_is_not_there_is_named_as_it_was_typed(
    tmp_path: Path, words: list[str], key: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    assert capsys.readouterr().err == f"autoseg: {key}: expected the folder of a run, got nope, which does not exist.\n"
    (tmp_path / "nope").mkdir()
    assert cli.main(words) == 2
    assert capsys.readouterr().err.startswith(f"autoseg: {key}: expected a folder with a config.yaml, as a run has it")


@pytest.mark.parametrize(
    "group", ["experiment=smoke", "data=camvid", "space=paper-miou", "controller=ppo", "proxy=paper"]
)
def test_a_whole_group_beside_resume_is_refused_in_words(tmp_path: Path, group: str) -> None:
    RunFolder.create(tmp_path, stored.plain(compose.compose("search", SearchConfig, [])), {}).close()
    given = compose.compose("search", SearchConfig, [group])
    given.resume = str(tmp_path)
    with pytest.raises(InputError, match="expected none beside resume, got one") as told:
        resumed(given, [group])
    assert "Config(" not in str(told.value)


def test_a_resumed_search_takes_new_limits(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, stored.plain(compose.compose("search", SearchConfig, [])), {}).close()
    words = ["search.timeout_s=7200", "search.retries=0", "proxy.frozen_gb=20"]
    given = compose.compose("search", SearchConfig, words)
    given.resume = str(tmp_path)
    goes_on = resumed(given, words)
    assert (goes_on.search.timeout_s, goes_on.search.retries, goes_on.proxy.frozen_gb) == (7200, 0, 20)


def test_variables_of_the_environment_beside_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    RunFolder.create(run, stored.plain(compose.compose("search", SearchConfig, [])), {}).close()
    monkeypatch.setenv("WHERE", "/a b")
    words = ["data.cache_dir=${oc.env:WHERE}/c", "search.rounds=9"]
    given = compose.compose("search", SearchConfig, [f"resume='{run}'", *words])
    assert resumed(given, [f"resume='{run}'", *words]).data.cache_dir == "/a b/c"
    other = compose.compose("compare", CompareConfig, ["losses=[ce,jml]", f"like='{run}'", words[0]])
    assert like(other, [words[0]]).data.cache_dir == "/a b/c"
    ambiguous = ["search.rounds=${search.candidates}"]  # the run's, or the command line's
    given = compose.compose("search", SearchConfig, [f"resume='{run}'", *ambiguous])
    with pytest.raises(InputError, match=r"search\.rounds: expected a value beside a run, got \$\{.*Write it out"):
        resumed(given, ambiguous)


def test_a_resumed_run_stays_in_its_folder(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", stored.plain(compose.compose("search", SearchConfig, [])), {}).close()
    words = [f"run_dir='{tmp_path}/other'"]
    given = compose.compose("search", SearchConfig, words)
    given.resume = str(tmp_path / "run")
    with pytest.raises(InputError, match=r"run_dir: expected none beside resume, got .*other"):
        resumed(given, words)
    given.run_dir = f"{tmp_path}/run"
    assert resumed(given, words).run_dir == given.run_dir


def test_a_comparison_killed_while_a_card_is_added_can_be_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is not finished: the table is that of the losses before."""
    for number in (1, 2):
        bound = build_space("default", metric="miou")
        loss = searched_loss(bound, bound.identity + number / 100, 3)
        LossCard.of(loss, num_classes=3).save(tmp_path / f"{number}.json")
    run, fixed = tmp_path / "run", {"split": "val"}
    monkeypatch.setattr(compare, "fingerprint", lambda *_: fixed)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    def went(*losses: str) -> None:
        config = CompareConfig(losses=list(losses), run_dir=str(run))
        seeds, among, reference, path = compare.resolve_names(config)
        with compare._folder(config, compare.Parts(None, "val", seeds, None, among, reference, path)):  # type: ignore[arg-type]
            pass

    def kept_losses() -> list[str]:
        config = stored.load(CompareConfig, read_config(run))
        contenders(config.losses, config.metrics, run)  # each is there
        return config.losses

    losses = ["ce"]
    for card in ("1.json", "2.json"):
        if run.exists():
            (run / "table.csv").write_text("")
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(compare, "keep_cards", killed)
            went(*losses, str(tmp_path / card))
        assert kept_losses() == (losses if len(losses) > 1 else ["ce", str(tmp_path / card)])
        went(*losses, str(tmp_path / card))
        assert kept_losses()[:-1] == losses and not (run / "table.csv").exists()
        losses = kept_losses()
        assert all(text.startswith("cards/") for text in losses[1:])


def test_a_trust_run_keeps_its_losses_and_seeds(tmp_path: Path) -> None:
    """Whatever the search has become since."""
    run = tmp_path / "trust"
    entry = Entry("candidate 0.0", "candidate", (0.5, 0.5), 0.4, 2.0)
    fixed = {"entries": [asdict(entry)], "seeds": [11, 12]}
    RunFolder.create(run, stored.plain(TrustConfig(run="r")), fixed).close()
    (run / "trust.csv").write_text("")
    assert (kept_entries(run), kept_seeds(run)) == ([entry], [11, 12])
    parts = SimpleNamespace(path=run)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(trust, "fingerprint", lambda *_: fixed)
        trust._folder(TrustConfig(run="r"), parts).close()
    assert not (run / "trust.csv").exists()
    for wrong in ({}, {**fixed, "seeds": []}, {**fixed, "entries": [{"name": "x"}]}):
        (run / "fingerprint.json").write_text(json.dumps(wrong))
        with pytest.raises(InputError, match="run folder: expected one with all its settings"):
            kept_entries(run), kept_seeds(run)


PSPNET = "_base_/models/pspnet_r50-d8.py"


@pytest.mark.parametrize("beside", ["like", "resume"])
def test_a_typed_change_of_the_network_changes_that_of_the_run(tmp_path: Path, beside: str) -> None:
    """The command line's own network, without a run, is the usual preset: nothing of that may come along."""
    run, mobilenet = tmp_path / "run", "model=deeplabv3plus_mobilenet_v2"
    began = compose.compose(
        "compare", CompareConfig, ["losses=[ce,jml]", mobilenet, f"model.weights='{tmp_path}/net.pth'"]
    )
    RunFolder.create(run, stored.plain(began), {}).close()

    def taken(*words: str) -> ModelConfig:
        given = compose.compose("compare", CompareConfig, ["losses=[ce,jml]", f"{beside}='{run}'", *words])
        went = like(given, words) if beside == "like" else resumed(given, words, ("model", "proxy"))
        assert isinstance(went, CompareConfig)
        return went.model

    network = began.model.overrides
    for typed, changed in (
        ("model.overrides={decode_head:{dropout_ratio:0.2}}", {"dropout_ratio": 0.2}),
        ("model.overrides.decode_head.channels=64", {"channels": 64}),
        ("model.overrides.decode_head.loss_decode.avg_non_ignore=true", {"loss_decode": {"avg_non_ignore": True}}),
    ):
        found = taken(typed)
        assert found.overrides == {**network, "decode_head": {**network["decode_head"], **changed}}
        assert (found.name, found.weights) == ("deeplabv3plus_mobilenet_v2", f"{tmp_path}/net.pth")
    alone = taken(f"model.config={PSPNET}", "model.overrides.backbone.depth=18", f"model.weights={tmp_path}/a.pth")
    assert (alone.config, alone.name, alone.weights) == (PSPNET, "pspnet_r50-d8", f"{tmp_path}/a.pth")
    assert alone.overrides == {"backbone": {"depth": 18}}
    assert taken("model.weights=a.pth").weights == str(Path("a.pth").absolute())
    if beside == "resume":  # a whole preset, and more of it
        more = ["model=tiny", "model.overrides.decode_head.channels=8", f"model.config={PSPNET}"]
        assert taken(*more) == compose.compose("compare", CompareConfig, more).model


def test_a_comparison_is_on_validation_images_unless_it_began_on_others(tmp_path: Path) -> None:
    data = SimpleNamespace(splits=("train", "val", "test"))
    assert [compare._split(wanted, data, tmp_path) for wanted in ("auto", "val", "test")] == ["val", "val", "test"]
    with pytest.raises(InputError, match="split: expected one of auto, val"):
        compare._split("test", SimpleNamespace(splits=("train", "val")), tmp_path)
    config = stored.plain(CompareConfig(losses=["ce", "jml"]))
    for began in ("test", "val"):  # auto was the test images where there are some
        run = tmp_path / began
        run.mkdir()
        write_config(run, config)
        (run / "fingerprint.json").write_text(json.dumps({"split": began}))
        assert compare._split("auto", data, run) == began
        assert f"split={began}" in command_for(config, run).split()
