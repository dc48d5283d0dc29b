"""Networks: any mmsegmentation config with an `EncoderDecoder`, as a plain module from images to logits.

Only this module imports mmsegmentation's models. Backbone weights come from `model.weights` or not at all.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from autoseg.config import ModelConfig
from autoseg.errors import InputError, first_line, out_of_memory
from autoseg.mmconfigs import type_name
from autoseg.training.checkpoint import guard
from autoseg.training.layers.depthwise import DilatedDepthwise
from autoseg.training.layers.normalization import FastBatchNorm
from autoseg.training.layers.pointwise import PointwiseConv
from autoseg.training.network_config import EDGES, network_config
from autoseg.training.resize import upsample
from autoseg.training.stand_ins import left_out
from autoseg.training.weights import load_backbone

BUILDABLE = "a network that mmsegmentation can build"
UNBUILT_HINT = "Check model.overrides; networks that need mmcv's compiled operations cannot be built."
# For heads that return several maps in training, the index of the one used for prediction.
PLACES = {"DAHead": 0, "EncHead": 0, "DDRHead": 0, "PIDHead": 1}


@dataclass(frozen=True)
class Features:
    """A backbone's output for a batch, used in place of the images."""

    # (N, c, h, w) float, one per output of the backbone, None where no head reads it; without gradient
    maps: tuple[Tensor | None, ...]
    size: tuple[int, int]  # (H, W) of the images

    def to(self, *, memory_format: torch.memory_format) -> Features:
        """Return itself: the maps already have the layout that the network was frozen with."""
        del memory_format
        return self


class Segmentor(nn.Module):
    """An mmsegmentation `EncoderDecoder`, cascaded or not, as a function of images without its losses and preprocessor.

    Args:
        network: the built `EncoderDecoder`; `decode_head` and perhaps `auxiliary_head` are its heads.
        left_out: beginnings of the names, in this module's state dict, of weights that its config's network has and
            this one was built without.
    """

    def __init__(self, network: Any, left_out: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.network: Any = network  # mmsegmentation has no types
        self.left_out = left_out
        self._frozen: torch.memory_format | None = None

    def heads(self, auxiliary: bool = True) -> list[Any]:
        """Return the main head (the last one of a cascade), then the heads before it and the auxiliary ones."""
        *earlier, main = _listed(self.network.decode_head)
        return [main, *earlier, *_listed(getattr(self.network, "auxiliary_head", None))] if auxiliary else [main]

    def freeze(self, layout: torch.memory_format) -> None:
        """Make the backbone a fixed function from now on: always in evaluation mode, never trained.

        Args:
            layout: memory format of its maps.
        """
        self._frozen = layout
        self.network.backbone.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Set the training mode, except for a frozen backbone."""
        super().train(mode)
        if self._frozen is not None:
            self.network.backbone.eval()
        return self

    def features(self, images: Tensor) -> Features:
        """Return the frozen backbone's output for images (N, 3, H, W) float, normalised.

        Raises:
            InputError: it does not return maps.
        """
        assert self._frozen is not None  # by `freeze`
        with torch.no_grad():
            maps = self.network.backbone(images)
        if not isinstance(maps, list | tuple) or any(not isinstance(m, Tensor) or m.ndim != 4 for m in maps):
            got = type(self.network.backbone).__name__
            raise InputError("proxy.backbone", "trained, for a backbone that returns more than maps", got)
        laid_out = tuple(one.contiguous(memory_format=self._frozen) for one in maps)
        return Features(laid_out, (images.shape[-2], images.shape[-1]))

    def reads(self, features: Features) -> list[bool]:
        """Return which maps any head reads: those in which its logits have a gradient. The network is not changed."""
        maps = [one.detach().float().requires_grad_() for one in features.maps if one is not None]
        training = self.training
        self.eval()
        with torch.enable_grad():
            found = self.network.neck(maps) if self.network.with_neck else maps
            total = torch.stack([logits.sum() for logits in self._logits(found, auxiliary=True)]).sum()
            gradients = torch.autograd.grad(total, maps, allow_unused=True)
        self.train(training)
        return [gradient is not None for gradient in gradients]

    def forward(self, inputs: Tensor | Features) -> list[Tensor]:
        """Return logits at the size of the images.

        Args:
            inputs: images (N, 3, H, W) float, normalised; or the frozen backbone's output for them.

        Returns:
            Logits (N, C, H, W): [main, auxiliary...] in training mode, [main] in evaluation mode.

        Raises:
            InputError: a head returns several maps, and it is not known which one is used for prediction.
        """
        known = self.features(inputs) if self._frozen is not None and isinstance(inputs, Tensor) else inputs
        if isinstance(known, Features):
            maps: Any = self.network.neck(known.maps) if self.network.with_neck else known.maps
            size = known.size
        else:
            maps, size = self.network.extract_feat(known), (known.shape[-2], known.shape[-1])
        logits = self._logits(maps, auxiliary=self.training)
        heads = self.heads(auxiliary=self.training)
        return [upsample(one, size, head.align_corners) for head, one in zip(heads, logits, strict=True)]

    def _logits(self, maps: Any, auxiliary: bool) -> list[Tensor]:
        """Return the logits of every head, in the order of `heads`."""
        found: list[Tensor] = []
        for head in _listed(self.network.decode_head):  # in a cascade, each head gets the logits of the one before it
            found.append(_main(head, head(maps, found[-1]) if found else head(maps)))
        *earlier, main = found
        if not auxiliary:
            return [main]
        extra = [_main(head, head(maps)) for head in _listed(getattr(self.network, "auxiliary_head", None))]
        return [main, *earlier, *extra]


def _listed(heads: Any) -> list[Any]:
    return list(heads) if isinstance(heads, nn.ModuleList) else [] if heads is None else [heads]


def _main(head: Any, logits: Any) -> Tensor:
    """Return the map that a head predicts by: some return further maps, for losses of their own."""
    if isinstance(logits, Tensor):
        return logits
    place = next((PLACES[kind.__name__] for kind in type(head).__mro__ if kind.__name__ in PLACES), None)
    if place is None or not isinstance(logits, tuple):
        got = f"{type(head).__name__}, which gives a {type(logits).__name__} of {len(logits)}"
        raise InputError("model.config", "heads that give one map of logits", got)
    found: Tensor = logits[place]
    return found


def build_model(config: ModelConfig, num_classes: int, seed: int) -> Segmentor:
    """Build a network on the CPU; its initial weights depend only on the seed and `config.weights`.

    Args:
        config: the group `model`: an mmsegmentation config, changes to it, backbone weights.
        num_classes: C; replaces the class count of every head.
        seed: seed of the random initial weights.

    Raises:
        InputError: unknown or unusable config, or weights that do not fit the backbone.
    """
    settings = network_config(config, num_classes)
    extra = settings.get("auxiliary_head")
    alone = isinstance(extra, dict)
    listed = [extra] if alone else list(extra or ())
    edges = [place for place, head in enumerate(listed) if type_name(head) in EDGES]
    # A single head is built in a list too: mmsegmentation initialises it in another way alone, and a seed's initial
    # weights are to stay those that earlier runs began with.
    settings["auxiliary_head"] = [head for place, head in enumerate(listed) if place not in edges] or None
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seed)
        try:
            with _in_mmseg(), parts_alone():
                registry = model_registry()
                guard()
                network = registry.build(settings)
                network.init_weights()
        except (TypeError, ValueError, KeyError, AssertionError, RuntimeError, ImportError) as error:
            raise InputError("model.config", BUILDABLE, f"{config.config} ({error})", UNBUILT_HINT) from error
    if config.weights is not None:
        load_backbone(network.backbone, config.weights)
    if alone and not edges:
        network.auxiliary_head = network.auxiliary_head[0]  # weights have the names that mmsegmentation gives them
    speed_up(network)
    return Segmentor(network, tuple(f"network.auxiliary_head.{'' if alone else f'{place}.'}" for place in edges))


def check_crop(model: Segmentor, crop: int, name: str) -> None:
    """Raise if the network cannot take images of this size; called to explain why a training failed.

    Args:
        model: an untrained network; it must not be used afterwards.
        crop: side of the images, pixels.
        name: name of its config.

    Raises:
        InputError: it cannot.
    """
    try:
        with torch.no_grad():
            model(torch.zeros(2, 3, crop, crop, device=next(model.parameters()).device))
    except (RuntimeError, ValueError, AssertionError) as error:
        expected = f"a network that takes images of {crop}x{crop}, the size of proxy.crop"
        raise InputError("model.config", expected, f"{name}: {first_line(error)}") from error


def check_scored(model: Segmentor, size: Sequence[int], name: str) -> None:
    """Raise if the network cannot take images of the size at which they are scored, before it is trained for nothing.

    torch's random numbers stay as they are.

    Args:
        model: an untrained network; it must not be used afterwards.
        size: (height, width) of the images, pixels.
        name: name of its config.

    Raises:
        InputError: it cannot, but it takes a size near this one, which is named.
    """
    device = next(model.parameters()).device

    def fails(height: int, width: int) -> Exception | None:
        try:
            model(torch.zeros(1, 3, height, width, device=device))
        except (RuntimeError, ValueError, AssertionError) as error:
            if isinstance(error, torch.AcceleratorError) or out_of_memory(error):
                raise  # not because of the size
            return error
        return None

    model.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        error = fails(*size)
        if error is not None:
            nearest = ([max(1, round(side / step)) * step for side in size] for step in (8, 16, 32, 64))
            for sides in nearest:  # if none fits, it is not for the remainder of the size, and the training will fail
                if fails(*sides) is None:
                    got, hint = f"{list(size)} ({first_line(error)})", f"It takes proxy.size=[{sides[0]},{sides[1]}]."
                    raise InputError("proxy.size", f"a size that {name} can score", got, hint) from error


def speed_up(network: nn.Module) -> None:
    """Replace layers and blocks by those that are faster on a CPU, in place; the parameters stay the same."""
    from autoseg.training.layers import blocks

    # Layers first: whether a block suits depends on the new classes of its parts.
    for kinds in ((DilatedDepthwise, PointwiseConv, FastBatchNorm), *blocks.KINDS):
        for part in network.modules():
            for kind in kinds:
                if kind.suits(part):
                    part.__class__ = kind


def model_registry() -> Any:
    """Return mmsegmentation's model registry, after importing its models."""
    with left_out():
        import mmseg.models  # noqa: F401  (importing registers them)
        from mmseg.registry import MODELS
    return MODELS


def _in_mmseg() -> AbstractContextManager[Any]:
    """Let mmcv find mmsegmentation's own layers by name, as under its Runner; the upsampling of U-Net is one."""
    from mmengine.registry import DefaultScope

    scope: AbstractContextManager[Any] = DefaultScope.overwrite_default_scope("mmseg")
    return scope


@contextmanager
def parts_alone() -> Iterator[None]:
    """While active, let names that are in no registry be only parts of networks; mmengine would call any function.

    Such names are those of configs in pure Python, which name parts by their module.
    """
    from mmengine.registry import registry

    found = registry.get_object_from_string

    def part(name: str) -> Any:
        made = found(name)
        ours = isinstance(made, type) and (issubclass(made, nn.Module) or made.__module__.startswith("mmengine.model."))
        return made if ours else None

    registry.get_object_from_string = part
    try:
        yield
    finally:
        registry.get_object_from_string = found


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence mmengine's line per initialised parameter and the warnings about parts we do not use."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
