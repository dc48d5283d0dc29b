"""mmcv's blocks of convolution, normalisation and activation, the last two computed as one operation.

To be imported after mmsegmentation's models (see `models.model_registry`), since it imports a part of them.
"""

from __future__ import annotations

from mmcv.cnn import ConvModule
from torch import Tensor, nn

from autoseg.training.normalization import FastBatchNorm

BOUNDS = {nn.ReLU: (0.0, float("inf")), nn.ReLU6: (0.0, 6.0)}  # activations that clamp


class FastConvModule(ConvModule):
    """A `ConvModule` whose normalisation clamps; weights and state dict are the same."""

    @staticmethod
    def suits(block: nn.Module) -> bool:
        """Whether a block can be computed this way; its normalisation has been exchanged before."""
        if type(block) is not ConvModule or block.order != ("conv", "norm", "act"):
            return False
        if not block.with_activation or type(block.activate) not in BOUNDS or not isinstance(block.norm, FastBatchNorm):
            return False
        return not block.with_explicit_padding and block.efficient_conv_bn_eval_forward is None

    def forward(self, x: Tensor, activate: bool = True, norm: bool = True) -> Tensor:
        """(N, C, H, W) float to the maps after the block."""
        if activate and norm:
            return self.norm.clamped(self.conv(x), BOUNDS[type(self.activate)])
        return super().forward(x, activate, norm)


def speed_up(network: nn.Module) -> None:
    """Exchange the blocks of a network that can be computed this way, in place; parameters stay what they are."""
    for block in network.modules():
        if FastConvModule.suits(block):
            block.__class__ = FastConvModule
