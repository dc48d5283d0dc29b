"""A metric and a loss of a user's own through the commands: known in every process, only where they are named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import commands
import own_code
import pytest

from autoseg.mmconfigs import shipped

TINY = [
    "experiment=smoke", "data.count=[8,2,2]", "data.cache_dir=cache", "proxy.iters=2", "proxy.batch_size=2",
    "proxy.size=[32,32]", "proxy.crop=32", "search.rounds=1", "search.candidates=2", "search.confirm.seeds=1",
]  # fmt: skip
USE = """
import sys, torch
import found
print(float(found.build_loss(num_classes=3)(torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8)))) < 2)
print("autoseg" in sys.modules)
"""


def autoseg(folder: Path, *arguments: str) -> tuple[int, str]:
    done = commands.autoseg(folder, *arguments)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


USE_CONFIG = """
import torch
from pathlib import Path
from mmengine.config import Config
from mmseg.registry import MODELS
Path("mine.py").write_text("model = dict(decode_head=dict(loss_decode=dict(type='CrossEntropyLoss')))")
found = Path("found_mmseg.py")
found.write_text(found.read_text().replace('# _base_ = ["deeplabv3plus_....py"]', '_base_ = ["mine.py"]'))
loss = MODELS.build(Config.fromfile(found).model.decode_head.loss_decode)
print(float(loss(torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8)))) < 2)
"""


@pytest.mark.slow
def test_from_a_file_to_a_loss_and_on(tmp_path: Path) -> None:
    own = own_code.write(tmp_path / "own")
    named = 'imports=["own/my metrics.py"]'
    rivals = 'search.confirm.rivals=[identity,"poly(epsilon=2)"]'
    status, said = autoseg(tmp_path, "search", "metric=f2", named, *TINY, rivals, "run_dir=run")
    assert status == 0, said
    assert "poly(epsilon=2)" in said and "my metrics.py" in said.splitlines()[-1]
    card = json.loads((tmp_path / "run" / "loss.json").read_text())
    assert card["metric"] == "f2" and card["provenance"]["imports"] == [str(own)]

    for command in (["search", "resume=run"], ["report", "run"], ["trust", "run"], ["compare", "like=run"]):
        status, said = autoseg(tmp_path, *command, *(["losses=[ce,poly]"] if command[0] == "compare" else []))
        assert status == 2 and str(own) in said and said.count("\n") == 1, said

    inline = "executor=inline"  # the search above has shown that workers know both
    for command in (
        ["search", "resume=run", inline],
        ["report", "run"],
        ["export", "run", "--format", "python", "-o", "found.py"],
        ["export", "run", "--format", "mmseg", "-o", "found_mmseg.py"],
        ["compare", "like=run", "losses=[poly,run,identity/f2]", "reference=poly", "seeds=1", inline],
    ):
        status, said = autoseg(tmp_path, *command, named)
        assert status == 0, said
    done = subprocess.run([sys.executable, "-c", USE], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
    done = subprocess.run([sys.executable, "-c", USE_CONFIG], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.split()[-1] == "True", done.stderr

    own.write_text(own.read_text().replace("(1 + b)", "(2 + b)"))
    status, said = autoseg(tmp_path, "search", "resume=run", named)
    assert status == 2 and "formula of f2" in said, said


@pytest.mark.slow
def test_a_network_of_ones_own(tmp_path: Path) -> None:
    """Begun in one folder, gone on with in another: the path is kept, typed again, and its file as it was."""
    there, own = tmp_path / "elsewhere", tmp_path / "net.py"
    there.mkdir()
    theirs = shipped("_base_/models/deeplabv3plus_r50-d8.py")
    assert theirs is not None
    own.write_text(theirs.read_text())
    status, said = autoseg(
        tmp_path, "search", *TINY, "executor=inline", "model=tiny", "model.config=net.py", "run_dir=run"
    )
    assert status == 0, said
    for command in (["search", "resume=../run"], ["trust", "../run"], ["compare", "losses=[ce,dice]", "like=../run"]):
        status, said = autoseg(there, *command)
        assert status == 2 and f"add model.config={own} to the command" in said and said.count("\n") == 1, said
    comparison = ["compare", "losses=[ce,dice]", "like=../run", "seeds=1", "executor=inline"]
    for command in (["search", "resume=../run"], comparison):
        status, said = autoseg(there, *command, "model.config=../net.py")
        assert status == 0, said
    assert autoseg(there, "report", "../run")[0] == 0
    own.write_text(own.read_text() + "# changed\n")
    assert autoseg(there, "search", "resume=../run", f"model.config={own}")[0] == 0  # what it says, not how
    own.write_text(own.read_text() + "model['decode_head']['dropout_ratio'] = 0.5\n")
    for command in (["search", "resume=../run"], ["trust", "../run"]):
        status, said = autoseg(there, *command, f"model.config={own}")
        assert status == 2 and "model.config: expected the network that" in said, said


@pytest.mark.slow
def test_a_full_training_with_both(tmp_path: Path) -> None:
    own_code.write(tmp_path / "own")
    named = 'imports=["own/my metrics.py"]'
    sizes = ["data.count=[6,2,2]", "data.cache_dir=cache", "train.iters=2", "train.batch_size=2", "train.crop=[32,32]"]
    status, said = autoseg(
        tmp_path, "retrain", "loss=0.5*poly+identity/f2", "metrics=[f2]", named, *sizes, "run_dir=work"
    )
    assert status == 0 and "f2 " in said, said
    status, said = autoseg(tmp_path, "retrain", "resume=work")
    assert status == 2 and "my metrics.py" in said, said
    status, said = autoseg(tmp_path, "retrain", "resume=work", named)
    assert status == 0, said
