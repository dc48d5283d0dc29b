"""torch's optimisers without their support for torch.compile, which they would import at their first use.

`step`, `zero_grad` and other methods are decorated so that a compiled caller leaves the compiled code; for that the
decorators import `torch._dynamo`, and sympy with it: seconds and over 100 MB in every process of a search, which
compiles no optimiser. The methods under the decorators do the same computation.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer


class _Plain(Optimizer):
    """A mixin for torch's optimisers that uses their methods without the decorators."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update every parameter that has a gradient; return None."""
        if closure is not None:
            raise NotImplementedError("no closures")
        return inspect.unwrap(super().step)(self)


class PlainAdam(_Plain, Adam):
    """`torch.optim.Adam`."""


class PlainAdamW(_Plain, AdamW):
    """`torch.optim.AdamW`."""


class PlainSGD(_Plain, SGD):
    """`torch.optim.SGD` without dampening; its momentum starts with zeros.

    torch's fused step starts with uninitialised memory, and continues with that if a GradScaler skips the first one.
    """

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """See `_Plain.step`."""
        if not self.state:
            for group in self.param_groups:
                for parameter in group["params"] if group["momentum"] else ():
                    self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return super().step(closure)
