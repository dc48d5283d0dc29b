"""Losses with distances to edges: U-Net's weights, the distance penalty and the boundary loss.

Distances are in pixels of the labels given to `prepare`; scaling an image afterwards does not rescale them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoseg.errors import InputError
from autoseg.losses import distances
from autoseg.losses.base import SegLoss, check_range
from autoseg.losses.batch import Batch


class UnetCrossEntropy(SegLoss):
    """U-Net's cross-entropy: mean over valid pixels of w l with w = 1 + w0 exp(-(d1 + d2)^2 / (2 sigma^2)).

    d1 and d2 are the distances to the two nearest cells (connected components of a class), so that the thin
    gaps between cells weigh most (Ronneberger et al. 2015, eq. 2; its class weight w_c is 1 here).

    Args:
        num_classes: C.
        w0: added weight of a gap of width 0.
        sigma: how far the weight of a gap reaches, in pixels.
        background: the class that has no cells; None if every class has cells.
        common: options of `SegLoss`.
    """

    name = "unet_ce"
    summary = "cross-entropy with heavy weights in the gaps between neighbouring objects"
    source = "Ronneberger et al., MICCAI 2015, arXiv 1505.04597"
    extra_keys = ("unet_weight",)

    def __init__(
        self, num_classes: int, *, w0: float = 10.0, sigma: float = 5.0, background: int | None = 0, **common: Any
    ) -> None:
        super().__init__(num_classes, **common)
        self.w0 = check_range("w0", w0, 0, math.inf)
        self.sigma = check_range("sigma", sigma, 0, math.inf, open_low=True)
        if background is not None and background not in range(num_classes):
            raise InputError("background", f"a class id in [0, {num_classes}), or None", background)
        self.background = background

    def prepare(self, labels: Tensor) -> dict[str, Tensor]:
        """Return `unet_weight` (N, 1, H, W), the pixels' weights w."""
        return {"unet_weight": distances.per_image(self.name, labels, self._weights)}

    def extra_shapes(self, batch: Batch) -> dict[str, tuple[int, ...]]:
        """Return the shape of one weight per pixel."""
        return {"unet_weight": batch.valid[:, None].shape}

    def _weights(self, labels: distances.IntMap) -> distances.FloatMap:
        reach_px = 6 * self.sigma  # beyond it the weight differs from 1 by less than w0 exp(-18)
        first, second = distances.two_nearest_cells(labels, self.background, self.ignore_index, reach_px)
        return (1 + self.w0 * np.exp(-((first + second) ** 2) / (2 * self.sigma**2)))[None]

    def compute(self, batch: Batch) -> Tensor:
        """Return the mean over the valid pixels, in nats."""
        return batch.mean(batch.extra["unet_weight"][:, 0] * batch.cross_entropy())


class DistancePenalizedCrossEntropy(SegLoss):
    """DPCE: mean over valid pixels of (1 + scale * phi) l, phi larger near the edges of the true regions.

    phi is the distance map of the pixel's own class, reverted: 1 at its edge, falling linearly towards its
    middle (`distances.closeness`); the paper's normalisation is not published, ours is to [0, 1].

    Args:
        num_classes: C.
        scale: added weight of a pixel at an edge.
        common: options of `SegLoss`.
    """

    name = "dpce"
    summary = "cross-entropy with a penalty that grows towards object edges"
    source = "Caliva et al., MIDL 2019, arXiv 1908.03679"
    extra_keys = ("closeness",)

    def __init__(self, num_classes: int, *, scale: float = 1.0, **common: Any) -> None:
        super().__init__(num_classes, **common)
        self.scale = check_range("scale", scale, 0, math.inf)

    def prepare(self, labels: Tensor) -> dict[str, Tensor]:
        """Return `closeness` (N, 1, H, W) in [0, 1]."""
        return {"closeness": distances.per_image(self.name, labels, distances.closeness, self.ignore_index)}

    def extra_shapes(self, batch: Batch) -> dict[str, tuple[int, ...]]:
        """Return the shape of one number per pixel."""
        return {"closeness": batch.valid[:, None].shape}

    def compute(self, batch: Batch) -> Tensor:
        """Return the mean over the valid pixels, in nats."""
        return batch.mean((1 + self.scale * batch.extra["closeness"][:, 0]) * batch.cross_entropy())


class Boundary(SegLoss):
    """Kervadec's boundary loss beside generalised Dice: (1 - a) GDL + a mean(p_c phi_c).

    phi_c is the signed distance to the true region of class c, negative inside, in pixels; the mean is over
    valid pixels and classes and may be negative. a rises linearly from `start` to `stop` with `set_progress`
    (the paper's rebalancing). GDL = 1 - 2 S_c w_c S(p y) / S_c w_c S(p + y), w_c = 1 / (S y_c)^2, over the
    classes that the labels have (Sudre et al. 2017, arXiv 1707.03237).

    Args:
        num_classes: C.
        start: weight a of the boundary term when training starts, in [0, 1].
        stop: weight a at its end, in [0, 1].
        common: options of `SegLoss`.
    """

    name = "boundary"
    summary = "distance-weighted regions with a rising weight, beside generalised Dice"
    source = "Kervadec et al., MIDL 2019, arXiv 1812.07032"
    extra_keys = ("signed_distance",)
    share: Tensor

    def __init__(self, num_classes: int, *, start: float = 0.01, stop: float = 1.0, **common: Any) -> None:
        super().__init__(num_classes, **common)
        self.start, self.stop = check_range("start", start, 0, 1), check_range("stop", stop, 0, 1)
        # A tensor, so that a compiled loss is not compiled again at every step.
        with torch.inference_mode(False):  # a validation may come first
            share = torch.tensor(self.start, device="cpu")
        self.register_buffer("share", share, persistent=False)

    def set_progress(self, progress: float) -> None:
        """Set the weight of the boundary term between `start` and `stop`."""
        progress = check_range("progress", progress, 0, 1)
        self.share.fill_(self.start + (self.stop - self.start) * progress)

    def prepare(self, labels: Tensor) -> dict[str, Tensor]:
        """Return `signed_distance` (N, C, H, W) in pixels."""
        made = distances.per_image(self.name, labels, distances.signed_distance, self.num_classes, self.ignore_index)
        return {"signed_distance": made}

    def extra_shapes(self, batch: Batch) -> dict[str, tuple[int, ...]]:
        """Return the shape of one distance per pixel and class."""
        return {"signed_distance": batch.logits.shape}

    def compute(self, batch: Batch) -> Tensor:
        """Return the weighted sum of both terms."""
        share, probs = self.share.to(batch.logits), batch.probs()
        distance = batch.mean((probs * batch.extra["signed_distance"]).mean(dim=1))
        return (1 - share) * generalized_dice(batch) + share * distance


def generalized_dice(batch: Batch) -> Tensor:
    """Return GDL of a batch over the classes that occur; see `Boundary`."""
    probs, target, pixels = batch.probs(), batch.target(), (0, 2, 3)
    volume = batch.total(target, pixels)
    weight = torch.where(volume > 0, volume.clamp(min=torch.finfo(volume.dtype).eps) ** -2.0, 0.0)
    weight = weight / weight.sum().clamp(min=torch.finfo(volume.dtype).tiny)  # same ratio, no tiny numbers
    overlap = batch.total(probs * target, pixels)
    both = batch.total(probs + target, pixels)
    return 1 - 2 * (weight * overlap).sum() / (weight * both).sum().clamp(min=torch.finfo(volume.dtype).eps)
