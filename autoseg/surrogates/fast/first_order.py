"""Gradients that cannot be differentiated again: an attempt raises an error that names the alternative.

torch's own `once_differentiable` only notices it if the gradient given to backward has a graph itself. That of a loss
linear in its totals (mAcc, gAcc) has none: its second derivatives would silently be 0.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor


def once(backward: Callable[..., tuple[Tensor | None, ...]]) -> Callable[..., Any]:
    """Decorate the backward of a function of logits, which is computed without a graph.

    Its first result is the gradient in the logits, which are its first saved tensor; the others are None.
    """

    @wraps(backward)
    def guarded(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if not torch.is_grad_enabled():
            return backward(ctx, *grads)
        with torch.no_grad():  # create_graph
            found, *others = backward(ctx, *grads)
        return None if found is None else _NoFurther.apply(found, ctx.saved_tensors[0]), *others

    return guarded


class _NoFurther(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, found: Tensor, logits: Tensor) -> Tensor:
        return found.view_as(found)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        raise RuntimeError(
            "a surrogate's fast pass has no second derivatives; set loss.fused = False before the call, which has them"
        )
