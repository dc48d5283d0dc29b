"""A network as a config of mmsegmentation has it: its `model` dict, adapted to our data, and what its images are
normalised by.

Nothing is ever downloaded: pretrained addresses are removed. No model of mmsegmentation is imported.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

from autoseg.config import ModelConfig
from autoseg.data.decode import OTHER_IMAGES
from autoseg.errors import InputError
from autoseg.mmconfigs import config_path, mmengine_config, type_name

log = logging.getLogger(__name__)

NETWORKS = ("EncoderDecoder", "CascadeEncoderDecoder")
EDGES = ("STDCHead",)  # auxiliary heads that learn edges, of two classes whatever the data has
OWN_LOSS = (  # heads whose loss cannot be replaced
    "IterativeDecodeHead", "MaskFormerHead", "Mask2FormerHead", "PointHead", "SideAdapterCLIPHead", "VPDDepthHead",
)  # fmt: skip
PRETRAINED = ("Pretrained", "PretrainedInit", "Pretrained_Part")  # types of `init_cfg`; the second is BEiT's
IMAGENET: dict[str, Any] = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "bgr_to_rgb": True}


def network_config(config: ModelConfig, num_classes: int) -> dict[str, Any]:
    """Return the config's `model` dict with overrides merged in, adapted to one device and our data.

    SyncBN becomes BN, heads get `num_classes`, pretrained addresses and the preprocessor are removed.

    Raises:
        InputError: no such config, one without an `EncoderDecoder`, one whose heads have a loss of their own kind, or
            one for images of other than three bands.
    """
    model = _model_of(config)
    kind = type_name(model)
    if kind not in NETWORKS:
        raise InputError("model.config", "a config whose model is an EncoderDecoder", f"{config.config} ({kind})")
    bands = (model.get("backbone") or {}).get("in_channels", 3)
    if bands != 3:
        raise InputError("backbone.in_channels of model.config", "3", bands, OTHER_IMAGES)
    model.pop("data_preprocessor", None)
    for head in ("decode_head", "auxiliary_head"):
        listed = model.get(head) or []
        for one in listed if isinstance(listed, list | tuple) else [listed]:
            if type_name(one) in OWN_LOSS:
                hint = "It has a loss of its own, which no other can replace."
                raise InputError("model.config", "heads with logits for each pixel", type_name(one), hint)
            if type_name(one) not in EDGES:
                one.update(num_classes=num_classes, out_channels=num_classes)
    dropped: list[str] = []
    model = localized(model, dropped)
    if dropped and config.weights is None:
        log.warning(
            "model %s starts from random weights: its config names %s, which is not downloaded. "
            "Set model.weights to a file of backbone weights.", config.name, " and ".join(dropped),
        )  # fmt: skip
    return model


def normalization(config: ModelConfig) -> tuple[list[float], list[float]]:
    """Return what a network's images are normalised by: mean and standard deviation of red, green, blue, 0 to 255.

    Weights are made for them, so those of the config hold unless `model.mean` and `model.std` say otherwise.

    Raises:
        InputError: no such config, or one that normalises other bands.
    """
    if config.mean is not None and config.std is not None:
        return config.mean, config.std
    own = _model_of(config).get("data_preprocessor") or IMAGENET
    mean, std = list(own.get("mean") or [0.0] * 3), list(own.get("std") or [1.0] * 3)
    if len(mean) != 3 or len(std) != 3 or not own.get("bgr_to_rgb"):
        got = f"mean={mean} std={std} bgr_to_rgb={bool(own.get('bgr_to_rgb'))}"
        hint = "Images are RGB here: set model.mean and model.std for these."
        raise InputError("data_preprocessor of model.config", "mean and std of RGB images", got, hint)
    return config.mean or mean, config.std or std


def _model_of(config: ModelConfig) -> dict[str, Any]:
    """Return the `model` dict of a config of mmsegmentation, with overrides merged in."""
    file = mmengine_config(config_path(config.config, "model.config"), "model.config")
    file.merge_from_dict({"model": copy.deepcopy(config.overrides)})
    found: dict[str, Any] = file.to_dict().get("model", {})
    return found


def localized(node: Any, dropped: list[str], *, sync_bn: bool = False) -> Any:
    """Return a copy of a config's model for this machine: no downloads, and SyncBN only where it can run.

    Args:
        node: the `model` dict or a part of it.
        dropped: removed pretrained addresses are added to this list.
        sync_bn: whether SyncBN stays; otherwise it becomes BN.
    """
    if isinstance(node, list | tuple):
        return type(node)(localized(item, dropped, sync_bn=sync_bn) for item in node if not _pretrained(item, dropped))
    if not isinstance(node, dict):
        return node
    result = {}
    for key, value in node.items():
        if key == "pretrained" and value:
            dropped.append(str(value))
        elif not (key == "init_cfg" and _pretrained(value, dropped)):
            result[key] = localized(value, dropped, sync_bn=sync_bn)
    if type_name(result) in ("SyncBN", "SyncBatchNorm") and not sync_bn:  # statistics over several devices
        result["type"] = "BN"
    return result


def _pretrained(node: Any, dropped: list[str]) -> bool:
    """Return whether a part names a file of weights: some networks load a `checkpoint` whatever the type is."""
    found = type_name(node) in PRETRAINED or (isinstance(node, dict) and "checkpoint" in node)
    if found:
        dropped.append(str(node.get("checkpoint")))
    return found
