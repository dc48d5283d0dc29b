"""The loss of a θ: curves alone, or a sum in which θ also sets weights and options of hand-made losses."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from autoseg.errors import unknown_name
from autoseg.losses.expression import Term, parse
from autoseg.losses.registry import LOSSES, hand_made
from autoseg.losses.sums import LossSum
from autoseg.metrics import MetricOptions
from autoseg.surrogates import SearchSpace, SurrogateLoss

OPTIONS = set(inspect.signature(SurrogateLoss).parameters) - {  # that a loss with curves takes, wherever they come from
    "metric", "num_classes", "control_points", "space", "parameterization", "ignore_index",
}  # fmt: skip


def searched_loss(
    space: SearchSpace, theta: Any, num_classes: int, ignore_index: int = 255, **options: Any
) -> SurrogateLoss | SearchedLoss:
    """Build the loss of a raw θ in any search space.

    Args:
        space: the search space, which defines the numbers of θ.
        theta: (d,) raw numbers in [0, 1].
        num_classes: C.
        ignore_index: id of the pixels that do not count.
        options: options of `SurrogateLoss`, for the part with curves.

    Raises:
        InputError: θ does not fit the space, or the space's loss cannot be built.
    """
    if space.loss == "surrogate":
        return SurrogateLoss.from_theta(
            space.metric, theta, num_classes, space=space, ignore_index=ignore_index, **options
        )
    return SearchedLoss(space, theta, num_classes, ignore_index, **options)


class SearchedLoss(LossSum):
    """The sum in a space with scalars, such as "{a}*ce+{1-a}*surrogate" or "lmp(p={p},share={share})".

    Args:
        space: the space; its `loss` is the text that is filled in.
        theta: (d,) raw numbers in [0, 1].
        num_classes: C.
        ignore_index: id of the pixels that do not count.
        loss_weight: factor of the result.
        options: options of `SurrogateLoss`, for the part with curves; `validate` for all.

    Raises:
        InputError: θ does not fit the space, its loss cannot be built, or an option is not known.

    Attributes:
        surrogate: the part with curves, None in a space without curves.
    """

    def __init__(
        self,
        space: SearchSpace,
        theta: Any,
        num_classes: int,
        ignore_index: int = 255,
        loss_weight: float = 1.0,
        **options: Any,
    ) -> None:
        if unknown := sorted(set(options) - OPTIONS):
            raise unknown_name("option of a searched loss", unknown[0], OPTIONS)
        theta, surrogate = space.check_theta(theta), None
        shared = {"validate": options["validate"]} if "validate" in options else {}
        if space.has_surrogate:
            curves = space.curves_only()
            surrogate = SurrogateLoss.from_theta(
                space.metric, theta[: curves.dim], num_classes, space=curves, ignore_index=ignore_index, **options
            )

        def make(term: Term) -> nn.Module:
            if term.name == "surrogate" and surrogate is not None:
                return surrogate
            if term.name not in LOSSES:
                raise unknown_name("loss of the space", term.name, ["surrogate", *LOSSES])
            return hand_made(term.name, num_classes, ignore_index, {**shared, **term.options})

        terms = parse(space.loss_text(theta))
        super().__init__([term.weight for term in terms], [make(term) for term in terms])
        self.space, self.loss_weight, self.surrogate = space, loss_weight, surrogate
        self.theta: np.ndarray = theta
        self.control_points: np.ndarray = space.decode(theta)
        self.absent, self.eps = options.get("absent") or space.absent, float(options.get("eps", 1e-8))
        self.options = MetricOptions(
            num_classes, ignore_index, options.get("tolerance", 5), options.get("drop_background", False)
        )

    @property
    def metric(self) -> str:
        """The metric it was searched for."""
        return self.space.metric

    def extra_repr(self) -> str:
        """Return the text that `print(model)` shows."""
        return f"{self.metric}, {self.space.loss_text(self.theta)}"

    def forward(self, logits: Tensor, labels: Tensor, extra: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the loss of (N, C, H, W) logits, a scalar; arguments as in `SegLoss.forward`."""
        return self.loss_weight * super().forward(logits, labels, extra)
