"""Reading a run never executes code: a config of mmengine's that its user wrote is taken only if it is typed again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from autoseg.cli import compare, main, retrain, search, trust
from autoseg.cli.configuration import compose, stored
from autoseg.cli.configuration.named_code import own_configs, resume_arguments
from autoseg.cli.configuration.repeat import command_for
from autoseg.config import CompareConfig, RetrainConfig, SearchConfig, TrustConfig
from autoseg.errors import InputError
from autoseg.mmconfigs import located, mmengine_config, shipped
from autoseg.store.run_folder import RunFolder

TINY = ["data=builtin", "model=tiny"]
SHIPPED = "_base_/models/fcn_unet_s5-d16.py"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config that leaves a canary when it is executed, and the folder that commands are typed in."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "own configs" / "mine.py"
    file.parent.mkdir()
    file.write_text(f"open({str(tmp_path / 'canary')!r}, 'w')\nmodel = dict(type='EncoderDecoder')\n")
    return file


def begun(run: Path, command: str, schema: type, *overrides: str) -> Path:
    """The folder of a run that was begun with these."""
    config = compose.compose(command, schema, [*TINY, *overrides] if schema is not TrustConfig else list(overrides))
    RunFolder.create(run, stored.plain(config), {}).close()
    return run


def test_each_command_says_what_to_type_and_executes_nothing(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("model.config", "data.mmseg_config"):
        run = begun(mine.parent / f"s {key}", "search", SearchConfig, f'{key}="{mine}"')
        other = begun(mine.parent / f"c {key}", "compare", CompareConfig, "losses=[ce]", f'{key}="{mine}"')
        full = begun(mine.parent / f"r {key}", "retrain", RetrainConfig, "loss=ce", f'{key}="{mine}"')
        for command in (
            ["search", f'resume="{run}"'],
            ["compare", f'resume="{other}"'],
            ["compare", "losses=[ce,dice]", f'like="{run}"'],
            ["retrain", f'resume="{full}"'],
            ["trust", str(run)],
        ):
            assert main(command) == 2
            said = capsys.readouterr().err
            assert said.count("\n") == 1 and f"add '{key}=\"{mine}\"' to the command" in said, said
    assert main(["report", str(mine.parent / "s data.mmseg_config")]) == 2  # it shows the images
    assert "add 'data.mmseg_config=" in capsys.readouterr().err
    full = begun(mine.parent / "whole", "retrain", RetrainConfig, "loss=ce", f'config="{mine}"')
    assert main(["retrain", f'resume="{full}"']) == 2 and "add 'config=" in capsys.readouterr().err
    assert not (mine.parent.parent / "canary").exists()


@pytest.mark.parametrize(
    "form", ["{0}", "{0}/../{0.name}", "../../../../../../../../../../../..{0}", "link.py", "mine.py"]
)
def test_no_way_of_writing_a_path_passes_for_one_of_mmsegmentations(mine: Path, form: str) -> None:
    """Nor a name of theirs that lies in the folder where the command is typed."""
    (mine.parent.parent / "link.py").symlink_to(mine)
    shutil.copy(mine, "mine.py")
    text = form.format(mine)
    assert shipped(text) is None
    assert own_configs(RetrainConfig(loss="ce", config=text)) == {"config": text}


def test_what_mmsegmentation_ships_needs_no_naming(mine: Path) -> None:
    theirs = Path(SHIPPED)
    theirs.parent.mkdir(parents=True)
    shutil.copy(mine, theirs)
    known = shipped(SHIPPED)
    assert known is not None and known.read_text() != mine.read_text()
    for text in (SHIPPED, f"_base_/../{SHIPPED}", str(known)):
        assert shipped(text) == known and own_configs(RetrainConfig(loss="ce", config=text)) == {}
    assert located(SHIPPED) == SHIPPED and located(f"./{SHIPPED}") == str(theirs.absolute())


def test_named_again_it_is_the_same_file(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = begun(mine.parent / "run", "search", SearchConfig, f'model.config="{mine}"')
    other = mine.with_name("other.py")
    shutil.copy(mine, other)
    went: list[object] = []
    monkeypatch.setattr("autoseg.cli.prestart.job", lambda _, config, *__, **___: went.append(config.model.config) or 0)
    monkeypatch.chdir(mine.parent)
    search.run("search", [f'resume="{run}"', "model.config=mine.py"])
    compare.run("compare", [f'like="{run}"', "losses=[ce]", "model.config=./other.py"])  # a budget may be changed
    assert went == [str(mine), str(other)]
    for command, words in ((search, [f'resume="{run}"']), (trust, [str(run)])):
        with pytest.raises(InputError, match=r"model\.config: expected .*mine\.py, with which .* got .*other"):
            command.run(command.__name__.rpartition(".")[2], [*words, "model.config=other.py"])


def test_a_run_is_begun_with_paths_that_hold_everywhere(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mine.parent)
    began: list[SearchConfig | RetrainConfig] = []
    monkeypatch.setattr("autoseg.cli.prestart.job", lambda _, config, *__: began.append(config) or 0)
    monkeypatch.setattr("autoseg.cli.jobs.retrain.retrain", lambda config, **_: began.append(config) or 0)
    search.run("search", ["data.kind=mmseg", "model.config=mine.py", 'data.mmseg_config="../own configs/mine.py"'])
    retrain.run("retrain", ["loss=ce", "config=mine.py"])
    assert [Path(value).resolve() for value in own_configs(began[0]).values()] == [mine, mine]
    assert own_configs(began[1]) == {"config": str(mine)}
    assert all(Path(value).is_absolute() for value in own_configs(began[0]).values())
    assert resume_arguments(began[1]) == resume_arguments(stored.plain(began[1])) == f""" 'config="{mine}"'"""
    assert resume_arguments(began[1], ["data.mmseg_config"]) == ""


def test_an_interpolation_in_a_run_looks_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "told")
    config = compose.compose("search", SearchConfig, TINY)
    for text in ("${oc.env:A_SECRET}", r"\${a}", r"\\${metric}"):
        data = stored.plain(config) | {"metric": text}
        config = stored.load(SearchConfig, data)
        assert (
            config.metric == text == stored.plain(config)["metric"] == yaml.safe_load(stored.as_yaml(config))["metric"]
        )
        assert compose.changed("search", config, ["seed=1"]).metric == text
        assert "told" not in command_for(stored.plain(config), Path("run"))


def test_a_config_that_is_no_python_is_not_read(tmp_path: Path) -> None:
    """mmengine's reader of YAML makes whatever object the file asks for."""
    file = tmp_path / "model.yaml"
    file.write_text(f"model: !!python/object/apply:os.system ['touch {tmp_path / 'canary'}']\n")
    with pytest.raises(InputError, match=r"model\.config.*Python"):
        mmengine_config(file, "model.config")
    assert not (tmp_path / "canary").exists()


def test_a_config_may_inherit_from_mmsegmentation(tmp_path: Path) -> None:
    """As its guide has it; mmengine asks for a distribution of the name that it had before it changed hands."""
    file = tmp_path / "own.py"
    base = '_base_ = ["mmseg::_base_/models/fcn_unet_s5-d16.py"]'
    file.write_text(f"{base}\nmodel = dict(decode_head=dict(num_classes=3))\n")
    config = mmengine_config(file, "config")
    assert config.model.backbone.type == "UNet" and config.model.decode_head.num_classes == 3
