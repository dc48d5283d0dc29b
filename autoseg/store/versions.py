"""Which versions of the packages that scores depend on are installed."""

from __future__ import annotations

from importlib.metadata import version

PACKAGES = ("autoseg", "torch", "onedl-mmsegmentation")


def versions() -> dict[str, str]:
    """Package to version, without importing any of them."""
    return {name: version(name) for name in PACKAGES}


def describe_versions(versions: object) -> str:
    """In words; "not recorded" if there are none, or what a file has for them is of another kind."""
    if not isinstance(versions, dict):
        return "not recorded"
    return ", ".join(f"{name} {number}" for name, number in versions.items()) or "not recorded"
