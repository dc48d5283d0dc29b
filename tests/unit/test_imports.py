"""`imports=[FILE.py]`: what a user names is imported, nothing else is, and every mistake in it is one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import own_code
import pytest
import torch

import autoseg
from autoseg import imports
from autoseg.cli import main
from autoseg.errors import InputError
from autoseg.losses import searched_loss
from autoseg.losses.registry import LOSSES
from autoseg.metrics.base import registry


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Registries, path and modules are afterwards what they were."""
    metrics, losses, modules = dict(registry()), dict(LOSSES), set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for known, before in ((registry(), metrics), (LOSSES, losses)):
        known.clear()  # type: ignore[attr-defined]
        known.update(before)  # type: ignore[attr-defined]
    for name in set(sys.modules) - modules:
        if name == "shares" or name.startswith("_own_"):
            del sys.modules[name]


def test_a_file_and_what_lies_beside_it(tmp_path: Path) -> None:
    own = own_code.write(tmp_path / "a folder")
    imports.import_modules([str(own)])
    imports.import_modules([str(own)])  # once is enough
    logits, labels = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    poly, plain = (autoseg.build_loss(text, num_classes=3) for text in ("poly(epsilon=0)", "ce"))
    assert torch.equal(poly(logits, labels), plain(logits, labels))
    assert autoseg.build_loss("0.5*poly+identity/f2", num_classes=3)(logits, labels).isfinite()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\nboom", "line 2: NameError: name 'boom' is not defined"),
        ("import nothing_of_this_name", "line 1: ModuleNotFoundError"),
        ("def f(:", "line 1: SyntaxError"),
        ("raise SystemExit(3)", "line 1: SystemExit: 3"),
        ("import autoseg\n@autoseg.register_metric\nclass A(autoseg.Metric):\n    name = summary = 'miou'", "'miou'"),
        ("import autoseg\n@autoseg.register_metric\nclass A(autoseg.Metric):\n    name = summary = 'My F'", "'My F'"),
        ("import autoseg\n@autoseg.register_metric\nclass A(autoseg.Metric): pass", "name = ... and summary"),
        (
            "import autoseg\n@autoseg.register_loss\nclass A(autoseg.SegLoss):\n    name = summary = 'identity'",
            "identity",
        ),
        ("import autoseg\n@autoseg.register_loss\nclass A:\n    name = summary = 'a'", "SegLoss"),
    ],
)
def test_a_module_that_fails_is_told_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(InputError) as told:
        imports.import_modules([str(tmp_path / "own.py")])
    assert said in str(told.value) and "\n" not in str(told.value)
    assert not any(name.startswith("_own_own_") for name in sys.modules)


def test_what_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"existing \.py files"):
        imports.resolve_paths(["nowhere.py"])
    with pytest.raises(InputError, match="PYTHONPATH"):
        imports.import_modules(["no_module_of_this_name"])
    (tmp_path / "close_by.py").write_text("")
    with pytest.raises(InputError, match=r"imports=\[close_by\.py\]"):
        imports.import_modules(["close_by"])


def test_lists_know_them_and_one_file_needs_no_brackets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = own_code.write(tmp_path)
    assert main(["metrics", f'imports="{own}"']) == 0
    assert main(["losses", f'imports=["{own}"]']) == 0
    said = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in said} >= {"f2", "poly"}
    assert main(["spaces", "imports=7"]) == 2
    assert main(["search", "metric=f2", "imports=[nowhere.py]"]) == 2
    assert "nowhere.py" in capsys.readouterr().err


def test_a_card_never_imports_what_it_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = own_code.write(tmp_path)
    imports.import_modules([str(own)])
    space = autoseg.build_space("f2")
    loss = searched_loss(space, space.identity, num_classes=2)
    autoseg.save_loss(loss, tmp_path / "loss.json", provenance={"imports": [str(own)]})
    registry().pop("f2")  # type: ignore[attr-defined]
    assert main(["export", str(tmp_path / "loss.json"), "-o", str(tmp_path / "out.json")]) == 2
    assert f"imports=[{own}]" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_an_environment_knows_a_metric_of_the_users_own(tmp_path: Path) -> None:
    own, data = own_code.write(tmp_path), {"count": [4, 2, 2], "cache_dir": str(tmp_path)}
    wanted = {"metric": "f2", "imports": [str(own)], "device": "cpu", "data": data, "proxy": {"size": [48, 64]}}
    assert autoseg.make_env(wanted).metric == "f2"


def test_a_metric_that_fails_is_refused_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would fail at the end of every training, also beside another target."""
    monkeypatch.chdir(tmp_path)
    own = own_code.write(tmp_path)
    own.write_text(own.read_text().replace('s["label"])', 's["labels"])'))
    common = ["device=cpu", f"data.cache_dir={tmp_path}", "data.count=[4,2,2]", f'imports="{own}"']
    for words in (["search", "workers=1"], ["compare", "losses=[ce,dice]", "workers=1"], ["retrain", "metrics=[f2]"]):
        assert main([*words, *common]) == 2
        said = capsys.readouterr().err
        assert "metric f2: expected a formula that can be computed for 7 classes, got KeyError: 'labels' (" in said
        assert not (tmp_path / "runs").exists()
    with pytest.raises(InputError, match=r"metric f2: .*KeyError"):
        autoseg.search("f2", lambda loss, seed, device: 0.5, num_classes=3, inline=True)
