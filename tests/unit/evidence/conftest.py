from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import toy_runs


@pytest.fixture(scope="session")
def toys() -> Iterator[Path]:
    """A folder, in memory where the system has that: databases that are written safely wait for the disk."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def search_run(toys: Path) -> Path:
    """A finished search in which one training diverged; not to be changed."""
    toy_runs.search(toys / "search", toy_runs.Fragile())
    return toys / "search"


@pytest.fixture(scope="session")
def comparison_run(toys: Path) -> Path:
    """A finished comparison of three losses with predictions; not to be changed."""
    toy_runs.compare(toys / "comparison")
    return toys / "comparison"
