"""Imports what commands import: on a slow machine that takes longer than all that most of them do in a test."""

from __future__ import annotations

import gc
import importlib

import torch

for name in (
    "alembic.runtime.migration",
    "matplotlib.backends.backend_agg",
    "mmseg.models",
    "optuna.storages",
    "torch.utils.tensorboard",
    "autoseg.cli.jobs.compare",
    "autoseg.cli.jobs.retrain",
    "autoseg.cli.jobs.search",
    "autoseg.cli.jobs.trust",
    "autoseg.evidence.drawn",
    "autoseg.evidence.report",
):
    importlib.import_module(name)

torch.set_num_threads(1)  # the processes of a test run share the cores
gc.freeze()  # what has been imported stays
