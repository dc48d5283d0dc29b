"""(logits, labels) to one finite scalar, for every hand-made loss; one registry for all losses.

* `base`: what a hand-made loss is, handed one checked `batch`; a file for each kind: `pixelwise`, `region`, `lovasz`,
  `jdt`, `lmp`, `smoothing`, `boundary` and `shape` (with `distances`), `ssim`;
* `registry` has them by name; `sums` adds up losses, `searched` is what a θ means, also where it sets weights and
  options, and a `card` keeps it;
* `build`: the text a user writes (`expression`) to any of these, published surrogates and identity curves;
* `compiling`, `late`, `ranks`, `frequency`: a loss compiled, before the classes are known, over GPUs; class weights.
"""

from __future__ import annotations

from autoseg.losses.base import SegLoss
from autoseg.losses.build import build_loss, check_text, load_loss
from autoseg.losses.card import LossCard, save_loss
from autoseg.losses.compiling import compiled_loss
from autoseg.losses.frequency import class_weights
from autoseg.losses.ranks import sync_counts
from autoseg.losses.registry import loss_names, own_losses, register_loss
from autoseg.losses.searched import SearchedLoss, searched_loss
from autoseg.losses.sums import LossSum

__all__ = [
    "LossCard", "LossSum", "SearchedLoss", "SegLoss", "build_loss", "check_text", "class_weights", "compiled_loss",
    "load_loss", "loss_names", "own_losses", "register_loss", "save_loss", "searched_loss",
    "sync_counts",
]  # fmt: skip
