"""Versions of autoseg and the installed packages that scores depend on."""

from __future__ import annotations

from importlib.metadata import version

import autoseg

PACKAGES = ("torch", "onedl-mmsegmentation")


def versions() -> dict[str, str]:
    """Return the version of autoseg, which need not be installed, and of each package, without importing it."""
    return {"autoseg": autoseg.__version__, **{name: version(name) for name in PACKAGES}}


def describe_versions(versions: object) -> str:
    """Format versions as text; "not recorded" if there are none, or the file's value has another type."""
    if not isinstance(versions, dict):
        return "not recorded"
    return ", ".join(f"{name} {number}" for name, number in versions.items()) or "not recorded"
