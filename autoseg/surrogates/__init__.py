"""Surrogates: curves, the spaces they are searched in, and the loss made of them.

The plain path; read these and you know what a surrogate computes:

* `space`: which numbers θ stands for, and how they become control points, curve by curve as `freedom` says (`library`
  reads spaces and published losses from `search_spaces/*.yaml`);
* `curves`: control points to a curve g, its value and slope;
* `logic`: a metric's formula read with curves, AND(a, b) = g(a) g(b); `windows` erodes and dilates soft planes;
  `soft_labels` is the same for labels that are no single class;
* `loss`: `SurrogateLoss`, an nn.Module around it; `ranks` adds up totals over GPUs.

The fast path computes the same totals with less memory and time. What totals a formula wants (`asked`) is sorted once
into kinds (`wanted`, `passes`); `reading` has those of a batch computed by one of

* `fused`: pointwise totals on a CPU, in torch, with curves as `pieces`; `native_pass` in C++ (`pointwise.cpp`);
* `by_channel`: totals that erode or dilate the prediction, in torch; `native_channels` in C++ (`channels.cpp`);
* `triton_pass`: pointwise totals on a GPU (told by `triton_plan`, kernels in `triton_rows` and `triton_loops`). Of a
  metric that is one ratio (`ratios`) the loss comes from a kernel too (`triton_score`), and a band along the labels'
  outlines (`bands`, `triton_band`). `triton_trial` tries all kernels on a small batch before they are used.

`native` builds the C++ with the user's compiler; `curve.h` and `windows.h` are `pieces` and `windows` for it.

Who decides: `SurrogateLoss.forward` takes the fast path for hard labels where `reading.fits` says so, in C++ with
`compile=True`; soft labels, traced code and `loss.fused = False` take the plain one. That both are equal, in value and
gradient, is tested for every metric in `tests/unit/surrogates` (`test_fused`, `test_native`, `test_triton`).
"""

from autoseg.surrogates.freedom import CurveSpec, Scalar
from autoseg.surrogates.library import build_space, published, space_names
from autoseg.surrogates.loss import SurrogateLoss
from autoseg.surrogates.space import SearchSpace

__all__ = [
    "CurveSpec", "Scalar", "SearchSpace", "SurrogateLoss",
    "build_space", "published", "space_names",
]  # fmt: skip
