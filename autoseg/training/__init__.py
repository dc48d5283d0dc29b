"""Training and evaluation: one network, one loop, one evaluator, for proxies and comparisons.

The plain path, in the order in which a training goes through it; read these and you know what a training computes:

* `models`: an mmsegmentation config becomes a `Segmentor`, a function from images to logits (`stand_ins` keep that
  import small, `weights` and `checkpoint` read files of weights without executing them, `resize` upsamples logits);
* `batches`: the stream of augmented batches, drawn from the seed alone;
* `targets`: what the labels of a batch become (`proxy.labels`: as they are, smoothed, a teacher's ...);
* `loop`: forward, loss, backward, step; `schedule` is its optimiser and learning rate, `precision` its number format,
  threads and seeds, `state` a copy of it that another process can go on from;
* `evaluate`: whole images to exact metrics.

Two options save work and change nothing else: `frozen` (`proxy.backbone=frozen`) stores what a fixed backbone makes of
the batches, and `cuda_graph` (`proxy.cuda_graph`) has a GPU repeat a captured iteration.

`layers/` has the layers of small networks faster on a CPU; `models` puts them in, and nothing else knows of them.
"""

from autoseg.training.batches import Batches
from autoseg.training.evaluate import View, evaluate, predict
from autoseg.training.loop import Training
from autoseg.training.models import Segmentor, build_model, check_crop
from autoseg.training.targets import Targets, build_targets, check_loss
from autoseg.training.weights import save_network

__all__ = [
    "Batches", "Segmentor", "Targets", "Training", "View",
    "build_model", "build_targets", "check_crop", "check_loss", "evaluate", "predict", "save_network",
]  # fmt: skip
