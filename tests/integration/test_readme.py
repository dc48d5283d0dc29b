"""The Python of README, docs/metrics.md and docs/losses.md runs as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def blocks_of(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)


LOSSES = blocks_of("docs/losses.md")
ABOUT_LOSSES = f"""
import torch

logits, labels = torch.randn(2, 21, 24, 32, requires_grad=True), torch.randint(21, (2, 24, 32))
{"".join(LOSSES)}
own = autoseg.build_loss("0.5*poly(epsilon=2)+lovasz", num_classes=21)(logits, labels)
own.backward()
assert all(torch.isfinite(one).all() for one in (value, own, logits.grad))
"""
BLOCKS = [*blocks_of("README.md"), *blocks_of("docs/metrics.md"), ABOUT_LOSSES]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_runs(number: int, tmp_path: Path) -> None:
    script = tmp_path / "block.py"
    script.write_text(BLOCKS[number])
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr


def test_there_are_blocks() -> None:
    assert len(BLOCKS) == 7 and len(LOSSES) == 3
