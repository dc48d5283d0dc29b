"""Regions along the labels' outlines, such as BIoU's trimap, by the kernels of `kernels.band`."""

from __future__ import annotations

import torch
from torch import Tensor

from autoseg.metrics.logic import Region
from autoseg.surrogates.fast.gpu.plans import IDS

BLOCK = 1024  # pixels per program
OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}


def drawn(region: Region) -> bool:
    """Return whether there are kernels for a region of the labels: their outline, or the pixels near it."""
    plane = region.plane.args[0] if region.plane.op == "dilate" else region.plane
    return plane.op == "boundary" and plane.args[0].op == "label"


def band(labels: Tensor, num_classes: int, region: Region) -> Tensor:
    """Return a region that is `drawn` as (N, H, W) bool, equal to `MapLogic`'s, for integer labels (N, H, W) on
    CUDA.
    """
    from autoseg.surrogates.fast.gpu.kernels.band import edge_kernel, widen_kernel

    ids = (labels if labels.dtype in IDS else labels.long()).contiguous()
    wide = region.plane.px if region.plane.op == "dilate" else 0
    outline = region.plane.args[0] if region.plane.op == "dilate" else region.plane
    n, height, width = ids.shape
    edges = torch.empty_like(ids, dtype=torch.uint8)
    grid, size = (-(-height * width // BLOCK), n), (height, width)
    with torch.cuda.device_of(ids):
        edge_kernel[grid](
            ids,
            edges,
            *size,
            outline.px,
            int(region.skip_first),
            C=num_classes,
            BORDER=outline.border,
            BLOCK=BLOCK,
            **OPTIONS,
        )
        if wide:
            rows = torch.empty_like(edges)
            widen_kernel[grid](edges, rows, *size, wide, DOWN=False, BLOCK=BLOCK, **OPTIONS)
            widen_kernel[grid](rows, edges, *size, wide, DOWN=True, BLOCK=BLOCK, **OPTIONS)
    return edges.view(torch.bool)
