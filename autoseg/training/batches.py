"""The stream of training batches: the same for every loss trained with the same seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from autoseg.data import Augment
from autoseg.data.augment import Numbers
from autoseg.training.frozen import Stored
from autoseg.training.models import Features

Batch = tuple[Tensor | Features, Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class Drawn:
    """The random numbers of n iterations, on the training device, one row each."""

    picked: Tensor  # (n, B) int64, places among the rows trained on
    index: Tensor  # (n, B) int64, those of the images
    numbers: Numbers  # draws of the augmentation, n batches


class Batches:
    """Augmented batches of a data set held as two uint8 tensors, drawn from the seed alone.

    Every pass over the images has its own random order; a batch may reach from one pass into the next. Loss,
    model and device have no influence on the draws, so all candidates of a search see the same pixels.

    Args:
        images: (N, 3, H, W) uint8, on the training device (or memory-mapped, for the CPU).
        labels: (N, H, W) uint8, there too; or (N, R, H, W), one per annotator.
        rows: (M,) int64 CPU indices of the images to train on.
        augment: scale, crop, flip, colours.
        extra: what `loss.prepare` returned for the labels of `rows`: maps (M, K, H, W), which are cropped and
            flipped with the images, and constants of any other shape.
        seed: seed of all draws.
        iters: number of batches.
        batch_size: images per batch.
        sizes: (N, 2) int64, height and width of each image without its padding at the right and bottom, from where
            no crops are taken; None: no padding.

    Attributes:
        stored: a frozen backbone's features of exactly these batches, yielded instead of images; None: images.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        rows: Tensor,
        augment: Augment,
        *,
        extra: Mapping[str, Tensor],
        seed: int,
        iters: int,
        batch_size: int,
        sizes: Tensor | None = None,
    ) -> None:
        self.stored: Stored | None = None
        self.images, self.labels, self.rows, self.augment = images, labels, rows, augment
        self.extra = {key: value.to(images.device) for key, value in extra.items()}
        self.sizes = torch.tensor(images.shape[-2:]).expand(len(images), 2) if sizes is None else sizes
        self.generator = torch.Generator().manual_seed(seed)
        passes = -(-iters * batch_size // len(rows))
        order = [torch.randperm(len(rows), generator=self.generator) for _ in range(passes)]
        self.order = torch.cat(order)[: iters * batch_size].view(iters, batch_size)

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        """Yield images (B, 3, crop, crop) float32 or their features, labels (B, [R,] crop, crop) int64, and extras."""
        drawn = self.drawn(0, len(self))
        for iteration, place in enumerate(torch.arange(len(self), device=self.images.device).split(1)):
            yield self.batch(drawn, place, iteration)

    def drawn(self, first: int, last: int) -> Drawn:
        """Draw everything that iterations first, ..., last - 1 need from the host, and move it to the device in one
        transfer.

        A transfer in every iteration would wait for the device. Afterwards `generator` is where iteration `last`
        begins.
        """
        order, device = self.order[first:last], self.images.device
        index, frame = self.rows[order], (self.images.shape[-2], self.images.shape[-1])
        numbers = self.augment.numbers(self.sizes[index], frame, self.generator)
        return Drawn(order.to(device), index.to(device), numbers.to(device))

    def batch(self, drawn: Drawn, place: Tensor, iteration: int) -> Batch:
        """Return one batch: inputs, labels and extras, as `__iter__` yields them.

        Args:
            drawn: from `drawn`.
            place: (1,) int64 on the device, the row of `drawn`.
            iteration: number of the iteration; only used to read stored features.
        """
        index = drawn.index.index_select(0, place)[0]
        draw = self.augment.placed(drawn.numbers, place)
        extra = {
            key: self.augment.nearest(value[drawn.picked.index_select(0, place)[0]], draw, outside=0.0)
            if value.ndim == 4
            else value
            for key, value in self.extra.items()
        }
        stored = self.stored
        inputs = self.augment.images(self.images[index], draw) if stored is None else stored.batch(iteration)
        return inputs, self.augment.nearest(self.labels[index], draw).long(), extra
