"""(logits, labels) to one finite scalar, for every hand-made loss; one registry for all losses.

* `base`: what a hand-made loss is, handed one checked `batch`; a file for each kind: `pixelwise`, `region`, `lovasz`,
  `jdt`, `lmp`, `smoothing`, `boundary` and `shape` (with `distances`), `ssim`;
* `build`: the text a user writes (`expression`) to a loss: by its name, a sum, or as `named` has it: a `card`, a
  published surrogate, identity curves. `searched` is what a θ means where it also sets weights and options;
* `compiling`, `late`, `ranks`, `frequency`: a loss compiled, before the classes are known, over GPUs; class weights.
"""

from __future__ import annotations

from autoseg.losses.base import SegLoss, TakesExtra
from autoseg.losses.build import LossSum, build_loss, describe, loss_names, own_losses, register_loss
from autoseg.losses.card import LossCard, save_loss
from autoseg.losses.compiling import compiled_loss
from autoseg.losses.frequency import class_weights
from autoseg.losses.named import load_loss
from autoseg.losses.searched import SearchedLoss, searched_loss

__all__ = [
    "LossCard", "LossSum", "SearchedLoss", "SegLoss", "TakesExtra", "build_loss", "class_weights", "compiled_loss",
    "describe", "load_loss", "loss_names", "own_losses", "register_loss", "save_loss", "searched_loss",
]  # fmt: skip
