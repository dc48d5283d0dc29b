"""Surrogates: curves, the spaces they are searched in, and the loss made of them.

Read these modules to know what a surrogate computes:

* `space`: the meaning of θ's numbers and how they become control points, curve by curve (`parameterization`); `library`
  reads spaces and known losses from `search_spaces/*.yaml`;
* `curves`: turns control points into a curve g, its value and slope;
* `logic`: evaluates a metric's formula with curves, AND(a, b) = g(a) g(b); `soft_labels` does the same for labels
  that are no single class;
* `loss`: `SurrogateLoss`, an nn.Module around it; `ranks` adds up totals over GPUs; `own_metrics` tries those of the
  user's on a few pixels.

`fast/` computes the same totals with less memory and time, on a CPU in torch or C++ and on a GPU in Triton.
`SurrogateLoss.forward` uses it for hard labels if `fast.reading.fits`, in C++ with `compile=True`; soft
labels, traced code and `loss.fused = False` use the plain path above. That both are equal, in value and gradient, is
tested for every metric in `tests/unit/surrogates` (`test_fused`, `test_native`, `test_triton`).
"""

from autoseg.surrogates.library import KnownLoss, build_space, known_losses, space_names
from autoseg.surrogates.loss import SurrogateLoss
from autoseg.surrogates.own_metrics import check_own_metrics
from autoseg.surrogates.parameterization import CurveSpec, Scalar
from autoseg.surrogates.space import SearchSpace

__all__ = [
    "CurveSpec", "KnownLoss", "Scalar", "SearchSpace", "SurrogateLoss",
    "build_space", "check_own_metrics", "known_losses", "space_names",
]  # fmt: skip
