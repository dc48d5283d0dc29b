"""A run is gone on with only if the user's own configs define what they did, in whichever of their files."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from autoseg.cli.jobs.retrain import DIGESTS, _digests, _same_configs
from autoseg.config import RetrainConfig
from autoseg.errors import InputError
from autoseg.evidence.comparison import budgets
from autoseg.files import write_atomic
from autoseg.search.own import text_of
from autoseg.search.records import TrialRecord
from autoseg.search.run_folder import RunFolder

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
    return {"model": {"config": str(file), **text_of(str(file))}}


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
    with RunFolder.open(tmp_path / "run", budgets.admit(tmp_path / "run", compared(file), force=False)) as folder:
        budgets.note(folder, compared(file))
    assert not (tmp_path / "run" / budgets.NAME).exists()
    edit(file.with_name("base.py"), "depth=18", "depth=50")
    with pytest.raises(InputError, match=r"model\.config: .*has changed.*force=true"):
        budgets.admit(tmp_path / "run", compared(file), force=False)
    with RunFolder.open(tmp_path / "run", budgets.admit(tmp_path / "run", compared(file), force=True)) as folder:
        budgets.note(folder, compared(file))
    assert (tmp_path / "run" / budgets.NAME).exists()


@pytest.mark.parametrize("key", ["text", None])
def test_runs_of_earlier_versions_are_held_to_what_they_kept(file: Path, tmp_path: Path, key: str | None) -> None:
    kept = {"text": hashlib.sha256(file.read_bytes()).hexdigest()[:12]} if key else {}
    nested = {"model": {"config": str(file), **kept}}
    flat = {f"model.{name}": value for name, value in nested["model"].items()}
    RunFolder.create(tmp_path / "search", {}, nested).close()
    RunFolder.create(tmp_path / "comparison", {}, flat).close()
    edit(file.with_name("base.py"), "depth=18", "depth=50")
    RunFolder.open(tmp_path / "search", searched(file)).close()
    with RunFolder.open(
        tmp_path / "comparison", budgets.admit(tmp_path / "comparison", compared(file), False)
    ) as folder:
        budgets.note(folder, compared(file))
    assert budgets.described(tmp_path / "comparison", [TrialRecord(-1, 0, "compare", "ce", None, 1)]) == ""
    edit(file, "channels=3", "channels=4")
    if key is None:
        RunFolder.open(tmp_path / "search", searched(file)).close()
        return
    with pytest.raises(InputError, match="has changed"):
        RunFolder.open(tmp_path / "search", searched(file))
    with pytest.raises(InputError, match="has changed"):
        budgets.admit(tmp_path / "comparison", compared(file), False)


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [("dict(", "dict( ", True), ("of no weight", "elsewhere", True), ("print", "dict", False), ("=3", "=4", False)],
)
def test_a_full_training_looks_at_all_that_trains(file: Path, old: str, new: str, same: bool) -> None:
    config = RetrainConfig(loss="ce", config=str(file))
    _same_configs(config, file.parent)  # begun by an earlier version
    write_atomic(file.parent / DIGESTS, str(_digests(config)).replace("'", '"'))
    _same_configs(config, file.parent)
    edit(file, old, new)
    if same:
        _same_configs(config, file.parent)
        return
    with pytest.raises(InputError, match=r"config: expected what .*own\.py defined .*has changed"):
        _same_configs(config, file.parent)
