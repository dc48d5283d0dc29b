"""Surrogates: curves, the spaces they are searched in, the loss made of them, and its card."""

from autoseg.surrogates.card import LossCard, load_loss, save_loss
from autoseg.surrogates.library import build_space, published, space_names
from autoseg.surrogates.loss import SurrogateLoss
from autoseg.surrogates.space import CurveSpec, SearchSpace

__all__ = [
    "CurveSpec", "LossCard", "SearchSpace", "SurrogateLoss",
    "build_space", "load_loss", "published", "save_loss", "space_names",
]  # fmt: skip
