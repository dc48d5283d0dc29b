"""Run folders as an earlier version would have left them: without the keys that came later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

LATER = [
    "proxy.warmup", "proxy.backbone", "proxy.frozen_gb", "proxy.cuda_graph", "proxy.soft",
    "imports", "search.pruner", "search.rungs", "search.pruner_options", "interval", "train.clip_grad",
]  # fmt: skip


def make_older(run: Path) -> None:
    """Take the keys of `LATER` out of a run's configuration and fingerprint."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert any([_drop(config, key) for key in LATER])
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    if (run / "fingerprint.json").exists():
        fixed = json.loads((run / "fingerprint.json").read_text())
        assert any([_drop(fixed, key) for key in LATER])
        (run / "fingerprint.json").write_text(json.dumps(fixed))


def _drop(tree: dict[str, Any], key: str) -> bool:
    """Take a dotted key out of nested or flat data; returns whether it was there."""
    head, _, leaf = key.rpartition(".")
    section = tree.get(head) if head in tree else tree
    name = leaf if head in tree else key
    return section.pop(name, ...) is not ...
