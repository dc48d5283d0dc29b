"""Blocks of mmcv and mmsegmentation, computed faster on a CPU: the same functions with the same weights.

Import it after mmsegmentation's models (see `models.model_registry`), since it imports a part of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks import DepthwiseSeparableConvModule
from mmseg.models.decode_heads.sep_aspp_head import DepthwiseSeparableASPPHead
from mmseg.models.utils import InvertedResidual
from torch import Tensor, nn

from autoseg.training.layers import chain
from autoseg.training.layers.chain import Link
from autoseg.training.layers.normalization import NO_BOUNDS, FastBatchNorm

BOUNDS = {nn.ReLU: (0.0, float("inf")), nn.ReLU6: (0.0, 6.0)}  # activations that clamp


class FastConvModule(ConvModule):
    """A `ConvModule` whose normalisation also applies the activation; weights and state dict are the same."""

    @staticmethod
    def suits(block: Any) -> bool:
        """Return whether a block can be computed this way; its normalisation must have been replaced before."""
        return _plain(block) and bool(block.with_activation) and type(block.activate) in BOUNDS

    def forward(self, x: Tensor, activate: bool = True, norm: bool = True) -> Tensor:
        """Return the maps after the block for (N, C, H, W) float."""
        if not activate or not norm:
            return super().forward(x, activate, norm)
        link = Link(self.conv, self.norm, BOUNDS[type(self.activate)])
        if link.suits() and chain.usable([link], x):
            return chain.run([link], x)
        maps = self.conv(x)
        if self.norm.usable(maps):
            return self.norm.clamped(maps, BOUNDS[type(self.activate)])
        return self.activate(self.norm(maps))


def _plain(block: Any) -> bool:
    """Return whether a block is a convolution, our normalisation and perhaps an activation, in this order, alone."""
    if type(block) not in (ConvModule, FastConvModule) or block.order != ("conv", "norm", "act"):
        return False
    alone = not block.with_explicit_padding and block.efficient_conv_bn_eval_forward is None
    return alone and isinstance(block.norm, FastBatchNorm)


def linked(blocks: Iterable[Any]) -> list[Link] | None:
    """Return the blocks as links of a chain; None unless all of them can be links."""
    links = []
    for block in blocks:
        if not _plain(block) or (block.with_activation and type(block) is not FastConvModule):
            return None
        links.append(Link(block.conv, block.norm, BOUNDS[type(block.activate)] if block.with_activation else NO_BOUNDS))
    return links if all(link.suits() for link in links) else None


class FastInvertedResidual(InvertedResidual):
    """MobileNetV2's block as one chain."""

    @staticmethod
    def suits(block: Any) -> bool:
        """Return whether a block can be computed this way; its parts must have been replaced before."""
        return type(block) is InvertedResidual and not block.with_cp and linked(block.conv) is not None

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps after the block for (N, C, H, W) float."""
        links = linked(self.conv)
        if links is None or not chain.usable(links, x):
            return super().forward(x)
        return chain.run(links, x, x if self.use_res_connect else None)


class FastSeparableConvModule(DepthwiseSeparableConvModule):
    """A depthwise and a pointwise convolution as one chain."""

    @staticmethod
    def suits(block: nn.Module) -> bool:
        """Return whether a block can be computed this way; its parts must have been replaced before."""
        return type(block) is DepthwiseSeparableConvModule and linked(block.children()) is not None

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps after the block for (N, C, H, W) float."""
        links = linked((self.depthwise_conv, self.pointwise_conv))
        if links is None or not chain.usable(links, x):
            return super().forward(x)
        return chain.run(links, x)


class FastSeparableASPPHead(DepthwiseSeparableASPPHead):
    """DeepLabV3+'s head, with the gradients that reach the upsampling in channels-last order.

    Otherwise they are a slice of the gradient of the concatenation after it, on which the backward pass of torch's
    upsampling is 20 times slower.
    """

    @staticmethod
    def suits(head: nn.Module) -> bool:
        """Return whether a head can be computed this way."""
        return type(head) is DepthwiseSeparableASPPHead and head.c1_bottleneck is not None

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return logits at the size of the first of the backbone's maps."""
        deep = self._forward_feature(inputs)
        shallow = self.c1_bottleneck(inputs[0])
        large = F.interpolate(deep, shallow.shape[2:], mode="bilinear", align_corners=self.align_corners)
        together = torch.cat([_Ordered.apply(large), shallow], dim=1)
        logits: Tensor = self.cls_seg(self.sep_bottleneck(together))
        return logits


class _Ordered(torch.autograd.Function):
    """The identity, with a gradient in channels-last order."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        return maps.view_as(maps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.contiguous(memory_format=torch.channels_last)


KINDS = ((FastConvModule, FastSeparableASPPHead), (FastInvertedResidual, FastSeparableConvModule))  # in this order
