"""A user's file with a metric, a loss and a module beside it, as tests write it."""

from __future__ import annotations

from pathlib import Path

MODULE = '''
import autoseg
import torch
from shares import BETA


@autoseg.register_metric
class F2(autoseg.Metric):
    """5 TP / (TP + FP + 4 (TP + FN))."""

    name, summary = "f2", "F-beta of areas, beta = 2"

    def sums(self, p, y, logic):
        return {
            "and": logic.total(logic.and_(p, y)), "or": logic.total(logic.or_(p, y)), "label": logic.total(y)
        }

    def scores(self, s, ratio):
        b = BETA**2
        return ratio((1 + b) * s["and"], s["or"] - s["label"] + s["and"] + b * s["label"])


@autoseg.register_loss
class Poly(autoseg.SegLoss):
    """Cross-entropy + epsilon (1 - p_y)."""

    name, summary = "poly", "cross-entropy + epsilon (1 - p_y)"

    def __init__(self, num_classes, *, epsilon=1.0, **shared):
        super().__init__(num_classes, **shared)
        self.epsilon = epsilon

    def compute(self, batch):
        nats = batch.cross_entropy()
        return batch.mean(nats + self.epsilon * (1 - torch.exp(-nats)))
'''


def write(folder: Path) -> Path:
    """Write it; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shares.py").write_text("BETA = 2.0\n")
    (folder / "my metrics.py").write_text(MODULE)
    return folder / "my metrics.py"
