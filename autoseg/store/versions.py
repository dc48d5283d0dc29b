"""Versions of the installed packages that scores depend on."""

from __future__ import annotations

from importlib.metadata import version

PACKAGES = ("autoseg", "torch", "onedl-mmsegmentation")


def versions() -> dict[str, str]:
    """Return the version of each package, without importing any of them."""
    return {name: version(name) for name in PACKAGES}


def describe_versions(versions: object) -> str:
    """Format versions as text; "not recorded" if there are none, or the file's value has another type."""
    if not isinstance(versions, dict):
        return "not recorded"
    return ", ".join(f"{name} {number}" for name, number in versions.items()) or "not recorded"
