"""1x1 convolutions as one matrix product over all pixels of a batch, on a CPU.

torch does one product per image, with zeroed results in the backward pass: for the 8x8 maps of a proxy that is
only 64 rows at a time. A map in channels-last order is already such a matrix in memory.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PointwiseConv(nn.Conv2d):
    """A 1x1 `Conv2d` without stride; weights and state dict are the same. On a GPU it is torch's."""

    @staticmethod
    def suits(layer: nn.Module) -> bool:
        """Return whether a layer can be computed this way."""
        if type(layer) is not nn.Conv2d or layer.kernel_size != (1, 1) or layer.stride != (1, 1):
            return False
        return layer.groups == 1 and layer.padding == (0, 0)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve (N, C, H, W) float to (N, D, H, W) in the same layout."""
        last = input.is_contiguous(memory_format=torch.channels_last)
        if input.device.type != "cpu" or not last or torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        return F.linear(input.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
