"""A found loss as a compiled program: torch.export's file, which needs torch alone and no Python source.

Checked with torch 2.15 for the paper's six metrics in the default space: loss and gradient equal those of the loss
itself, at sizes other than the one it was made at. Making one takes half a minute to some minutes of CPU.

TorchScript is not offered. With torch 2.15 `torch.jit.script` refuses the curves' table ("Cannot create dict for key
type '(str, str)'") and `torch.jit.trace` cannot save their own backward ("Could not export Python function call").
"""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor, nn

from autoseg.errors import InputError
from autoseg.losses import LossCard


class _Plain(nn.Module):
    """The loss of float32 logits and int64 labels alone: what a program takes."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        value: Tensor = self.loss(logits, labels)
        return value


def as_program(card: LossCard) -> bytes:
    """The content of a `.pt2` file: `torch.export.load(file).module()(logits, labels)` is the loss.

    Logits (N, C, H, W) float32 and labels (N, H, W) int64, on the CPU; C is the card's, N, H and W are free. Labels
    are not checked. Gradients flow to the logits.

    Raises:
        InputError: a loss that is not made of curves alone, or one that does not know its number of classes.
    """
    if card.num_classes is None:
        raise InputError("--format", "json, python or mmseg for a card without a number of classes", "torch_export")
    loss = card.build(validate=False)
    if getattr(loss, "surrogate", None) is not loss:
        raise InputError("--format", "json or mmseg for a loss made of several", "torch_export")
    loss.fused = False  # a fused pass has its own backward, which a program cannot hold
    side = 2 * (card.options.get("tolerance", 5) + 8)
    logits = torch.randn(2, card.num_classes, side, side + 1)
    labels = torch.randint(0, card.num_classes, (2, side, side + 1))
    free: Any = torch.export.Dim.DYNAMIC
    shapes = ({0: free, 2: free, 3: free}, {0: free, 1: free, 2: free})
    program = torch.export.export(_Plain(loss), (logits, labels), dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program.run_decompositions(), file)
    return file.getvalue()
