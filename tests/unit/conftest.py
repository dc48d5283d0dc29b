"""What would take each process of a run longest if it were left as it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from autoseg.training.models import model_registry

# As a search's worker imports mmsegmentation, without timm and FSDP: half the time. Before any test file imports a
# part of it, which would bring those along.
model_registry()


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
