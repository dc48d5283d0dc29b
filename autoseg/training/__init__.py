"""Training and evaluation: one model builder, one loop, one evaluator, for proxies and comparisons."""

from autoseg.training.batches import Batches
from autoseg.training.evaluate import View, evaluate, predict
from autoseg.training.loop import Training, TrainLog, train
from autoseg.training.models import Segmentor, build_model
from autoseg.training.targets import Targets, build_targets, check_loss
from autoseg.training.weights import save_network

__all__ = [
    "Batches", "Segmentor", "Targets", "TrainLog", "Training", "View",
    "build_model", "build_targets", "check_loss", "evaluate", "predict", "save_network", "train",
]  # fmt: skip
