"""The evaluator: whole images in, exact metrics out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoseg.data import normalize
from autoseg.errors import Diverged
from autoseg.metrics import Metric, MetricSum, update_all
from autoseg.training.frozen import Stored
from autoseg.training.models import Features
from autoseg.training.precision import Precision

STRIDE = 32  # networks take images whose sides are its multiples

Evaluated = Metric | MetricSum


@dataclass(frozen=True)
class View:
    """Whole images, at their stored size, as a network gets them.

    Padding that no image fills is cut off. What is left, of smaller images, is shown but not scored: it is not part of
    the data, and boundary metrics count predictions in void. So an image's last row before padding is its border, as
    without padding, and not a label edge.
    """

    images: Tensor  # (N, 3, H, W) uint8, on the device or memory-mapped for the CPU
    rows: Tensor  # (M,) int64 CPU indices of the images to show
    precision: Precision  # number format and layout, as in training
    mean: Sequence[float]  # RGB, 0..255, subtracted from the images
    std: Sequence[float]  # RGB, by which the images are then divided
    batch_size: int  # images at a time
    # the frozen backbone's features of exactly these images, used instead of them; or None
    stored: Stored | None = None
    # (N, 2) integer CPU: height and width of each image without padding, at the top left; None: no padding
    sizes: Tensor | None = None

    @property
    def frame(self) -> tuple[int, int]:
        """Height and width of what the network gets: of the largest image, rounded up to what networks can take."""
        height, width = self.images.shape[-2:]
        if self.sizes is None:
            return height, width
        tallest, widest = self.sizes.amax(dim=0).tolist()  # of all images, so that `rows` do not matter
        return min(height, -(-tallest // STRIDE) * STRIDE), min(width, -(-widest // STRIDE) * STRIDE)

    def inputs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield indices and (N, 3, *frame) normalised images, batch by batch."""
        height, width = self.frame
        for index in self.rows.to(self.images.device).split(self.batch_size):
            yield index, normalize(self.images[index, :, :height, :width], self.mean, self.std)

    def logits(self, model: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield indices and (N, C, *frame) float32 logits, batch by batch.

        Args:
            model: images (N, 3, H, W) float to a list of logits whose first is the main one. It is in evaluation mode
                meanwhile, and in its previous mode afterwards.
        """
        training = model.training
        model.to(memory_format=self.precision.layout).eval()
        for index, batch in self.inputs() if self.stored is None else self._kept(self.stored):
            with self.precision.autocast():
                logits = model(batch.to(memory_format=self.precision.layout))[0]
            yield index, logits.float()
        model.train(training)

    def _kept(self, stored: Stored) -> Iterator[tuple[Tensor, Features]]:
        for number, index in enumerate(self.rows.to(self.images.device).split(self.batch_size)):
            yield index, stored.scored(number)

    def scored(self, start: int, count: int) -> Iterator[tuple[slice, int, int]]:
        """Yield slices of neighbouring images of one size, with that size, among the `count` images from `rows[start]`
        on.
        """
        height, width = self.images.shape[-2:]
        rows = self.rows[start : start + count]
        sizes = [(height, width)] * count if self.sizes is None else [(h, w) for h, w in self.sizes[rows].tolist()]
        first = 0
        for (height, width), those in groupby(sizes):
            last = first + len(list(those))
            yield slice(first, last), height, width
            first = last


def evaluate(model: nn.Module, view: View, labels: Tensor, metrics: Mapping[str, Evaluated]) -> dict[str, float]:
    """Score a network on whole images.

    Args:
        model: as `View.logits` takes it.
        view: the images.
        labels: (N, H, W) uint8, on the device of the images.
        metrics: metrics by name; they are updated, not reset. Those with `needs_probs` get softmax probabilities
            (N, C, H, W) float32 through `update_probs` instead of classes.

    Returns:
        A score per metric, in 0..1 for the paper's; NaN where nothing could be counted.

    Raises:
        Diverged: a logit is not finite, as happens with finite but huge weights.
    """
    start = 0
    with torch.inference_mode():
        for index, logits in view.logits(model):
            if not bool(logits.amax(1).isfinite().all()):  # a class may be masked by -inf
                raise Diverged("a logit of the trained network is not finite")
            truth = labels[index].long()
            for some, height, width in view.scored(start, len(truth)):
                shown = truth[some, :height, :width].contiguous()  # an own metric may view labels as it likes
                _update(metrics.values(), logits[some, :, :height, :width], shown)
            start += len(truth)
    return {name: float(metric.compute()) for name, metric in metrics.items()}


def predict(model: nn.Module, view: View) -> Tensor:
    """Return the predicted classes of the images of a view, (M, H, W) uint8 on the CPU; 0 where nothing is shown."""
    (height, width), (shown_height, shown_width) = view.images.shape[-2:], view.frame
    with torch.inference_mode():
        found = torch.cat([logits.argmax(1).to("cpu", torch.uint8) for _, logits in view.logits(model)])
    return F.pad(found, (0, width - shown_width, 0, height - shown_height))


def _update(metrics: Iterable[Evaluated], logits: Tensor, labels: Tensor) -> None:
    of_probs = [metric for metric in metrics if getattr(metric, "needs_probs", False)]
    if of_probs:
        probs = logits.softmax(1)
        for metric in of_probs:
            metric.update_probs(probs, labels)  # type: ignore[union-attr]
    pred = logits.max(1).indices  # argmax(1), three times as fast on a CPU
    update_all([metric for metric in metrics if metric not in of_probs], pred, labels)
