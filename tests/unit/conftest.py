"""What would take each process of a run longest if it were left as it is."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from short_proxy import short_proxy

from autoseg.proxy.task import ProxyTask
from autoseg.training.models import model_registry

# As a search's worker imports mmsegmentation, without timm and FSDP: half the time. Before any test file imports a
# part of it, which would bring those along.
model_registry()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A test draws the same numbers by itself as among others."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def migrations_read_once() -> Iterator[None]:
    """Optuna executes its ten migration scripts for every database that it opens or makes, a tenth of a toy search."""
    from alembic.script import ScriptDirectory

    read, kept = ScriptDirectory.from_config, {}

    def from_config(config: Any) -> ScriptDirectory:
        place = config.get_main_option("script_location")
        return kept.get(place) or kept.setdefault(place, read(config))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", from_config)
        yield


@contextmanager
def in_memory() -> Iterator[Path]:
    """A new folder, in memory where the system has that: databases that are written safely wait for the disk."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def quick_path() -> Iterator[Path]:
    with in_memory() as path:
        yield path


@pytest.fixture(scope="module")
def kept_path() -> Iterator[Path]:
    """As `quick_path`, for what several tests read."""
    with in_memory() as path:
        yield path


@pytest.fixture
def task(tmp_path: Path) -> ProxyTask:
    return short_proxy(tmp_path)
