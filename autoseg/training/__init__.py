"""Training and evaluation: one network, one loop, one evaluator, for proxies and comparisons.

The plain path, in the order in which a training goes through it; read these and you know what a training computes:

* `models`: an mmsegmentation config becomes a `Segmentor`, a function from images to logits (`imports` keeps that
  import small, `weights` and `checkpoint` read files of weights without executing them, `resize` upsamples logits);
* `batches`: the stream of augmented batches, drawn from the seed alone;
* `targets`: what the labels of a batch become (`proxy.labels`: as they are, smoothed, a teacher's ...);
* `loop`: forward, loss, backward, step; `schedule` is its optimiser and learning rate, `precision` its number format,
  threads and seeds, `state` a copy of it that another process can go on from;
* `evaluate`: whole images to exact metrics.

Two options save work and change nothing else: `frozen` (`proxy.backbone=frozen`) stores what a fixed backbone makes of
the batches, and `replay` (`proxy.cuda_graph`) has a GPU repeat a captured iteration.

The fast path is for a CPU alone. There, most of an iteration of a small network goes into passing over its maps, and
these modules pass over them less often; each computes the same function as the layers of torch, with their parameters:

* `pointwise`, `depthwise`: 1x1 and dilated depthwise convolutions in other operations of torch;
* `normalization`: batch norm and the activation after it in one go, in C++ (`normalization.cpp`);
* `chain`: convolution, norm, activation, convolution ... in one call of C++. A `Link` is one convolution with its norm
  and activation. `chain.cpp` goes from link to link; a convolution itself is in `pointwise.cpp`, `depthwise.cpp` or
  `dense.cpp` (3x3, by Winograd's method: `winograd.h`). `links.h` says what these three promise, `maps.h` is
  batch norm and maps in vectors of 8 channels, `products.h` the matrix product;
* `blocks`: the blocks of mmsegmentation that are such chains: ConvModule, inverted residual, separable convolution;
* `native`: builds the C++ with the user's compiler when it is first needed, and calls it.

Who decides: `models.speed_up`, once after a network is built, gives every layer and block that `suits` (by its kind and
settings) the class of its fast twin; state dicts stay as they were. At every call the twin looks whether its maps are
`usable` (on the CPU, float32, channels-last, a compiler at hand, no autocast); where they are not, it does what the
layer of torch does. So on a GPU, in half precision and without a compiler a network is torch's, without any option.

That both paths are equal is tested in `tests/unit/training`: each layer, chain and block against torch's in double
precision, value, gradients and running statistics (`test_pointwise`, `test_depthwise`, `test_normalization`,
`test_chain`), and whole networks with and without `speed_up` (`test_blocks`).
"""

from autoseg.training.batches import Batches
from autoseg.training.evaluate import View, evaluate, predict
from autoseg.training.loop import Training, train
from autoseg.training.models import Segmentor, build_model
from autoseg.training.targets import Targets, build_targets, check_loss
from autoseg.training.weights import save_network

__all__ = [
    "Batches", "Segmentor", "Targets", "Training", "View",
    "build_model", "build_targets", "check_loss", "evaluate", "predict", "save_network", "train",
]  # fmt: skip
