"""Structural similarity of probability maps and masks."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.errors import InputError
from autoseg.losses.base import SegLoss, check_range
from autoseg.losses.batch import Batch

C1, C2 = 0.01**2, 0.03**2  # for maps with values in [0, 1]


class Ssim(SegLoss):
    """1 - mean SSIM between each class's probability map and its mask.

    SSIM = (2 m_p m_y + C1) (2 s_py + C2) / ((m_p^2 + m_y^2 + C1) (s_p^2 + s_y^2 + C2)) with means, variances
    and covariance under a Gaussian window (Wang et al. 2004, eq. 13). Windows hold valid pixels only: their
    weights are renormalised at ignored pixels and beyond the image's border. Mean over valid pixels and classes. At the
    border others differ: BASNet's code counts the zeros it pads with as pixels on which map and mask agree, kornia and
    scikit-image mirror the image. Where the window lies within the image all are equal.

    Args:
        num_classes: C; with "sigmoid" 1 is a binary task with labels 0 and 1.
        mode: "softmax", one class per pixel; "sigmoid", C independent masks.
        window: side of the window in pixels, odd.
        sigma: standard deviation of the Gaussian, in pixels.
        common: options of `SegLoss`.
    """

    name = "ssim"
    summary = "structural similarity of probability maps and masks, softmax or sigmoid"
    source = "Qin et al. (BASNet), CVPR 2019; Wang et al., IEEE TIP 2004"
    soft_labels = True

    def __init__(
        self,
        num_classes: int,
        *,
        mode: Literal["softmax", "sigmoid"] = "softmax",
        window: int = 11,
        sigma: float = 1.5,
        **common: Any,
    ) -> None:
        super().__init__(num_classes, **common)
        if window < 1 or window % 2 == 0:
            raise InputError("window", "an odd number of pixels", window)
        check_range("sigma", sigma, 0, math.inf, open_low=True)
        self.multilabel = mode == "sigmoid"
        self.window, self.sigma = window, sigma

    def compute(self, batch: Batch) -> Tensor:
        """Return the mean over the valid pixels and the classes."""
        return batch.mean(1 - self.similarity(batch).mean(dim=1))

    def similarity(self, batch: Batch) -> Tensor:
        """Return (N, C, H, W) SSIM of the window around each pixel; meaningless where not valid."""
        valid = batch.valid[:, None].to(batch.logits)
        p = batch.logits.sigmoid() * valid if self.multilabel else batch.probs()
        y = batch.target()
        weight = self._blur(valid).clamp(min=torch.finfo(valid.dtype).eps)
        mean_p, mean_y, pp, py = (self._blur(x) / weight for x in (p, y, p * p, p * y))
        yy = self._blur(y * y) / weight if batch.soft else mean_y  # y is its own square where it is 0 or 1
        covariance = py - mean_p * mean_y
        variances = (pp - mean_p**2) + (yy - mean_y**2)
        structure = (2 * covariance + C2) / (variances + C2)
        luminance = (2 * mean_p * mean_y + C1) / (mean_p**2 + mean_y**2 + C1)
        return luminance * structure

    def _blur(self, maps: Tensor) -> Tensor:
        """Return separable Gaussian sums over (N, K, H, W), zero beyond the border."""
        if not maps.numel():  # a rank without images; a convolution needs a channel
            return maps
        planes = maps.flatten(0, 1)[None]  # as channels: a depthwise convolution is 20 times faster on a CPU
        count, size = planes.shape[1], self.window
        places = torch.arange(size, dtype=maps.dtype, device=maps.device) - size // 2
        down = (places**2 / (-2 * self.sigma**2)).softmax(0).view(1, 1, size, 1).expand(count, 1, size, 1)
        planes = F.conv2d(planes, down, padding=(size // 2, 0), groups=count)
        return F.conv2d(planes, down.mT, padding=(0, size // 2), groups=count).view_as(maps)
