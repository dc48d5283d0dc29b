"""Surrogates: curves, the spaces they are searched in, and the loss made of them.

Read these and you know what a surrogate computes:

* `space`: which numbers θ stands for, how they become control points, curve by curve (`parameterization`); `library`
  reads spaces and known losses from `search_spaces/*.yaml`;
* `curves`: control points to a curve g, its value and slope;
* `logic`: a metric's formula read with curves, AND(a, b) = g(a) g(b); `soft_labels` is the same for labels
  that are no single class;
* `loss`: `SurrogateLoss`, an nn.Module around it; `ranks` adds up totals over GPUs.

`fast/` computes the same totals with less memory and time, on a CPU in torch or C++ and on a GPU in Triton.
`SurrogateLoss.forward` takes it for hard labels where `fast.reading.fits` says so, in C++ with `compile=True`; soft
labels, traced code and `loss.fused = False` take the plain path above. That both are equal, in value and gradient, is
tested for every metric in `tests/unit/surrogates` (`test_fused`, `test_native`, `test_triton`).
"""

from autoseg.surrogates.library import KnownLoss, build_space, known_losses, space_names
from autoseg.surrogates.loss import SurrogateLoss
from autoseg.surrogates.parameterization import CurveSpec, Scalar
from autoseg.surrogates.space import SearchSpace

__all__ = [
    "CurveSpec", "KnownLoss", "Scalar", "SearchSpace", "SurrogateLoss",
    "build_space", "known_losses", "space_names",
]  # fmt: skip
