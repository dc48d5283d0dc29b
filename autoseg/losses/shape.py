"""A shape prior: compares masks by the codes of a small autoencoder that is trained on the labels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoseg.errors import InputError
from autoseg.losses.base import SegLoss, check_id_maps, check_range
from autoseg.losses.batch import Batch
from autoseg.optimizers import PlainAdam

WIDTHS = (16, 32)  # channels of the encoder's first layers
STRIDE = 8  # stride of the code, in pixels
BATCH, RATE = 8, 3e-3  # batch size and learning rate of the autoencoder's training


class ShapePrior(SegLoss):
    """Cross-entropy plus weight |E(p) - E(y)|², E the encoder of an autoencoder of label masks (Oktay et al., eq. 2).

    E is learnt once from the labels and then fixed: three strided convolutions, so that it works at any size and on
    crops. Its code is smaller than the masks, so that it has room only for how the labels' shapes differ: an object
    that is too large, displaced or missing changes the code much, as many stray pixels change it little. The distance
    is a mean over positions and channels, in units of the code's variance over the labels.
    Without `extra` the encoder is learnt from the first batch's labels and used from then on.

    Args:
        num_classes: C.
        weight: weight of the distance added to the cross-entropy.
        code: channels of the code; one position codes 8x8 pixels.
        steps: steps of the autoencoder's training, about 10 ms each on a CPU.
        common: options of `SegLoss`.
    """

    name = "shape_prior"
    summary = "cross-entropy plus a distance between codes of a small mask autoencoder, learnt from the labels"
    source = "Oktay et al., IEEE TMI 2018, arXiv 1705.08119"
    extra_keys = ("shape_encoder",)
    rank_local = True  # if it learns from the first batch, every rank has its own encoder

    def __init__(
        self, num_classes: int, *, weight: float = 0.1, code: int = 8, steps: int = 200, **common: Any
    ) -> None:
        super().__init__(num_classes, **common)
        self.weight = check_range("weight", weight, 0, math.inf)
        for field, value in (("code", code), ("steps", steps)):
            if value < 1:
                raise InputError(field, "a positive whole number", value)
        self.code, self.steps = code, steps
        self._own: dict[str, Tensor] = {}

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the encoder's weights and biases, in order, and of the code's scale."""
        wide = (self.num_classes, *WIDTHS, self.code)
        layers: list[tuple[int, ...]] = []
        for into, out in pairwise(wide):
            layers += [(out, into, 3, 3), (out,)]
        return [*layers, (1,)]

    def prepare(self, labels: Tensor) -> dict[str, Tensor]:
        """Return `shape_encoder` (K,) float32: the encoder's weights, learnt from random crops of the labels.

        Seeded.
        """
        check_id_maps(labels)
        return {"shape_encoder": _learn(self, labels)}

    def _extra(self, batch: Batch, labels: Tensor, extra: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        if extra is None:
            self._own = self._own or self.prepare(labels.detach().cpu())
        return super()._extra(batch, labels, self._own if extra is None else extra)

    def compute(self, batch: Batch) -> Tensor:
        """Return the mean cross-entropy in nats, plus the weighted distance."""
        *weights, scale = self.unflatten(batch.extra["shape_encoder"])
        apart = encode(batch.probs(), weights) - encode(batch.target(), weights)
        return batch.mean(batch.cross_entropy()) + self.weight * apart.square().mean() / scale.square().squeeze()

    def unflatten(self, flat: Tensor) -> list[Tensor]:
        """Split `shape_encoder` into the encoder's weights, biases and scale.

        Raises:
            InputError: it was made for other options or another number of classes.
        """
        sizes = [math.prod(shape) for shape in self.shapes]
        if flat.numel() != sum(sizes):
            hint = "Pass what this loss's own prepare(labels) returned."
            raise InputError("extra of shape_prior", f"{sum(sizes)} numbers", flat.numel(), hint)
        parts = flat.flatten().split(sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]


def encode(masks: Tensor, weights: list[Tensor]) -> Tensor:
    """Return the code of (N, C, H, W) masks, (N, code, ⌈H/8⌉, ⌈W/8⌉); `weights` are kernel, bias, kernel, bias, …."""
    for kernel, bias in zip(weights[0::2], weights[1::2], strict=True):
        masks = F.conv2d(masks, kernel, bias, stride=2, padding=1)
        if kernel is not weights[-2]:
            masks = F.relu(masks)
    return masks


def _learn(loss: ShapePrior, labels: Tensor) -> Tensor:
    """Train an autoencoder on masks; return its encoder and the code's standard deviation, flat."""
    labels = labels.clone() if labels.is_inference() else labels
    crop = max(STRIDE, min(64, *(side - side % STRIDE for side in labels.shape[-2:])))
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
        torch.manual_seed(0)
        encoder, decoder = _autoencoder(loss)
        optimizer = PlainAdam([*encoder.parameters(), *decoder.parameters()], lr=RATE)
        for _ in range(loss.steps):
            ids = _crops(labels, crop)
            masks, valid = _one_hot(ids, loss)
            value = (F.cross_entropy(decoder(encoder(masks)), ids.where(valid, 0), reduction="none") * valid).sum()
            optimizer.zero_grad()
            (value / valid.sum().clamp(min=1)).backward()
            optimizer.step()
        with torch.no_grad():
            scale = encoder(_one_hot(_crops(labels, crop), loss)[0]).std(correction=0).clamp(min=1e-3)
        return torch.cat([*(weight.detach().flatten() for weight in encoder.parameters()), scale.view(1)])


def _autoencoder(loss: ShapePrior) -> tuple[nn.Sequential, nn.Sequential]:
    """Return the encoder that `encode` evaluates, and the decoder, its mirror image."""
    down, up = (loss.num_classes, *WIDTHS, loss.code), (loss.code, *reversed(WIDTHS), loss.num_classes)
    encoder = [m for a, b in pairwise(down) for m in (nn.Conv2d(a, b, 3, 2, 1, dtype=torch.float32), nn.ReLU())]
    decoder = [m for a, b in pairwise(up) for m in (nn.ConvTranspose2d(a, b, 4, 2, 1, dtype=torch.float32), nn.ReLU())]
    return nn.Sequential(*encoder[:-1]), nn.Sequential(*decoder[:-1])


def _crops(labels: Tensor, crop: int) -> Tensor:
    """Return (BATCH, crop, crop) int64 random crops of the labels, -1 beyond the edge of smaller ones."""
    found = []
    for row in torch.randint(len(labels), (BATCH,), device="cpu").tolist():
        height, width = labels.shape[-2:]
        top, left = (int(torch.randint(max(1, side - crop + 1), (), device="cpu")) for side in (height, width))
        piece = labels[row, top : top + crop, left : left + crop].long()
        found.append(F.pad(piece, (0, crop - piece.shape[1], 0, crop - piece.shape[0]), value=-1))
    return torch.stack(found)


def _one_hot(ids: Tensor, loss: ShapePrior) -> tuple[Tensor, Tensor]:
    """Return (N, C, H, W) float32 masks, zero where ignored or padded, and (N, H, W) bool of the other pixels."""
    valid = (ids >= 0) & (ids < loss.num_classes) & (ids != loss.ignore_index)
    masks = F.one_hot(ids.where(valid, 0), loss.num_classes).movedim(-1, 1) * valid[:, None]
    return masks.float(), valid
