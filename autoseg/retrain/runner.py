"""Runs a training's config with mmengine's Runner, and stores its scores."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.runner import Runner
from mmengine.utils import import_modules_from_strings
from torch.utils.data import DataLoader

from autoseg.data.source import IGNORE
from autoseg.errors import InputError, first_line
from autoseg.files import write_atomic
from autoseg.retrain.build import main_head
from autoseg.retrain.file_errors import WrongFile, name_files
from autoseg.training.checkpoint import guard, last_checkpoint
from autoseg.training.models import BUILDABLE, UNBUILT_HINT, model_registry, parts_alone

SCORES = "scores.json"
KNOWN = ("The prefix is not set", '"FileClient" will be', '"HardDiskBackend" is')  # warnings of mmengine about itself
Scores = dict[str, dict[str, float]]


def run(cfg: Config) -> Scores:
    """Train, or go on training, then score.

    Args:
        cfg: from `build_config`.

    Returns:
        {"val": {metric: score}} and the same for "test" if the config has a test loader. On every rank.

    Raises:
        InputError: weights that cannot be read safely or do not fit; an image or mask that does not; no data where the
            config says; an option that a part of mmengine's does not have; a batch of one image where batch norm
            needs more.
    """
    guard()
    with contextlib.redirect_stdout(io.StringIO()):  # mmsegmentation prints which optional parts are missing
        model_registry()
        import_modules_from_strings(**cfg.custom_imports)
    get_temp_dir()  # ours is removed at exit; one made by a loader's worker would stay if the worker is terminated
    kept = LastScores()
    try:
        runner = QuietRunner.from_cfg(cfg)
        runner.register_hook(kept, "LOWEST")
        return _scored(runner, kept)
    except WrongFile as error:
        raise error.error() from error
    except (TypeError, KeyError) as error:
        said = str(error.args[0]) if error.args else ""
        if "unexpected keyword argument" not in said and "is not in the" not in said:
            raise
        raise InputError("overrides or config", "parts and options that mmengine has", said) from error
    except ValueError as error:  # only networks that pool an image to one pixel cannot take it
        if "more than 1 value per channel" not in str(error):
            raise
        hint = (
            "It is the total over all processes; train.sync_bn=on joins the GPUs. In a config of your own: "
            "train_dataloader.batch_size, and drop_last if the last batch of an epoch is smaller."
        )
        expected = "batches of 2 images or more on each process, for batch norm after this network's pooling"
        raise InputError("train.batch_size", expected, "one of 1", hint) from error


def _scored(runner: Runner, kept: LastScores) -> Scores:
    runner.train()
    if kept.scores is None:  # resumed when it was finished
        runner.val_loop.run()
    scores = {"val": dict(kept.scores or {})}
    if runner.cfg.get("test_dataloader") is not None:
        scores["test"] = dict(runner.test_loop.run())  # not runner.test(): it would restart the average of weights
    return scores


def write_scores(work_dir: Path, scores: Scores, about: dict[str, Any]) -> Path:
    """Write `scores.json`: the scores (shares from 0 to 1; null where nothing was scored), with the data in `about`."""
    path = work_dir / SCORES
    plain = {
        split: {name: None if math.isnan(value) else value for name, value in found.items()}
        for split, found in scores.items()
    }
    write_atomic(path, json.dumps({**about, "scores": plain}, indent=1) + "\n")
    return path


class QuietRunner(Runner):
    """mmengine's Runner with only progress on the terminal (full dumps go to its log file), and with files named in
    errors.
    """

    _load_from: str | None

    def load_or_resume(self) -> None:
        """See `Runner`, which would use the path where the checkpoint was written: a work dir may have been moved."""
        if self._resume and self._load_from is None:
            self._load_from = str(last_checkpoint(Path(self.work_dir)))
        super().load_or_resume()

    def build_model(self, model: Any) -> Any:
        """See `Runner`.

        Raises:
            InputError: mmsegmentation cannot build it, as in `training.models.build_model`.
        """
        try:
            with parts_alone():
                return super().build_model(model)
        except (RuntimeError, ImportError) as error:  # of an operation of mmcv's that is not compiled
            raise InputError("config or model.config", BUILDABLE, first_line(error), UNBUILT_HINT) from error

    def build_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader[Any]:
        """See `Runner`, where it is static.

        Raises:
            InputError: the files that a config names do not exist.
        """
        try:
            loader: DataLoader[Any] = Runner.build_dataloader(*args, **kwargs)
        except (OSError, AssertionError) as error:  # mmsegmentation asserts that a list of files is one
            hint = "data.root=DIR says where the data set of a config lies."
            raise InputError("data.root", "the files that the config names", str(error), hint) from error
        head = main_head(self.cfg.model)
        name_files(loader.dataset, int(head["num_classes"]), int(head.get("ignore_index", IGNORE)))
        return loader

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """See `Runner`."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                handler.addFilter(_is_progress)
        return logger


def _is_progress(record: logging.LogRecord) -> bool:
    """Return whether a line belongs on the terminal: iterations, scores, checkpoints, and warnings."""
    text = record.getMessage()
    if text.startswith(KNOWN):
        return False
    scoring = text.startswith(("Iter(val)", "Iter(test)")) and "eta:" in text
    shown = text.startswith(("Iter(", "Saving", "resumed")) and not scoring
    return record.levelno >= logging.WARNING or (shown and "\n" not in text)


class LastScores(Hook):
    """Remembers the scores of the last validation."""

    def __init__(self) -> None:
        self.scores: dict[str, float] | None = None

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Store the scores; mmengine's Runner calls this on every rank."""
        del runner
        self.scores = dict(metrics or {})
