"""What a process makes once for all its trainings: the opened data, its images on the device, the untrained network.

Configurations are keys in their JSON form (`key`).
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING

from autoseg.config import DataConfig, ModelConfig
from autoseg.errors import InputError
from autoseg.files import GB

if TYPE_CHECKING:  # as in `task`
    import torch
    from torch import Tensor

    from autoseg.data import SegData
    from autoseg.training import Segmentor


def key(config: DataConfig | ModelConfig) -> str:
    """Return a configuration in its JSON form: one with lists in it cannot be the key of a cache."""
    return json.dumps(asdict(config), sort_keys=True)


@lru_cache(maxsize=2)
def data(config: str, height: int, width: int) -> SegData:
    """Return the opened data, at this size; errors as of `open_data`."""
    from autoseg.data import open_data

    return open_data(DataConfig(**json.loads(config)), (height, width))


@lru_cache(maxsize=4)
def pixels(config: str, height: int, width: int, split: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return images (N, 3, H, W) and labels (N, H, W) of a split, uint8: mapped from the file for the CPU, copied
    whole to a GPU.

    Raises:
        InputError: they do not fit on the GPU.
    """
    import torch

    opened = data(config, height, width)
    images, labels = opened.images(split), opened.labels(split)
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, unused
        needed, free = images.nbytes + labels.nbytes, torch.cuda.mem_get_info(device)[0] + kept
        if needed > free:
            expected = (
                f"images that fit on the GPU: {len(images):,} of {split} take {needed / GB:.1f} GB at {width}x{height}"
            )
            hint = "Every worker keeps its own: make it smaller, or run fewer on a GPU (executor.per_device)."
            raise InputError("proxy.size", expected, f"{free / GB:.1f} GB free", hint)
    return images.to(device), labels.to(device)


@lru_cache(maxsize=4)
def untrained(config: str, num_classes: int, seed: int) -> Segmentor:
    """Return the network with the initial weights of a seed; copy it before it is trained."""
    from autoseg.training import build_model

    return build_model(ModelConfig(**json.loads(config)), num_classes, seed)


@lru_cache(maxsize=4)
def normalization(config: str) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of the network's images; errors as of `network_config.normalization`."""
    from autoseg.training import network_config

    return network_config.normalization(ModelConfig(**json.loads(config)))


@lru_cache(maxsize=4)
def check_scored(config: str, num_classes: int, height: int, width: int, device: torch.device) -> None:
    """Raise as `training.check_scored` does, for images of this size; a process looks once."""
    from autoseg.training import models

    model = copy.deepcopy(untrained(config, num_classes, 0)).to(device)  # 0, a search's usual seed
    models.check_scored(model, (height, width), json.loads(config)["config"])
