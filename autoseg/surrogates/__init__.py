"""Surrogates: curves, the spaces they are searched in, and the loss made of them."""

from autoseg.surrogates.library import build_space, published, space_names
from autoseg.surrogates.loss import SurrogateLoss
from autoseg.surrogates.space import CurveSpec, Scalar, SearchSpace

__all__ = [
    "CurveSpec", "Scalar", "SearchSpace", "SurrogateLoss",
    "build_space", "published", "space_names",
]  # fmt: skip
