"""Metrics of boundaries: how well the outlines fit. Tolerances are pixels at the size where they are evaluated."""

from __future__ import annotations

import torch
from torch import Tensor

from autoseg.metrics.base import Metric, Ratio, Sums, register_metric
from autoseg.metrics.logic import Logic, Plane
from autoseg.metrics.region import MIoU


@register_metric
class BIoU(MIoU):
    """Trimap IoU (the paper's BIoU): mIoU within `tolerance` pixels of any label boundary.

    The trimap comes from the labels alone, so errors outside it are not seen: a network trained for BIoU alone
    may be wrong everywhere else. With `drop_background` the trimap leaves out class 0's own boundary, but
    class 0 still counts among the IoUs, as in the paper's release.
    """

    name = "biou"
    summary = "mIoU within a band around label boundaries (trimap)"
    source = "Li et al., ICLR 2021"

    def sums(self, p: Plane, y: Plane, logic: Logic) -> Sums:
        """Return intersection, union and label area per class within the trimap."""
        edges = logic.dilate(logic.boundary(y), self.options.tolerance)
        trimap = logic.anywhere(edges, skip_first=self.options.drop_background)
        return {
            "and": logic.total(logic.and_(p, y), within=trimap),
            "or": logic.total(logic.or_(p, y), within=trimap),
            "label": logic.total(y, within=trimap),
        }


@register_metric
class BF1(Metric):
    """Boundary F1: mean_c 2PR/(P+R) of boundary pixels matched within `tolerance`.

    P = S(B(p) in dilate(B(y))) / S(B(p)), R = S(B(y) in dilate(B(p))) / S(B(y)), counted over the data set per
    class. Boundaries are inner, 8-connected; the image border is none, an edge to void is one; predicted
    boundaries inside void count. A pixel matches within a square of side 2 * tolerance + 1, not a circle. As in the
    paper's release.
    """

    name = "bf1"
    summary = "boundary F1 within a tolerance"
    source = "Csurka et al., BMVC 2013; Li et al., ICLR 2021"
    absent_rule = False

    def sums(self, p: Plane, y: Plane, logic: Logic) -> Sums:
        """Return boundary pixels and matched boundary pixels per class, of prediction and label."""
        tolerance = self.options.tolerance
        edge_p, edge_y = logic.boundary(p), logic.boundary(y)
        return {
            "edge": logic.total(edge_p, void=True),
            "label": logic.total(edge_y, void=True),
            "edge_hit": logic.total(edge_p, within=logic.dilate(edge_y, tolerance), void=True),
            "label_hit": logic.total(edge_y, within=logic.dilate(edge_p, tolerance), void=True),
        }

    def scores(self, s: Sums, ratio: Ratio) -> Tensor:
        """Return F1 per class; a class predicted nowhere scores 0, a class without label boundary is undefined."""
        precision = ratio(s["edge_hit"], s["edge"], empty=0.0)
        recall = ratio(s["label_hit"], s["label"])
        return ratio(2 * precision * recall, precision + recall, empty=0.0)

    def weights(self, s: Sums) -> Tensor:
        """Return equal weights, 0 for class 0 if `drop_background`."""
        weights = super().weights(s)
        if self.options.drop_background:
            weights[..., 0] = 0
        return weights

    def per_class(self) -> Tensor:
        """Return `Metric.per_class`, with NaN for class 0 if `drop_background`."""
        scores = super().per_class()
        if self.options.drop_background:
            scores[0] = torch.nan
        return scores


@register_metric
class BoundaryIoU(MIoU):
    """Boundary IoU: mean_c |Y_d AND P_d| / |Y_d OR P_d|, X_d the band of `tolerance` pixels inside X's outline.

    Symmetric in prediction and label; the image border counts as outline. `tolerance` is d in pixels; the
    authors' default is 2 % of the image diagonal. Computed per class over the data set.

    Void pixels are outside every label. Where they outline the objects, as in PASCAL VOC, the label's band follows the
    void's edge and the prediction's lies within the void, so that even a perfect prediction scores far below 1: take
    `biou` there, which leaves the void out.
    """

    name = "boundary_iou"
    summary = "IoU of the bands inside the outlines of prediction and label"
    source = "Cheng et al., CVPR 2021"

    def sums(self, p: Plane, y: Plane, logic: Logic) -> Sums:
        """Return intersection, union and label band per class."""
        width = max(self.options.tolerance, 1)
        band_p = logic.boundary(p, width, border=True)
        band_y = logic.boundary(y, width, border=True)
        return {
            "and": logic.total(logic.and_(band_p, band_y)),
            "or": logic.total(logic.or_(band_p, band_y)),
            "label": logic.total(band_y),
        }
