"""A run's folder may come from anybody: what it says of a network never makes mmengine call anything."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from autoseg.cli.configuration import compose, stored
from autoseg.cli.configuration.named_code import refuse_code, resume_arguments
from autoseg.cli.configuration.resume import like, resumed, searched
from autoseg.config import CompareConfig, ModelConfig, RetrainConfig, SearchConfig
from autoseg.errors import InputError
from autoseg.store.run_folder import RunFolder
from autoseg.training import build_model, models

TINY = ["data=builtin", "model=tiny"]


def called(canary: Path) -> dict[str, Any]:
    return {"backbone": {"_delete_": True, "type": "subprocess.call", "args": ["touch", str(canary)]}}


def test_mmengine_would_call_what_a_dotted_type_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this, the refusals below would be of nothing. What is typed may name parts of networks, no functions."""
    config = compose.compose("search", SearchConfig, TINY).model
    config.overrides = called(tmp_path / "canary")
    with pytest.raises(InputError, match=r"subprocess\.call is not in"):
        build_model(config, 3, 0)
    config.overrides = {"neck": {"type": "torch.nn.Identity"}, "auxiliary_head": None}
    build_model(config, 3, 0)
    config.overrides = called(tmp_path / "canary")
    assert not (tmp_path / "canary").exists()
    monkeypatch.setattr(models, "parts_alone", contextlib.nullcontext)
    build_model(config, 3, 0)  # and takes its exit status for a backbone
    assert (tmp_path / "canary").exists()


def test_a_run_that_names_a_function_as_a_part_is_refused(tmp_path: Path) -> None:
    run, given = tmp_path / "run", compose.compose("search", SearchConfig, TINY)
    given.model.overrides = called(tmp_path / "canary")
    RunFolder.create(run, stored.plain(given), {}).close()
    given.resume = str(run)
    comparison = compose.compose("compare", CompareConfig, ["losses=[ce,dice]", f"like={shlex.quote(str(run))}"])
    for read in (lambda: resumed(given, []), lambda: searched(run), lambda: like(comparison, [])):
        with pytest.raises(InputError, match=r"model\.overrides\.backbone\.type.*subprocess\.call.*imports="):
            read()


@pytest.mark.parametrize(
    "overrides",
    [
        {"custom_hooks": [{"type": "subprocess.call", "args": ["true"]}]},
        {"model.backbone.type": "os.system"},
        {"custom_imports": {"imports": ["this"]}},
        {"visualizer": {"_scope_": "os"}},
        {"optim_wrapper": {"type": "mmengine.load", "file": "a.pkl"}},
        {"optim_wrapper": {"type": "antigravity"}},
        {"neck": {"type": "mmengine.MemcachedBackend", "sys_path": "run"}},
        {"neck": {"type": "mmengine.MMLogger", "log_file": "victim"}},
        {"neck": {"type": "ConvModule", "padding": "touch x", "padding_mode": "os.system"}},
        {"backbone.conv_type": "subprocess.Popen"},
        {"neck": {"type": "__main__"}},
    ],
)
def test_every_way_of_naming_code_in_a_network_is_refused(overrides: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"model\.overrides"):
        refuse_code(SearchConfig(model=ModelConfig(overrides=overrides)), Path("run"))


def test_overrides_of_a_training_are_typed_again(tmp_path: Path) -> None:
    """What they point at may run code in more ways than can be listed."""
    sought = "overrides={train_dataloader: {dataset: {type: DecathlonDataset, ann_file: a b.pkl}}, find_unused: true}"
    steps = ["overrides.param_scheduler.0.power=0.8", "overrides.param_scheduler.0.end=inf"]
    config = compose.compose("retrain", RetrainConfig, ["loss=ce", sought, *steps])
    run = tmp_path / "run"
    RunFolder.create(run, {"schema": 1, **stored.plain(config)}, {}).close()
    given = compose.compose("retrain", RetrainConfig, ["loss=ce", f"resume={shlex.quote(str(run))}"])
    with pytest.raises(InputError, match=r"overrides: expected .*only what you name is executed") as error:
        resumed(given, [])
    (words,) = re.findall(r"then add (.*) to the command", str(error.value))
    assert resume_arguments(config) == f" {words}"
    (typed,) = shlex.split(words)
    given = compose.compose("retrain", RetrainConfig, ["loss=ce", f"resume={shlex.quote(str(run))}", typed])
    assert stored.same(resumed(given, [typed]).overrides, config.overrides)
    other = typed.replace("a b", "b")
    given = compose.compose("retrain", RetrainConfig, ["loss=ce", f"resume={shlex.quote(str(run))}", other])
    with pytest.raises(InputError, match="overrides: expected"):
        resumed(given, [other])


def test_the_address_of_a_cluster_is_typed_again(tmp_path: Path) -> None:
    run, words = tmp_path / "run", ["executor=ray", "executor.address=10.0.0.7:6379"]
    config = compose.compose("search", SearchConfig, words)
    RunFolder.create(run, {"schema": 1, **stored.plain(config)}, {}).close()
    go_on = f"resume={shlex.quote(str(run))}"
    with pytest.raises(InputError, match=r"executor\.address: .*then add executor\.address=10\.0\.0\.7:6379 to"):
        resumed(compose.compose("search", SearchConfig, [go_on]), [])
    for more in (words[1:], ["executor=processes"]):
        resumed(compose.compose("search", SearchConfig, [go_on, *more]), more)
    assert resume_arguments(config) == " executor.address=10.0.0.7:6379"


def test_names_of_registries_pass() -> None:
    overrides = {
        "backbone": {"type": "mmpretrain.ConvNeXt", "norm_cfg": {"type": "BN"}},
        "conv": [{"type": "bilinear", "padding_mode": "reflect"}],
    }
    refuse_code(RetrainConfig(loss="ce", model=ModelConfig(overrides=overrides)), Path("run"))


@pytest.mark.parametrize("recipe", compose.options("experiment", SearchConfig))
def test_every_recipe_can_be_gone_on_with(recipe: str) -> None:
    refuse_code(compose.compose("search", SearchConfig, [f"experiment={recipe}"]), Path("run"))
