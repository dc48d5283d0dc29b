"""Jaccard, Dice and Tversky losses that are right for soft labels (JML, DML, CTL).

x prediction, y label in [0, 1]^n, L1 norms: tp = (|x| + |y| - |x - y|) / 2 = S min(x, y), fp = |x| - tp,
fn = |y| - tp. With hard labels min(x, y) = xy, which gives the classic losses; with soft ones the loss is 0 if and only
if x = y, where the classic product form has its minimum elsewhere (one pixel with y = 1/2: at x = 1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from autoseg.losses.region import RegionLoss


class SoftLabelRegionLoss(RegionLoss):
    """A `RegionLoss` with tp = S min(x, y) and the same options. With soft labels it averages over all classes."""

    soft_labels = True

    def parts(self, p: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return pixelwise min(p, y), p minus that, and y minus that."""
        overlap = torch.minimum(p, y)
        return overlap, p - overlap, y - overlap


class JaccardMetricLoss(SoftLabelRegionLoss):
    """JML = |x - y| / |max(x, y)| = 1 - tp / (tp + fp + fn) per class.

    A metric: it obeys the triangle inequality (up to `smooth`). Options as in `RegionLoss`, alpha = beta = 1.
    """

    name = "jml"
    summary = "Jaccard metric loss: soft Jaccard that is also right for soft labels"
    source = "Wang et al., NeurIPS 2023, arXiv 2302.05666"


class DiceSemimetricLoss(SoftLabelRegionLoss):
    """DML = |x - y| / (|x| + |y|) = 1 - 2 tp / (2 tp + fp + fn) per class; a semimetric.

    Options as in `RegionLoss`, alpha = beta = 1/2.
    """

    name = "dml"
    summary = "Dice semimetric loss: soft Dice that is also right for soft labels"
    source = "Wang et al., MICCAI 2023, arXiv 2303.16296"
    prices = (0.5, 0.5)


class CompatibleTverskyLoss(SoftLabelRegionLoss):
    """CTL = 1 - tp / (tp + alpha fp + beta fn) per class.

    Options as in `RegionLoss`, alpha = 0.3 and beta = 0.7 by default, as in tversky.
    """

    name = "ctl"
    summary = "compatible Tversky loss: Tversky that is also right for soft labels"
    source = "Wang et al., MICCAI 2023, arXiv 2303.16296"
    prices = (0.3, 0.7)
