"""What is odd about a data set without being wrong, said before anything is trained on it."""

from __future__ import annotations

import torch

from autoseg.data.segdata import SegData


def remarks_on(data: SegData, ignore_index: int, crop: int) -> list[str]:
    """A sentence for each oddity.

    Args:
        data: as it is trained on.
        ignore_index: that of its mask files, `data.ignore_index`.
        crop: side of the square training crops, pixels.
    """
    texts, labels = [], data.labels("train")
    counts = torch.bincount(labels.flatten(), minlength=256)
    if missing := [name for name, count in zip(data.classes, counts.tolist(), strict=False) if not count]:
        text = f"no training image has a pixel of {', '.join(missing)}"
        if counts[data.ignore_index]:
            text += f"; if {ignore_index} stands for a class in your masks, write its id there instead: it is ignored"
        texts.append(text)
    height, width = labels.shape[-2:]
    if crop > max(height, width):
        padding = 1 - height * width / crop**2
        texts.append(
            f"crops of {crop} pixels of images of {height}x{width} are {padding:.0%} padding: lower proxy.crop"
        )
    return texts
