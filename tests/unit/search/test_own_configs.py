"""A run is gone on with only if the user's own configs define what they did, in whichever of their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autoseg.cli.jobs.retrain import DIGESTS, _digests, _same_configs
from autoseg.config import ModelConfig, RetrainConfig
from autoseg.errors import InputError
from autoseg.evidence.comparison import made_with
from autoseg.files import write_atomic
from autoseg.store.run_folder import RunFolder
from autoseg.store.user_code import network_of

WHOLE = """_base_ = ["base.py"]
model = dict(type="EncoderDecoder", head=dict(channels=3))
optim_wrapper = dict(type=print)
work_dir = "of no weight"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "base.py").write_text("model = dict(backbone=dict(depth=18))\ntrain_cfg = dict(max_iters=3)\n")
    (tmp_path / "own.py").write_text(WHOLE)
    return tmp_path / "own.py"


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def searched(file: Path) -> dict[str, Any]:
    return {"model": network_of(ModelConfig(config=str(file)))}


def compared(file: Path) -> dict[str, Any]:
    return {f"model.{key}": value for key, value in searched(file)["model"].items()}


def test_a_search_looks_at_what_the_network_is(file: Path, tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", {}, searched(file)).close()
    for same in (("dict(", "dict( "), ("of no weight", "elsewhere")):
        edit(file, *same)
        RunFolder.open(tmp_path / "run", searched(file)).close()
    edit(file.with_name("base.py"), "depth=18", "depth=50")
    with pytest.raises(InputError, match=r"model\.config: .*own\.py, or a file it inherits from, has changed"):
        RunFolder.open(tmp_path / "run", searched(file))


def test_a_comparison_too_unless_it_is_forced(file: Path, tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", {}, compared(file)).close()
    edit(file, "dict(", "dict( ")
    with RunFolder.open(tmp_path / "run", made_with.admit(tmp_path / "run", compared(file), force=False)) as folder:
        made_with.note(folder, compared(file), {})
    edit(file.with_name("base.py"), "depth=18", "depth=50")
    with pytest.raises(InputError, match=r"model\.config: .*has changed.*force=true"):
        made_with.admit(tmp_path / "run", compared(file), force=False)
    with RunFolder.open(tmp_path / "run", made_with.admit(tmp_path / "run", compared(file), force=True)) as folder:
        made_with.note(folder, compared(file), {})


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [("dict(", "dict( ", True), ("of no weight", "elsewhere", True), ("print", "dict", False), ("=3", "=4", False)],
)
def test_a_full_training_looks_at_all_that_trains(file: Path, old: str, new: str, same: bool) -> None:
    config = RetrainConfig(loss="ce", config=str(file))
    write_atomic(file.parent / DIGESTS, str(_digests(config)).replace("'", '"'))
    _same_configs(config, file.parent)
    edit(file, old, new)
    if same:
        _same_configs(config, file.parent)
        return
    with pytest.raises(InputError, match=r"config: expected what .*own\.py defined .*has changed"):
        _same_configs(config, file.parent)
