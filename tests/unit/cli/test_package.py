"""What is installed is what is here."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def listed() -> dict[str, Path]:
    """Package name to folder, as pyproject.toml has it."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    moved = tools["package-dir"]
    return {name: ROOT / moved.get(name, name.replace(".", "/")) for name in tools["packages"]}


def test_commands_rest_on_jobs_and_jobs_on_configurations():
    beside = {"configuration": {"configuration"}, "jobs": {"configuration", "jobs", "faults"}}
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


def test_every_listed_package_exists():
    assert all(any(folder.iterdir()) for folder in listed().values())


def test_every_yaml_file_is_package_data():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert "**/*.yaml" in tools["package-data"]["*"]
    for folder in ("configs", "search_spaces"):
        assert list((ROOT / folder).rglob("*.yaml")), f"{folder} is empty"
