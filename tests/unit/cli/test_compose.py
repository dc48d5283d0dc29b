"""Every config composes into the schema; every way of typing it wrong is one message that says what to do."""

from __future__ import annotations

import dataclasses
import itertools
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from autoseg.cli.configuration import compose as hydra
from autoseg.cli.configuration import stored
from autoseg.cli.configuration.check import check
from autoseg.cli.configuration.overrides import quoted
from autoseg.config import CompareConfig, RetrainConfig, SearchConfig
from autoseg.errors import InputError
from autoseg.files import shipped_folder


def composed(*overrides: str) -> SearchConfig:
    return hydra.compose("search", SearchConfig, list(overrides))


def every_option(schema: type) -> list[str]:
    """Every file of a command's groups; those of different groups side by side, since one composition takes 0.1 s."""
    files = {group: [f"{group}={name}" for name in hydra.options(group, schema)] for group in hydra.groups(schema)}
    experiments = files.pop("experiment")  # which choose among the others themselves
    return [" ".join(filter(None, row)) for row in itertools.zip_longest(*files.values())] + experiments


def test_groups_are_the_promised_ones():
    both = ["data", "experiment", "model", "tracker"]
    assert hydra.groups(SearchConfig) == sorted([*both, "controller", "executor", "proxy"])
    assert hydra.groups(RetrainConfig) == [*both, "train"]
    assert hydra.groups(CompareConfig) == ["data", "executor", "model", "proxy"]


@pytest.mark.parametrize("options", every_option(SearchConfig))
def test_every_config_file_fits_the_schema(options):
    config = composed(*options.split())
    check(config)
    assert isinstance(config, SearchConfig)


@pytest.mark.parametrize("options", every_option(RetrainConfig))
def test_every_config_file_fits_retrain(options):
    config = hydra.compose("retrain", RetrainConfig, options.split())
    check(config)
    assert isinstance(config, RetrainConfig)


def test_experiments_belong_to_their_command():
    assert "voc_r101" in hydra.options("experiment", RetrainConfig)
    assert "voc_r101" not in hydra.options("experiment", SearchConfig)
    with pytest.raises(InputError, match="builtin, camvid, smoke"):
        composed("experiment=voc_r101")


def test_defaults_of_the_command():
    config = composed()
    assert (config.data.name, config.model.name, config.controller.name) == ("builtin", "tiny", "gp")
    assert config.space.name == "default"


def test_the_smoke_search_trains_what_fits_in_a_minute():
    """As the help says: by the figure in configs/proxy/builtin.yaml, 1440 iterations are 20 s of two cores."""
    config = composed("experiment=smoke")
    confirm = config.search.confirm
    trainings = config.search.rounds * config.search.candidates + confirm.seeds * (confirm.top + len(confirm.rivals))
    assert trainings * (confirm.iters or config.proxy.iters) <= 1440
    assert config.proxy.batch_size <= 8 and config.proxy.crop <= 64 and max(config.proxy.size) <= 96
    assert config.model.name == "tiny" and sum(config.data.count) <= 72 and not config.proxy.warmup


def test_later_overrides_win_over_an_experiment():
    config = composed("experiment=smoke", "search.rounds=7", "metric=miou+0.5*bf1")
    assert config.search.rounds == 7
    assert config.metric == "miou+0.5*bf1"


def test_space_is_short_for_its_name():
    assert composed("space=paper-miou").space.name == "paper-miou"


def test_open_dictionaries_take_new_keys_without_a_plus():
    assert composed("controller.options.lr=0.3").controller.options["lr"] == 0.3


def test_open_dictionaries_take_a_dictionary_with_new_keys():
    config = composed("model=deeplabv3plus_mobilenet_v2", "model.overrides={neck: {in_channels: [24, 32]}}")
    assert config.model.overrides["neck"] == {"in_channels": [24, 32]}
    assert config.model.overrides["backbone"]["type"] == "MobileNetV2"  # as typed key by key, the rest stays


def test_plain_data_round_trips_through_yaml():
    config = composed("experiment=smoke", "data.classes=[a,b]", "search.floor='\"miou>=0.9*ce\"'")
    assert stored.load(SearchConfig, yaml.safe_load(yaml.safe_dump(stored.plain(config)))) == config
    assert stored.load(SearchConfig, yaml.safe_load(stored.as_yaml(config))) == config


def test_a_run_of_a_later_version_is_refused_by_its_keys_and_one_of_an_earlier_has_defaults_for_ours():
    data = stored.plain(composed())
    data["search"]["roundz"] = 3
    with pytest.raises(InputError, match=r"search\.roundz: expected no such key, got it\. .* another version"):
        stored.load(SearchConfig, data)
    del data["search"]["roundz"], data["search"]["rounds"], data["proxy"]["soft"]["eps"]
    assert stored.load(SearchConfig, data) == composed()
    data["proxy"]["iters"] = "many"
    with pytest.raises(InputError, match=r"proxy\.iters: expected a whole number"):
        stored.load(SearchConfig, data)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("sed=1", ["'sed'", "Did you mean seed"]),
        ("+sed=1", ["'sed'", "Did you mean seed"]),
        ("dat=camvid", ["'dat'", "Did you mean data?"]),
        ("search.round=3", ["'search.round'", "search.rounds"]),
        ("rounds=3", ["search.rounds"]),
        ("hydra.run.dir=x", ["'hydra.run.dir'"]),
        ("hydra/launcher=x", ["'hydra/launcher'"]),
        ("search=3", ["search: expected its keys one by one, got 3. As in search.rounds=VALUE."]),
        ("data=buildin", ["data", "builtin"]),
        ("tracker=wnadb", ["Did you mean wandb"]),
        ("experiment=smok", ["Did you mean smoke"]),
        ("seed=abc", ["seed: expected a whole number, got 'abc'"]),
        ("search.rounds=2.5", ["search.rounds", "whole number", "2.5"]),
        ("search.rounds=null", ["search.rounds", "whole number"]),
        ("proxy.flip=maybe", ["proxy.flip", "true or false"]),
        ("proxy.lr=fast", ["proxy.lr", "a number"]),
        ("data.classes=road", ["data.classes", "a list like [a,b]"]),
        ("data.ids=255", ["data.ids", "a list like [a,b]"]),
        ("proxy.size=[1,x]", ["proxy.size", "each a whole number"]),
        ("~data", ["key=value"]),
        ("metric", ["key=value", "--help"]),
        ("data.root=~/x", ["data.root", """'data.root="~/x"'"""]),
        ("data.root=/x/a=b", ["""'data.root="/x/a=b"'"""]),
        ("data.root=/x/(1)", ["""'data.root="/x/(1)"'"""]),
        ("search.floor=miou>=0.9*ce", ["""'search.floor="miou>=0.9*ce"'"""]),
        ("metric=miou,biou", ["-m", "metric"]),
    ],
)
def test_wrong_input_is_one_message(typed, words):
    with pytest.raises(InputError) as caught:
        composed(typed)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("value", ["~/x", "/x/a=b", "/x/(1)", "it's", 'a "b"', "*"])
def test_the_quoting_it_suggests_works(value):
    (typed,) = shlex.split(quoted(f"data.root={value}"))
    assert composed(typed).data.root == value


@pytest.fixture(scope="module")
def defaults():
    return composed()


@pytest.mark.parametrize(
    "typed",
    [
        "search.rounds=0",
        "proxy.optimizer=adam",
        "proxy.warmup=250",
        "tolerance=5000",
        "proxy.lr=nan",
        "proxy.scale=[0.5,nan]",
    ],
)
def test_values_out_of_range_are_refused(typed, defaults):
    with pytest.raises(InputError) as caught:
        check(hydra.changed("search", defaults, [typed]))
    assert typed.partition("=")[0] in str(caught.value)


def test_a_frozen_backbone_has_no_images_for_a_teacher():
    with pytest.raises(InputError, match=r"proxy\.backbone: expected trained, with proxy\.labels=pseudo"):
        check(composed("proxy.backbone=frozen", "proxy.labels=pseudo"))
    check(composed("proxy.backbone=frozen", "proxy.labels=smooth"))


@pytest.mark.parametrize(
    ("typed", "field"),
    [
        (["search.rungs=[0.5,0.25]"], "search.rungs"),
        (["search.rungs=[]"], "search.rungs"),
        (["search.rungs=[0.5,1]"], "search.rungs"),
        (["proxy.iters=90", "proxy.warmup=30", "search.rungs=[0.33]"], "search.rungs"),
        (["search.pruner_options.percent=10"], "search.pruner_options"),
    ],
)
def test_rungs_lie_on_the_way(typed, field):
    check(composed(*typed))  # without a pruner nothing is asked of them
    with pytest.raises(InputError) as caught:
        check(composed("search.pruner=median", *typed))
    assert caught.value.field == field


def test_rungs_after_the_warm_up_are_taken():
    check(composed("search.pruner=percentile", "proxy.iters=90", "proxy.warmup=30", "search.rungs=[0.35,0.5]"))


def test_a_config_alone_is_that_network_and_no_preset_on_another() -> None:
    theirs = "_base_/models/pspnet_r50-d8.py"
    model = composed(f"model.config={theirs}", "experiment=camvid").model
    assert (model.name, model.config, model.overrides) == ("pspnet_r50-d8", theirs, {})
    model = composed("model.overrides.decode_head.channels=64", f"model.config={theirs}", "model.name=mine").model
    assert (model.name, model.overrides) == ("mine", {"decode_head": {"channels": 64}})
    both = composed("model=tiny", f"model.config={theirs}").model  # the user's own doing
    assert (both.name, both.overrides) == ("tiny", composed("model=tiny").model.overrides)
    data = composed("data.kind=mmseg", "data.mmseg_config=_base_/datasets/ade20k.py").data
    assert data.name == "ade20k" and composed("data=camvid", "data.mmseg_config=null").data.name == "camvid"


def test_a_sweep_is_the_product_in_order():
    configs = hydra.compose_sweep(
        "search", SearchConfig, ["metric=miou,biou", "seed=range(0,2)", "data=builtin"], sweep=True
    )
    assert [(c.metric, c.seed) for _, c in configs] == [("miou", 0), ("miou", 1), ("biou", 0), ("biou", 1)]
    assert [words for words, _ in configs][1:3] == ["metric=miou seed=1", "metric=biou seed=0"]


def test_a_wrong_value_anywhere_in_a_sweep_is_found_first():
    with pytest.raises(InputError, match="controller"):
        hydra.compose_sweep("search", SearchConfig, ["controller=ppo,pppo"], sweep=True)


def test_keys_lists_every_leaf():
    found = stored.keys(SearchConfig)
    assert "search.confirm.top" in found and "search" not in found
    assert len(found) >= sum(1 for _ in dataclasses.fields(SearchConfig))


@pytest.mark.parametrize(
    "losses",
    [["ce", "poly(epsilon=2)", "identity/f2"], ["0.25*ce+0.75*(jml+lovasz)", "jml(reduction={I:0.5,C:0.5})", "ce"]],
)
def test_a_list_that_hydra_cannot_read_is_told_as_one_that_it_can(losses):
    with pytest.raises(InputError) as caught:
        hydra.compose("compare", CompareConfig, [f"losses=[{','.join(losses)}]"])
    _, _, advice = str(caught.value).partition("for Hydra: ")
    (typed,) = shlex.split(advice)
    assert hydra.compose("compare", CompareConfig, [typed]).losses == losses


@pytest.mark.parametrize("text", ["12345_7", "2026_11_30", "1e3", "2024.10", "true", "007"])
def test_text_that_looks_like_a_number_stays_as_it_is(text: str) -> None:
    """Slurm names a job of an array 12345_7, which to Hydra is the number 123457."""
    config = composed(f"run_dir={text}", f"data.train_split={text}")
    assert (config.run_dir, config.data.train_split) == (text, text)
    assert hydra.changed("search", config, [f"run_dir={text}"]).run_dir == text
    assert composed("run_dir=null").run_dir is None and composed("workers=2").workers == "2"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("proxy={iters:3}", r"^proxy: expected its keys one by one, got \{iters:3\}\. As in proxy\.iters=VALUE\."),
        ("search.confirm={top:1}", r"As in search\.confirm\.top=VALUE"),
        ("data@foo=builtin", "^configs: expected files that fit together, got Could not override 'data@foo'"),
    ],
)
def test_what_hydra_alone_understands_is_one_message(words: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        composed(words)


@pytest.mark.parametrize("words", ["imports=[[a.py]]", "search.confirm.rivals=[[ce]]", "data.classes=[{a:1},{b:2}]"])
def test_items_of_a_list_are_no_lists_or_mappings(words: str) -> None:
    with pytest.raises(InputError, match="without brackets or braces in it"):
        check(composed(words))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("proxy:\n  itres: 4\n", r"^proxy\.itres: expected a section of keys|^configs: .*itres"),
        ("proxy:\n  size: 64\n", r"^proxy\.size: expected a list like"),
        ("defaults:\n  - override /datta: camvid\n", "^configs: expected files that fit together, got .*datta"),
        ("proxy: [", "^configs: expected files that fit together, got "),
    ],
)
def test_a_mistake_in_an_experiment_of_ones_own_is_named(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a clone it lies beside the shipped ones, where a broken one disturbs no other."""
    shutil.copytree(shipped_folder("configs"), tmp_path / "configs")
    (tmp_path / "configs/experiment/mine.yaml").write_text(f"# @package _global_\n{text}")
    (tmp_path / "configs/experiment/empty.yaml").write_text("")
    monkeypatch.setattr(hydra, "shipped_folder", lambda name: tmp_path / name)
    with pytest.raises(InputError, match=said):
        composed("experiment=mine")
    assert composed("experiment=smoke").proxy.iters and "empty" in hydra.options("experiment")
