"""A setting that nothing reads is refused or remarked: it would be without effect, unnoticed."""

from __future__ import annotations

import pytest

from autoseg.cli import main
from autoseg.cli.configuration import compose as hydra
from autoseg.cli.configuration import stored
from autoseg.cli.configuration.check import check
from autoseg.cli.configuration.unread import DATA, OTHERS, without_effect
from autoseg.config import RetrainConfig, SearchConfig
from autoseg.errors import InputError


def composed(*overrides: str) -> SearchConfig:
    return hydra.compose("search", SearchConfig, list(overrides))


def test_the_tables_name_keys_there_are() -> None:
    there = {*stored.keys(SearchConfig), *stored.keys(RetrainConfig)}
    for table in (DATA, OTHERS):
        assert {other for other, _ in table.values()} <= there
        absent = {key for key in table if key not in there}
        assert absent <= {f"train.soft.{key}" for key in ("momentum", "confidence", "labelled")}  # a search's alone


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (
            ["data.root=DIR", "data.classes=[a,b]"],
            "data.root: expected none with data.kind=builtin, got DIR. Read with data.kind=f",
        ),
        (["data.classes=[a,b]"], "data.classes: expected none with data.kind=builtin"),
        (["data=voc12aug", "data.train_split=trainval"], "data.train_split: expected none with data.kind=mmseg"),
        (["data=camvid", "data.seed=1"], "data.seed: expected none with data.kind=folder, got 1"),
    ],
)
def test_a_key_that_this_kind_of_data_does_not_read_is_refused(words: list[str], key: str) -> None:
    """Or a search that was meant for a folder would be one of built-in images."""
    config = composed(*words)
    with pytest.raises(InputError) as refusal:
        check(config)
    assert str(refusal.value).startswith(key)
    check(config, again=True)  # a run there is goes on


def test_a_whole_config_is_told_where_its_data_lies(capsys: pytest.CaptureFixture[str]) -> None:
    """`retrain config=FILE data.root=DIR`, with the usual data preset beside it."""
    check(hydra.compose("retrain", RetrainConfig, ["config=_base_/default_runtime.py", "data.root=DIR"]))
    with pytest.raises(InputError, match=r"^data\.root: "):
        check(hydra.compose("retrain", RetrainConfig, ["data.root=DIR"]))


def test_in_a_sweep_over_data_each_reads_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["search", "-m", "data.root=DIR", "--cfg"]
    assert main([*words, "data=builtin,camvid"]) == 0
    assert main([*words, "seed=1,2"]) == 2
    assert "data.root: expected none with data.kind=builtin" in capsys.readouterr().err


@pytest.mark.parametrize("data", hydra.options("data"))
def test_presets_have_the_keys_that_their_kind_reads(data: str) -> None:
    check(composed(f"data={data}"))
    check(composed("experiment=smoke", f"data={data}"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], []),
        (["proxy.labels=smooth", "proxy.soft.eps=0.2"], []),
        (["search.pruner=percentile", "search.pruner_options={percentile:30}"], []),
        (["proxy.labels=smooth", "proxy.soft.width=5"], ["proxy.soft.width=5 has no effect with proxy.labels=smooth"]),
        (["proxy.soft.teacher=DIR"], ["proxy.soft.teacher=DIR has no effect with proxy.labels=hard: it is read with "]),
        (["search.pruner_options={percentile:30}"], ["search.pruner_options={'percentile': 30} has no effect with"]),
    ],
)
def test_other_settings_without_effect_are_remarked(words: list[str], said: list[str]) -> None:
    """Not refused: in a sweep over `proxy.labels` they have an effect in some of its runs."""
    config = composed(*words)
    check(config)
    assert [text[: len(start)] for text, start in zip(without_effect(config), said, strict=True)] == said
