"""Training and evaluation: one network, one loop, one evaluator, for proxies and comparisons.

The modules in the order in which a training uses them; read these to know what a training computes:

* `network_config`: what an mmsegmentation config says of a network, adapted to our data; `models` builds a `Segmentor`
  of it, a function from images to logits (`stand_ins` keep that import small, `weights` and `checkpoint` read files of
  weights without executing them, `resize` upsamples logits);
* `batches`: the stream of augmented batches, drawn from the seed alone;
* `targets`: turns a batch's labels into targets (`proxy.labels`: unchanged, smoothed, a teacher's ...);
* `loop`: forward, loss, backward, step; `schedule` is its optimiser and learning rate, `precision` its number format,
  threads and seeds, `state` a copy of its state that another process can go on from;
* `evaluate`: whole images to exact metrics.

Two modules save work and change no result: `frozen` stores the features that a fixed backbone computes from the batches
(`proxy.backbone=frozen`, which itself is another training), `cuda_graph` (`proxy.cuda_graph`) replays a captured
iteration on a GPU.

`layers/` has the layers of small networks, faster on a CPU; `models` inserts them, and no other module uses them.
"""

from autoseg.training.batches import Batches
from autoseg.training.evaluate import View, evaluate, predict
from autoseg.training.loop import Training
from autoseg.training.models import Segmentor, build_model, check_crop, check_scored
from autoseg.training.targets import Targets, build_targets, check_loss
from autoseg.training.weights import save_network

__all__ = [
    "Batches", "Segmentor", "Targets", "Training", "View",
    "build_model", "build_targets", "check_crop", "check_loss", "check_scored", "evaluate", "predict", "save_network",
]  # fmt: skip
