"""Reads weights from a file, without executing any code in it, and writes them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from autoseg.errors import InputError, first_line
from autoseg.files import write_atomic
from autoseg.training.checkpoint import check_file, last_checkpoint, read_pth

log = logging.getLogger(__name__)

CLASSIFIERS = ("fc.", "classifier.", "head.")  # layers of the ImageNet network that are not part of the backbone
BLOCKS = (1, 2, 3, 4, 3, 3, 1)  # in the stages of MobileNetV2


def save_network(model: nn.Module, path: str) -> None:
    """Write a network's weights as `.safetensors`, completely or not at all.

    Raises:
        InputError: no space on the disk.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomic(Path(path), save(state))


def load_network(model: nn.Module, path: str, field: str) -> None:
    """Load a whole network's weights in place; those of heads that a `Segmentor` was built without are passed over.

    Args:
        model: a `Segmentor`, or mmsegmentation's own network.
        path: a file from `save_network`, an mmengine checkpoint, a state dict; or the work dir of a full training,
            whose last checkpoint is used.
        field: the argument in which the user named it.

    Raises:
        InputError: no such file, more than weights and plain data, or names, shapes or types that do not fit.
    """
    if Path(path).is_dir():
        path = str(last_checkpoint(Path(path), field))
    own, wanted = "network.", model.state_dict()  # a `Segmentor` holds mmsegmentation's network under this name
    head = own if any(key.startswith(own) for key in wanted) else ""
    found = {head + key.removeprefix(own): value for key, value in read_tensors(path, field).items()}
    left_out: tuple[str, ...] = getattr(model, "left_out", ())
    found = {key: value for key, value in found.items() if key in wanted or not key.startswith(left_out)}
    _fill(model, found, field, path, "Check that the model and the number of classes are the same.")


def load_backbone(backbone: nn.Module, path: str) -> None:
    """Load a backbone's weights in place; every weight must be there, and none may be left over.

    A whole mmsegmentation checkpoint works too: its `backbone.` part is used. The classifier of an ImageNet
    checkpoint is left out, and BatchNorm's counters may be missing (nothing reads them). Those of torchvision fit a
    MobileNetV2, under its own names, and a ResNet (not V1c or V1d).

    Args:
        backbone: the module to fill.
        path: a `.safetensors` file, or one saved by torch that holds nothing but tensors.

    Raises:
        InputError: no such file, not plain weights, or names, shapes or types that do not fit.
    """
    found = _backbone_part(read_tensors(path), backbone)
    hint = "Check that model.config and the file are of the same network."
    if "conv1.weight" in found and "stem.0.weight" in backbone.state_dict():
        hint = "The file is of a ResNet with a plain stem, such as torchvision's: model.overrides.backbone.type=ResNet."
    _fill(backbone, found, "model.weights", path, hint)


def _fill(module: nn.Module, found: dict[str, Tensor], field: str, path: str, hint: str) -> None:
    """Load tensors by name; none may be missing (BatchNorm's counters apart) or left over."""
    wanted = module.state_dict()
    missing = [k for k in wanted if k not in found and not k.endswith("num_batches_tracked")]
    unknown = [k for k in found if k not in wanted]
    both = [k for k in found if k in wanted]
    shapes = [k for k in both if found[k].shape != wanted[k].shape]
    kinds = [k for k in both if not _same_kind(found[k], wanted[k])]
    broken = [k for k in both if k not in kinds and not bool(found[k].isfinite().all())]
    problems = {
        "missing": missing, "not in the network": unknown, "of another shape": shapes, "of another type": kinds,
        "with NaN or infinity": broken,
    }  # fmt: skip
    said = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', …' * (len(keys) > 3)})"
        for what, keys in problems.items()
        if keys
    ]
    if said:
        raise InputError(field, f"the weights of a {type(module).__name__}", f"{path} with {'; '.join(said)}", hint)
    module.load_state_dict(found, strict=False)


def _same_kind(found: Tensor, wanted: Tensor) -> bool:
    """Return whether one tensor can be copied to the other: any precision is fine, but quantised weights, say, are
    not.
    """
    plain = found.layout == torch.strided and not found.is_meta
    return plain and found.is_floating_point() == wanted.is_floating_point() and not found.is_complex()


def read_tensors(path: str, field: str = "model.weights") -> dict[str, Tensor]:
    """Return the tensors of a weights file by name; no code in the file is executed.

    Raises:
        InputError: the file is missing or holds something else than weights and plain data.
    """
    if path.endswith(".safetensors"):
        check_file(path, field)
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise InputError(field, "a file that holds tensors", f"{path} ({first_line(error)})") from error
    content = read_pth(path, field)
    state: Any = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        raise InputError(field, "a state dict: tensors by name", f"{path}, which holds something else")
    return dict(state)


def _backbone_part(state: dict[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    if any(key.startswith("backbone.") for key in state):
        return {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    own = {name for name, _ in backbone.named_children()}
    if "features.0.0.weight" in state and type(backbone).__name__ == "MobileNetV2":
        return _from_torchvision(state)
    extra = [k for k in state if k.startswith(CLASSIFIERS) and k.split(".")[0] not in own]
    if extra:
        log.info("left out of the backbone: %s", ", ".join(extra))
    return {key: value for key, value in state.items() if key not in extra}


def _from_torchvision(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of torchvision's MobileNetV2 by the names that mmsegmentation's has for the same layers.

    Its last convolution, behind the seven stages, and its classifier are left out.
    """
    names = {"features.0.0": "conv1.conv", "features.0.1": "conv1.bn"}
    blocks = [f"layer{stage}.{block}" for stage, count in enumerate(BLOCKS, 1) for block in range(count)]
    for place, block in enumerate(blocks, 1):
        last = 1 if place == 1 else 2  # the first block does not widen
        for conv in range(last + 1):
            theirs, ours = f"features.{place}.conv.{conv}", f"{block}.conv.{conv}"
            names[theirs if conv == last else f"{theirs}.0"] = f"{ours}.conv"
            names[f"features.{place}.conv.{last + 1}" if conv == last else f"{theirs}.1"] = f"{ours}.bn"
    kept = {key: value for key, value in state.items() if not key.startswith(("features.18.", "classifier."))}
    split = [(*key.rpartition("."), value) for key, value in kept.items()]
    return {f"{names.get(layer, layer)}.{kind}": value for layer, _, kind, value in split}
