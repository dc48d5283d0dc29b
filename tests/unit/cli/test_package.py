"""What is installed is what is here."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def listed() -> dict[str, Path]:
    """Package name to folder, as pyproject.toml has it."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    moved = tools["package-dir"]
    return {name: ROOT / moved.get(name, name.replace(".", "/")) for name in tools["packages"]}


def test_every_package_is_listed():
    here = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "autoseg").rglob("*.py")}
    assert here | {"autoseg.conf", "autoseg.search_spaces"} == set(listed())


def test_every_listed_package_exists():
    assert all((folder / "__init__.py").is_file() for folder in listed().values())


def test_every_yaml_file_is_package_data():
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert "**/*.yaml" in tools["package-data"]["*"]
    for folder in ("configs", "search_spaces"):
        assert list((ROOT / folder).rglob("*.yaml")), f"{folder} is empty"
