"""What is installed is what is here."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


def settings() -> dict[str, Any]:
    """What pyproject.toml tells setuptools."""
    tools: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    return dict(tools["setuptools"])


def listed() -> dict[str, Path]:
    """Package name to folder, as pyproject.toml has it."""
    moved = settings()["package-dir"]
    return {name: ROOT / moved.get(name, name.replace(".", "/")) for name in settings()["packages"]}


def test_commands_rest_on_jobs_and_jobs_on_configurations():
    beside = {"configuration": {"configuration"}, "jobs": {"configuration", "jobs", "faults", "outlasting"}}
    for room, allowed in beside.items():
        for file in (ROOT / "autoseg/cli" / room).glob("*.py"):
            named = [
                f"{node.module}.{alias.name}"
                for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
                if isinstance(node, ast.ImportFrom)
                for alias in node.names
            ]
            taken = {name.split(".")[2] for name in named if name.startswith("autoseg.cli.")}
            assert taken <= allowed, f"{room}/{file.name} imports {sorted(taken - allowed)}"


def test_every_package_is_listed():
    here = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "autoseg").rglob("*.py")}
    assert here | {"autoseg.configs", "autoseg.search_spaces"} == set(listed())


def test_every_other_file_is_package_data():
    """Settings, C++ sources and the report's page are installed too."""
    data = settings()["package-data"]
    for package, folder in listed().items():
        patterns = [*data["*"], *data.get(package, [])]
        here = {file for file in folder.iterdir() if file.is_file() and file.suffix not in (".py", ".pyc")}
        left = here - {file for pattern in patterns for file in folder.glob(pattern)}
        assert not left, f"{package} would lack {sorted(file.name for file in left)}"
    below = {file.suffix for folder in ("configs", "search_spaces") for file in (ROOT / folder).rglob("*.*")}
    assert below <= {".yaml", ".pyc"}
