"""Class weights, counted from labels, against class imbalance."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from autoseg.errors import unknown_name
from autoseg.losses.base import check_id_maps
from autoseg.metrics.labels import as_images, check_ids

Scheme = Literal["inverse", "median"]


def class_weights(labels: Tensor, scheme: Scheme, num_classes: int, ignore_index: int = 255) -> Tensor:
    """Return one weight per class, from how often the classes occur.

    "inverse": w_c = n / (C' n_c), with n_c pixels of class c, n of all classes and C' classes that occur; the
    mean weight of a pixel is 1. "median": w_c = median(f) / f_c, with f_c the share of class c in the valid
    pixels of the images that show it (Eigen and Fergus, ICCV 2015, arXiv 1411.4734).

    Args:
        labels: (N, H, W) integer, (N, D, H, W) of volumes: a batch or a whole data set; read one image at a time.
        scheme: "inverse" or "median".
        num_classes: C.
        ignore_index: id of the pixels that do not count.

    Returns:
        (C,) float32; 1 for a class that never occurs.

    Raises:
        InputError: unknown scheme, labels of another kind, or an id that is neither a class nor `ignore_index`.
    """
    if scheme not in get_args(Scheme):
        raise unknown_name("scheme", scheme, get_args(Scheme))
    check_id_maps(as_images(labels, channels=False) if isinstance(labels, Tensor) else labels)
    pixels = torch.zeros(num_classes, dtype=torch.int64, device="cpu")  # pixels of each class
    around = torch.zeros_like(pixels)  # pixels of the images that show it
    for image in labels:
        check_ids(image, "labels", num_classes, ignore_index)
        ids = image.long()
        ids = ids[ids != ignore_index]
        found = torch.bincount(ids.flatten(), minlength=num_classes).cpu()
        pixels += found
        around += found.sum() * (found > 0)
    return weights_of(pixels, around, scheme)


def weights_of(pixels: Tensor, around: Tensor, scheme: Scheme) -> Tensor:
    """Return `class_weights` from counts: (C,) int64 pixels of each class, and of all images that show it."""
    occurs = pixels > 0
    if not occurs.any():
        return torch.ones(len(pixels), device=pixels.device)
    if scheme == "inverse":
        weights = pixels.sum() / (occurs.sum() * pixels.clamp(min=1).double())
    else:
        share = pixels.double() / around.clamp(min=1)
        weights = share[occurs].quantile(0.5) / share.clamp(min=torch.finfo(torch.float64).tiny)
    return torch.where(occurs, weights, 1.0).float()
