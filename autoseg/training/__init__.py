"""Training and evaluation: one model builder, one loop, one evaluator, for proxies and comparisons."""

from autoseg.training.batches import Batches
from autoseg.training.evaluate import evaluate
from autoseg.training.loop import TrainLog, train
from autoseg.training.models import Segmentor, build_model

__all__ = ["Batches", "Segmentor", "TrainLog", "build_model", "evaluate", "train"]
