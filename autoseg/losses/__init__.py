"""Hand-made losses, each from (logits, labels) to one finite scalar, and one registry for all losses.

* `base`: the base class of hand-made losses, which get a checked `batch`; a file for each kind: `pixelwise`, `region`,
  `lovasz`, `jdt`, `lmp`, `smoothing`, `boundary` and `shape` (with `distances`), `ssim`;
* `registry` has them by name; `sums` adds up losses, `searched` builds the loss of a θ, also if it sets weights and
  options, and a `card` stores it;
* `build`: turns text (`expression`) into any of these, published surrogates and identity curves;
* `compiling`: compiles a loss; `late`: a loss before the classes are known; `ranks`: losses over several GPUs;
  `frequency`: class weights.
"""

from __future__ import annotations

from autoseg.losses.base import SegLoss
from autoseg.losses.batch import Batch
from autoseg.losses.build import Loss, build_loss, check_text, load_loss
from autoseg.losses.card import LossCard, save_loss
from autoseg.losses.compiling import compiled_loss
from autoseg.losses.frequency import class_weights
from autoseg.losses.own import check_own_losses
from autoseg.losses.ranks import sync_counts
from autoseg.losses.registry import loss_names, own_losses, register_loss
from autoseg.losses.searched import SearchedLoss, searched_loss
from autoseg.losses.sums import LossSum

__all__ = [
    "Batch", "Loss", "LossCard", "LossSum", "SearchedLoss", "SegLoss", "build_loss", "check_own_losses", "check_text",
    "class_weights", "compiled_loss", "load_loss", "loss_names", "own_losses", "register_loss", "save_loss",
    "searched_loss", "sync_counts",
]  # fmt: skip
