"""What is odd about a data set without being wrong, said before anything is trained on it."""

from __future__ import annotations

import torch

from autoseg.config import DataConfig
from autoseg.data.files import IMAGE_SUFFIXES, lone_masks
from autoseg.data.segdata import SegData
from autoseg.data.source import check_present


def remarks_on(data: SegData, config: DataConfig, crop: int) -> list[str]:
    """A sentence for each oddity.

    Args:
        data: as it is trained on.
        config: where it comes from.
        crop: side of the square training crops, pixels.

    Raises:
        InputError: fewer than two classes have a pixel in the training labels.
    """
    texts, labels = [], data.labels("train")
    counts = torch.bincount(labels.flatten(), minlength=256).tolist()
    check_present(counts, data.classes, config.ignore_index)
    if missing := [name for name, count in zip(data.classes, counts, strict=False) if not count]:
        text = f"no training image has a pixel of {', '.join(missing)}"
        if counts[data.ignore_index]:
            ignored = f"if {config.ignore_index} stands for a class in your masks, write its id there instead"
            text += f"; {ignored}: it is ignored"
        texts.append(text)
    if alone := lone_masks(config):
        kinds = ", ".join(IMAGE_SUFFIXES)
        texts.append(f"masks without an image are left out: {len(alone)}, as {alone[0]}; images end in {kinds}")
    height, width = labels.shape[-2:]
    if crop > max(height, width):
        padding = 1 - height * width / crop**2
        texts.append(
            f"crops of {crop} pixels of images of {height}x{width} are {padding:.0%} padding: lower proxy.crop"
        )
    return texts
