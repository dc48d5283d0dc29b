"""Augmentation on the training device: whole batches, every sample with its own random draw.

Geometry is one `grid_sample` per batch (scale, crop and flip are one affine map), colour a few products with
one factor per sample; both run on the device of the tensors and never wait for it. The draws come only from the
given generator, on the CPU, so that they are the same for every device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from autoseg.data.source import IGNORE

# Ranges of mmsegmentation's PhotoMetricDistortion; its hue shift is left out: on a CPU it costs more than all the rest.
BRIGHTNESS = 32 / 255  # added
CONTRAST = (0.5, 1.5)  # multiplied
SATURATION = (0.5, 1.5)  # mixed with grey
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in grey, ITU-R BT.601


@dataclass(frozen=True)
class Numbers:
    """The random draws for n batches of B images."""

    # (n, B, 2, 3) float32, affine map from coordinates of the output to those of the source, both in [-1, 1] inside
    affine: Tensor
    colour: Tensor | None  # (n, 3, B) float32, added brightness, contrast factor, saturation factor; None: colours stay

    def to(self, device: torch.device) -> Numbers:
        """Return the same draws on a device."""
        return Numbers(self.affine.to(device), None if self.colour is None else self.colour.to(device))


@dataclass(frozen=True)
class Draw:
    """The random draw for one batch; apply it to everything that belongs to the same images."""

    grid: Tensor  # (B, crop, crop, 2) float32, where each output pixel lies in the source, in [-1, 1] inside it
    colour: Tensor | None  # (3, B) float32, added brightness, contrast factor, saturation factor; None: colours stay


@dataclass(frozen=True)
class Augment:
    """Random scale, crop, flip and colour change for training; `ProxyConfig` has the limits of what may be set."""

    crop: int  # side of the square crop in pixels
    # (low, high); the image is scaled by a factor drawn uniformly, then cropped. Where it is smaller than the crop, it
    # is padded: mean colour in the image (in its frame `PAD_RGB`), ignore in the labels
    scale: Sequence[float]
    flip: bool  # mirror left and right with probability one half
    photometric: bool  # change brightness, contrast and saturation
    mean: Sequence[float]  # per RGB channel, 0..255; images come out as (x - mean) / std
    std: Sequence[float]

    def numbers(self, sizes: Tensor, frame: tuple[int, int], generator: torch.Generator) -> Numbers:
        """Draw for n batches of B images, one batch after the other.

        Args:
            sizes: (n, B, 2) CPU int64, height and width of each image, in the upper left corner of its frame.
            frame: height and width of all frames. What an image leaves of it is padding: crops avoid it as they avoid
                what is outside, and meet it only where the scaled image is smaller than the crop.
            generator: of the CPU.
        """
        uniform = torch.rand(len(sizes), 7, sizes.shape[1], generator=generator)
        scale_u, y_u, x_u, flip_u = uniform[:, :4].unbind(1)
        low, high = self.scale
        scale = low + (high - low) * scale_u
        # Normalised source coordinate = span * output coordinate + centre: align_corners=False counts
        # pixel areas, so the crop covers crop / (scale * size) of the image; its centre varies.
        height, width = sizes.unbind(2)
        span_y, span_x = self.crop / (scale * height), self.crop / (scale * width)
        centre_y, centre_x = (1 - span_y) * (2 * y_u - 1), (1 - span_x) * (2 * x_u - 1)
        # From coordinates of the image to those of its frame.
        share_y, share_x = height / frame[0], width / frame[1]
        span_y, centre_y = span_y * share_y, centre_y * share_y + (share_y - 1)
        span_x, centre_x = span_x * share_x, centre_x * share_x + (share_x - 1)
        if self.flip:
            span_x = torch.where(flip_u < 0.5, -span_x, span_x)
        zero = torch.zeros_like(scale)
        affine = torch.stack([span_x, zero, centre_x, zero, span_y, centre_y], dim=2).view(*sizes.shape[:2], 2, 3)
        return Numbers(affine, self._colour(uniform[:, 4:]) if self.photometric else None)

    def placed(self, numbers: Numbers, place: Tensor) -> Draw:
        """Return the draw of one of n batches; `place`, its index, is (1,) int64, on the device of the numbers."""
        affine = numbers.affine.index_select(0, place)[0]
        grid = F.affine_grid(affine, [len(affine), 1, self.crop, self.crop], align_corners=False)
        return Draw(grid, None if numbers.colour is None else numbers.colour.index_select(0, place)[0])

    @staticmethod
    def _colour(uniform: Tensor) -> Tensor:
        """Turn (n, 3, B) in [0, 1] into the added brightness and the contrast and saturation factors."""
        bright, contrast, saturation = uniform.unbind(1)
        return torch.stack(
            [
                BRIGHTNESS * (2 * bright - 1),
                CONTRAST[0] + (CONTRAST[1] - CONTRAST[0]) * contrast,
                SATURATION[0] + (SATURATION[1] - SATURATION[0]) * saturation,
            ],
            dim=1,
        )

    def images(self, images: Tensor, draw: Draw) -> Tensor:
        """Warp (bilinear), recolour and normalise (B, 3, H, W) uint8 images; outside is the mean colour, recoloured.

        Returns:
            (B, 3, crop, crop) float32.
        """
        mean, std = (_per_channel(tuple(values), images.device) for values in (self.mean, self.std))
        # grid_sample pads with zeros; around the mean, zero is the mean.
        out = F.grid_sample(images - mean, draw.grid, align_corners=False) + mean
        if draw.colour is not None:
            out = _recoloured(out / 255, *draw.colour.view(3, -1, 1, 1, 1)) * 255
        return (out - mean) / std

    @staticmethod
    def nearest(maps: Tensor, draw: Draw, outside: float = IGNORE) -> Tensor:
        """Warp labels or other maps by nearest neighbour.

        Args:
            maps: (B, H, W) or (B, K, H, W), any dtype whose values float32 holds exactly.
            draw: the draw for their images.
            outside: value outside the image.

        Returns:
            The same dtype and leading dimensions, (…, crop, crop).
        """
        channels = maps if maps.ndim == 4 else maps[:, None]
        shifted = channels.float() - outside  # grid_sample's zero outside becomes `outside`
        out = F.grid_sample(shifted, draw.grid, mode="nearest", align_corners=False) + outside
        return (out if maps.ndim == 4 else out[:, 0]).to(maps.dtype)


def _recoloured(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Change brightness, then contrast, then saturation of (B, 3, H, W) in [0, 1]; factors are (B, 1, 1, 1)."""
    images = ((images + brightness) * contrast).clamp(0, 1)
    red, green, blue = images.split(1, dim=1)
    grey = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return torch.lerp(grey, images, saturation).clamp(0, 1)


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return (x - mean) / std per RGB channel: (B, 3, H, W) uint8 to float32 on the same device, for evaluation."""
    return (images - _per_channel(tuple(mean), images.device)) / _per_channel(tuple(std), images.device)


@lru_cache(maxsize=16)
def _per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Return values as (3, 1, 1) float32, moved to the device once: a transfer in every iteration would wait for the
    device.
    """
    with torch.inference_mode(False):  # cached: may be used later where gradients are recorded
        return torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]
