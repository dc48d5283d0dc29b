"""Every process of a run imports mmsegmentation as a search's worker does, without timm and FSDP: half the time."""

from __future__ import annotations

from autoseg.training.models import model_registry

model_registry()  # before any test file imports a part of it, which would bring those along
