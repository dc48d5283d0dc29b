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
# What each part of autoseg may import of it, in the order of the data, which runs from top to bottom: what all share,
# then formula, surrogate, loss, training, search, evidence, and who joins them.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "files": {"errors"},
    "native": {"errors", "files"},
    "machine": set(),
    "kinds": {"errors"},
    "limits": {"errors"},
    "config": {"limits"},
    "imports": {"errors"},
    "interrupts": set(),
    "optimizers": set(),
    "quiet": set(),
    "mmconfigs": {"errors"},
}
SHARED = set(MAY_IMPORT)
MAY_IMPORT |= {room: SHARED | below for room, below in {
    "metrics": set(),
    "surrogates": {"metrics"},
    "losses": {"metrics", "surrogates"},
    "mmseg": {"metrics", "losses"},
    "data": set(),
    "training": {"metrics", "losses", "data"},
    "controllers": set(),
    "execution": set(),
    "store": {"metrics", "losses", "execution"},
    "proxy": {"metrics", "surrogates", "losses", "data", "training", "execution", "store"},
    "search": {"metrics", "surrogates", "losses", "data", "controllers", "execution", "store", "proxy"},
    "tracking": {"store", "search"},
    "retrain": {"losses", "mmseg", "data", "training", "tracking", "store"},
    "evidence": {"metrics", "surrogates", "losses", "data", "execution", "store", "proxy", "search"},
    "api": {"metrics", "surrogates", "controllers", "execution", "store", "proxy", "search", "tracking", "evidence"},
}.items()}  # fmt: skip
LIGHT = (
    "torch mmseg mmengine mmcv hydra omegaconf wandb optuna stable_baselines3 gymnasium kornia matplotlib ray".split()
)


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


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_parts_import_only_what_stands_above_them(part):
    files = [*(ROOT / part).rglob("*.py")] or [ROOT / f"{part}.py"]
    for file in files:
        extra = imports(file) - MAY_IMPORT[part] - {part}
        assert not extra, f"{file.relative_to(ROOT)} imports {sorted(extra)}"


def test_the_table_runs_from_top_to_bottom():
    order = list(MAY_IMPORT)
    for part, above in MAY_IMPORT.items():
        assert above <= {*order[: order.index(part)]}, part


def test_every_part_is_in_the_table():
    parts = {p.parent.name for p in ROOT.glob("*/__init__.py")} | {p.stem for p in ROOT.glob("*.py")}
    assert parts - set(MAY_IMPORT) == {"cli", "__init__", "__main__"}


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
            ("autoseg.proxy.task", ["torch", "mmseg"]),
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
from autoseg.proxy.task import ProxyTask
proxy = ProxyConfig(iters=1, batch_size=2, size=[64, 64], crop=32)
model = compose("search", SearchConfig, ["model=tiny"]).model
task = ProxyTask(DataConfig(count=[8, 2, 2]), model, proxy, ("miou",))
print(0 <= task(build_loss("ce", num_classes=7), 0)["miou"] <= 1)
unwanted = ("torch._dynamo", "torch._inductor", "torch.distributed.fsdp", "sympy", "kornia", "timm",
    "scipy.ndimage", "scipy.optimize", "transformers")
print([name for name in unwanted if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True", "[]"]
