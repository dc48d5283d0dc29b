"""Imports run one way, and `import autoseg` stays light: the structure that README shows, enforced."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import autoseg

ROOT = Path(autoseg.__file__).parent
SHARED = {"config", "errors", "files", "imports", "kinds", "limits", "mmconfigs", "native", "optimizers"}
# Each room may import those named; the order is that of the data: formula, surrogate, loss, training, search, evidence.
MAY_IMPORT = {
    "metrics": set(),
    "surrogates": {"metrics"},
    "losses": {"metrics", "surrogates"},
    "data": set(),
    "training": {"metrics", "losses", "data"},
    "controllers": set(),
    "execution": set(),
    "search": {"metrics", "surrogates", "losses", "data", "training", "controllers", "execution"},
    "tracking": {"search"},
    "retrain": {"metrics", "losses", "data", "training", "tracking", "mmseg"},
    "evidence": {"metrics", "surrogates", "losses", "data", "training", "execution", "search"},
}
LIGHT = "torch mmseg mmengine mmcv hydra omegaconf wandb optuna stable_baselines3 gymnasium kornia matplotlib".split()


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports(file: Path) -> set[str]:
    """Rooms of autoseg that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(tree(file)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module] if node.module != "autoseg" else [f"autoseg.{a.name}" for a in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("autoseg.")}
    return found


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_only_what_stands_below_them(room):
    allowed = MAY_IMPORT[room] | SHARED | {room}
    for file in (ROOT / room).rglob("*.py"):
        extra = imports(file) - allowed
        assert not extra, f"{file.relative_to(ROOT)} imports {sorted(extra)}"


def test_every_room_is_in_the_table():
    rooms = {p.parent.name for p in ROOT.glob("*/__init__.py")}
    assert rooms - set(MAY_IMPORT) == {"cli"}


def test_text_is_utf_8_whatever_the_locale():
    """A class named Straße, written here, is read elsewhere."""
    for file in ROOT.rglob("*.py"):
        for node in ast.walk(tree(file)):
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            opened = isinstance(called, ast.Name) and called.id == "open"
            binary = opened and "b" in "".join(map(ast.unparse, node.args[1:]))
            text = isinstance(called, ast.Attribute) and called.attr in ("read_text", "write_text")
            if (opened and not binary) or text:
                assert "encoding" in {given.arg for given in node.keywords}, f"{file}:{node.lineno}"


@pytest.mark.parametrize(
    "chain",
    [
        [
            ("autoseg", LIGHT),
            ("autoseg.execution", ["torch"]),
            ("autoseg.cli", ["torch", "hydra", "optuna"]),
            ("autoseg.search.proxy", ["torch", "mmseg"]),
            ("autoseg.search.loop", ["torch", "mmseg", "hydra", "wandb"]),
            ("autoseg.tracking.status", ["torch"]),
        ],
        [(f"autoseg.cli.{command}", ["torch", "optuna", "scipy"]) for command in ("search", "compare", "trust")],
        [
            ("autoseg.surrogates", ["mmseg", "hydra", "wandb", "optuna"]),
            ("autoseg.cli.jobs.search", ["mmseg", "matplotlib", "scipy.special", "stable_baselines3"]),
        ],
    ],
)
def test_imports_stay_light(chain):
    """One process imports one module after the other, since that is what takes the time."""
    code = "import sys, importlib\n" + "".join(
        f"importlib.import_module({module!r}); print([({module!r}, m) for m in {absent!r} if m in sys.modules])\n"
        for module, absent in chain
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]"] * len(chain)


def test_public_names_resolve():
    for name in autoseg.__all__:
        assert getattr(autoseg, name) is not None
    with pytest.raises(AttributeError, match="serach"):
        autoseg.serach  # noqa: B018


@pytest.mark.slow
def test_a_training_brings_along_no_compiler_and_no_sharding():
    """They would cost every worker 10 s and 190 MB."""
    code = """
import sys, torch
from autoseg.cli.configuration.compose import compose
from autoseg.config import DataConfig, ProxyConfig, SearchConfig
from autoseg.losses import build_loss
from autoseg.search.proxy import ProxyTask
proxy = ProxyConfig(iters=1, batch_size=2, size=[64, 64], crop=32)
model = compose("search", SearchConfig, ["model=tiny"]).model
task = ProxyTask(DataConfig(count=[8, 2, 2]), model, proxy, ("miou",))
print(0 <= task(build_loss("ce", num_classes=7), 0)["miou"] <= 1)
unwanted = ("torch._dynamo", "torch._inductor", "torch.distributed.fsdp", "sympy", "kornia", "timm",
    "scipy.ndimage", "scipy.optimize")
print([name for name in unwanted if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True", "[]"]
