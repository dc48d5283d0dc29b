"""`--cfg` prints no configuration that the command itself would refuse, as far as that needs no data."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoseg.cli import main
from autoseg.cli.configuration import compose, stored
from autoseg.config import SearchConfig
from autoseg.store.run_folder import RunFolder

FOCAL = "focal(alpha=[0.1,0.2,0.3,0.4,0.5])"  # as many numbers as the data has classes, which nobody has looked at


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """For each command what it can print; the data has no root."""
    monkeypatch.chdir(tmp_path)
    data = ["data=ade20k", "data.kind=folder"]
    config = compose.compose("search", SearchConfig, [*data, "metric=biou"])
    RunFolder.create(tmp_path / "run", stored.plain(config), {}).close()
    return {
        "search": [*data, f"search.confirm.rivals=['{FOCAL}']"],
        "compare": [*data, f"losses=[ce,'0.5*ce+{FOCAL}',identity]"],
        "retrain": [*data, f"loss='{FOCAL}'"],
        "trust": ["run"],
    }


@pytest.mark.parametrize(
    ("command", "wrong", "said"),
    [
        ("search", "metric=miuo", "miou"),
        ("search", "space=papr", "paper"),
        ("search", "controller.options.lrr=1", "lrr"),
        ("search", "controller.options.seed=3", "no such option, since seed= sets it, got 3"),
        ("search", "controller.options.mean=[0.5]", "since search.start= sets it"),
        ("search", "controller.options.dim=6", "since space= sets it"),
        ("search", "controller.options.name=ppo", "since controller= sets it"),
        ("search", "controller.options.std=0.3", "which controller=gp does not use"),
        ("search", "search.confirm.rivals=[lovas]", "search.confirm.rivals, loss"),
        ("search", "search.confirm.rivals=['tversky(alpa=1)']", "alpha"),
        ("search", "search.floor='miuo>=0.4'", "miou"),
        ("search", "search.floor='ece>=0.4'", "higher is better"),
        ("search", "search.floor='miou>=0.9*lovas'", "search.floor, loss"),
        ("compare", "losses=[ce,lovas]", "lovasz"),
        ("compare", "losses=[ce,jml+identity/mio]", "miou"),
        ("compare", "losses=[ce]", "at least two"),
        ("compare", "metrics=[miou,mio]", "miou"),
        ("compare", "reference=dice", "reference"),
        ("compare", "seeds=[1,1]", "each seed once"),
        ("compare", "space=papr", "paper"),
        ("compare", "imports=[nowhere.py]", "nowhere.py"),
        ("retrain", "loss=lovas", "lovasz"),
        ("retrain", "loss=nowhere/loss.json", "existing file"),
        ("retrain", "metrics=[mio]", "miou"),
        ("trust", "cheaper=['iters=3']", "cheaper"),
        ("trust", "cheaper=['proxy.itres=3']", "proxy.iters"),
        ("trust", "full.iters=2", "full.iters"),
    ],
)
def test_a_name_that_nobody_knows_is_refused(
    command: str, wrong: str, said: str, typed: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, *typed[command], wrong, "--cfg"]) == 2
    told = capsys.readouterr()
    assert told.out == "" and said in told.err and told.err.count("\n") == 1


def test_a_config_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["retrain", "config=nofile.py", "--cfg"]) == 2
    assert capsys.readouterr().err.startswith("autoseg: config: expected a file, or the name of a config")


def test_beside_a_config_own_data_is_told_another_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["retrain", "config=mine.py", "data=folder", "data.root=DIR"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("autoseg: data: expected none beside config=")
    assert said.endswith("For that network with your own data: model.config=FILE data=folder data.root=DIR.\n")


@pytest.mark.parametrize("command", ["search", "compare", "retrain", "trust"])
def test_what_only_the_data_can_tell_is_left_to_it(
    command: str, typed: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, *typed[command], "--cfg"]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.count("\n") > 3


def test_the_folder_of_a_trust_run_may_begin_with_the_home_folder(
    typed: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["trust", *typed["trust"], 'run_dir="~/trust"', "--cfg"]) == 0
    assert f"run_dir: {tmp_path}/trust\n" in capsys.readouterr().out
