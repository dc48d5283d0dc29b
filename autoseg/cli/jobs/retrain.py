"""Runs one full training. `retrain` shows the whole way from a configuration to scores."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
from filelock import FileLock

from autoseg.cli.configuration import stored
from autoseg.cli.configuration.named_code import own_configs, resume_arguments
from autoseg.cli.configuration.overrides import typed
from autoseg.cli.configuration.unread import without_effect
from autoseg.cli.faults import INTERRUPTED
from autoseg.cli.outlasting import outlasting
from autoseg.config import RetrainConfig, TrainConfig
from autoseg.data.remarks import remarks_on_files, remarks_on_scaled_crops
from autoseg.errors import AutosegError, InputError, first_line
from autoseg.evidence.comparison.contenders import (
    Contender,
    built_from,
    contender,
    keep_cards,
    not_among,
    warnings_about,
    words_of,
)
from autoseg.files import write_atomic
from autoseg.imports import import_modules
from autoseg.losses import build_loss, check_own_losses
from autoseg.losses.ranks import rank_local
from autoseg.metrics import MetricOptions, is_known, parse
from autoseg.retrain import launch
from autoseg.store.records import percent
from autoseg.store.run_files import kind_of, read_config, read_json
from autoseg.store.run_folder import locked, new_run_path, only_own_files, writable, write_config
from autoseg.store.user_code import changed_config, resolved
from autoseg.surrogates import check_own_metrics

DIGESTS = "configs.json"  # file in the work dir with the digests of the user's own configs


@dataclass(frozen=True)
class Job:
    """A training, the same on all ranks."""

    loss: Contender  # the loss to train with
    text: str  # the same loss as text for `AutoSegLoss`: cards are files of the work dir
    work_dir: Path  # mmengine's work dir
    cfg: Any  # the mmengine config
    classes: int  # number of classes of the network
    lock: FileLock | None  # lock of the work dir, in rank 0
    remarks: Sequence[str] = ()  # on the data, in rank 0


def resolve_names(config: RetrainConfig) -> Contender:
    """Return the loss that a configuration names, after checking every other name.

    Raises:
        InputError: a module that cannot be imported, an unknown metric or loss.
    """
    import_modules(config.imports)
    for metric in config.metrics:
        parse(metric)
    return contender(config.loss, (config.metrics or ["miou"])[0], Path(config.resume) if config.resume else None)


@outlasting()
def retrain(config: RetrainConfig, chosen: bool = True) -> int:
    """Run one training and print its scores; return the exit status.

    Unless the user has `chosen` the metrics, those for which the loss was searched are scored too.
    """
    device = launch.choose_device(config.device)
    started_by = launch.launcher()
    launch.join(started_by, device)
    with warnings.catch_warnings():  # about parts of theirs that are not used here
        warnings.filterwarnings("ignore", category=UserWarning, module=r"mm(cv|engine|seg)\b")
        warnings.filterwarnings("ignore", message=".* cannot count over several ranks")  # `introduction` says it, once
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*broadcast_buffers")
        config = config if chosen else with_targets(config)
        job = build(config, started_by, device)
        try:
            status = _train(config, job)
        finally:
            if job.lock is not None:
                job.lock.release()
    launch.leave()  # not after an error: the other ranks may be waiting
    return status


def with_targets(config: RetrainConfig) -> RetrainConfig:
    """Return the configuration with the metrics added for which its loss was searched; errors as in `resolve_names`."""
    more = [target for target in not_among(resolve_names(config), config.metrics) if is_known(target)]
    return dataclasses.replace(config, metrics=[*config.metrics, *more])


def build(config: RetrainConfig, started_by: str, device: str) -> Job:
    """Build everything a training needs; writes its work dir with configuration and cards.

    Raises:
        InputError: an unknown loss, network or data set, files that are missing, a work dir that is in use, a metric of
            the user's that fails.
    """
    from autoseg.retrain.build import build_config, give_counts, main_head  # mmengine: only once the device is chosen
    from autoseg.retrain.loaders import class_counts, datasets
    from autoseg.training import check_loss
    from autoseg.training.checkpoint import last_checkpoint, read_checkpoint

    rank, ranks = launch.ranks()
    loss = resolve_names(config)
    default = new_run_path(Path("runs"), "retrain", config.data.name if config.config is None else _model_name(config))
    work_dir = Path(launch.agree(str(Path(config.run_dir or default).absolute())))
    if config.resume is not None:
        only_own_files(work_dir)
        _same_configs(config, work_dir)
        read_checkpoint(last_checkpoint(work_dir), "resume")
    elif (work_dir / "last_checkpoint").exists() and rank == 0:
        words = typed("resume", str(work_dir)) + resume_arguments(config)
        raise InputError("run_dir", "a new folder", f"{work_dir}, which holds a run", f"Go on with it: {words}")
    elif (work_dir / "config.yaml").exists() and rank == 0:
        kind_of(read_config(work_dir), work_dir, ["retrain"], "run_dir")
    text = built_from(loss, work_dir)
    cfg = build_config(config, text, str(work_dir), launcher=started_by, device=device, ranks=ranks)
    classes = int(main_head(cfg.model)["num_classes"])
    if not loss.cards:
        built = build_loss(text, num_classes=classes)  # a wrong name is said now
        check_loss(built, config.train.labels, group="train")
        check_own_losses(built)
    scored = [name for metric in config.metrics for _, name in parse(metric)]
    ignored = main_head(cfg.model).get("ignore_index", 255)
    check_own_metrics(scored, [], MetricOptions(classes, ignored, **config.boundary_options))
    weighted, counts = "wce" in words_of([loss]), None
    if config.config is None and rank == 0 and (weighted or config.data.kind != "builtin"):
        counts = class_counts(config.data)  # checks every file
    if config.config is None and weighted:
        give_counts(cfg.model, launch.agree(None if counts is None else dataclasses.asdict(counts)))
    remarks = without_effect(config) if rank == 0 else []
    remarks += remarks_on_scaled_crops(config.data, config.train) if config.config is None and rank == 0 else []
    if counts is not None:
        remarks += remarks_on_files(config.data, datasets(config.data).classes, counts.pixels)
    lock = None
    if rank == 0:
        with writable(work_dir):
            work_dir.mkdir(parents=True, exist_ok=True)
        lock = locked(work_dir)
    if rank == 0 and config.resume is None:
        kept = stored.plain(dataclasses.replace(config, loss=loss.kept))
        with writable(work_dir):
            keep_cards([loss], work_dir)
            if own_configs(config):
                write_atomic(work_dir / DIGESTS, json.dumps(_digests(config)))
            write_config(work_dir, kept)
    return Job(loss, text, work_dir, cfg, classes, lock, remarks)


def _digests(config: RetrainConfig) -> dict[str, str]:
    """Return the digests of the resolved own configs, by key."""
    return {key: resolved(file, key) for key, file in own_configs(config).items()}


def _same_configs(config: RetrainConfig, work_dir: Path) -> None:
    """Raise if the user's configs define something else than when the training began, whichever file changed.

    Raises:
        InputError: they do.
    """
    now = _digests(config)
    then = read_json(work_dir / DIGESTS) if now else {}
    for key in now:
        if then.get(key) != now[key]:
            hint = "It would be another training. Take back the change, or start a new one."
            raise changed_config(key, own_configs(config)[key], hint)


def _train(config: RetrainConfig, job: Job) -> int:
    from autoseg.retrain.runner import run, write_scores

    rank, ranks = launch.ranks()
    if rank == 0:
        for line in introduction(config, job, ranks):
            print(line, flush=True)
    try:
        scores = run(job.cfg)
    except KeyboardInterrupt:
        if rank == 0:
            print(f"\nInterrupted. {_how_to_go_on(config, job, ranks)}")
        return INTERRUPTED
    except RuntimeError as error:
        if ranks == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        text = f"Another process of this training may have ended: what it says is the reason. Here: {first_line(error)}"
        raise AutosegError(f"{text} {_how_to_go_on(config, job, ranks)}") from error
    if rank == 0:
        iters = job.cfg.train_cfg.get("max_iters")
        about = {
            "loss": job.loss.name,
            "data": None if config.config else config.data.name,
            "model": _model_name(config),
        }
        path = write_scores(job.work_dir, scores, {**about, "iterations": iters, "seed": config.seed})
        for line in conclusion(config, job, scores, path):
            print(line)
    return 0


def _how_to_go_on(config: RetrainConfig, job: Job, ranks: int) -> str:
    if not (job.work_dir / "last_checkpoint").is_file():
        return "There is no checkpoint yet."
    words = typed("resume", str(_shown(job.work_dir))) + resume_arguments(config)
    return f"Go on from the last checkpoint with: {_launched(ranks)}autoseg retrain {words}"


def _launched(ranks: int) -> str:
    """Return what stands before a command that torchrun started on one machine; others are the user's to repeat."""
    alone = ranks > 1 and os.environ.get("LOCAL_WORLD_SIZE") == str(ranks)
    return f"torchrun --nproc-per-node={ranks} --no-python " if alone else ""


def introduction(config: RetrainConfig, job: Job, ranks: int) -> list[str]:
    """Return lines about what is trained, with warnings about limits."""
    lines = [f"warning: {text}" for text in warnings_about([job.loss], config.metrics, job.classes, [])]
    lines += [f"warning: {text}" for text in job.remarks]
    if config.config is None and not _equal_rates(config.train) and job.loss.name != "ce":
        lines.append(
            f"note: train.lr={config.train.lr:g} with SGD is a rate for cross-entropy; most other losses have smaller "
            "gradients. train=adamw suits all of them, or give this one a rate of its own"
        )
    local = rank_local(build_loss(job.text, num_classes=job.classes))
    if config.config is None and "wce" in local:  # its classes are counted
        local.remove("wce")
    if ranks > 1 and local:
        lines.append(f"warning: {', '.join(local)} cannot count over several GPUs; each works on its own batch")
    verb = "Going on with" if config.resume is not None else "Training"
    many = f" on {ranks} processes" if ranks > 1 else ""
    soft = "" if config.train.labels == "hard" else f", labels {config.train.labels}"
    data = "" if config.config is not None else f" on {config.data.name}"
    what = f"{verb} {_model_name(config)} with loss {job.loss.name}{data}, {job.classes} classes{soft}{many}"
    return [*lines, what, f"Work dir: {_shown(job.work_dir)}"]


def conclusion(config: RetrainConfig, job: Job, scores: dict[str, dict[str, float]], path: Path) -> list[str]:
    """Return the scores in percent, the paths of the results, and what to type next."""
    width = max(len(split) for split in scores)
    lines = [
        f"{split:<{width}}  " + "  ".join(f"{name} {percent(value)}" for name, value in found.items())
        for split, found in scores.items()
    ]
    last, own = job.work_dir / "last_checkpoint", _shown(job.work_dir)
    kept = [f"Scores: {_shown(path)}   no checkpoint, as overrides have it"]
    if last.is_file():
        checkpoint = own / Path(last.read_text(encoding="utf-8").strip()).name
        kept = [
            f"Scores: {_shown(path)}   checkpoint: {checkpoint}",
            f'Use it: mmseg.apis.init_model("{own}/retrain.py", "{checkpoint}")',
        ]
    return [
        *lines,
        *kept,
        *([] if job.loss.name == "ce" else [_next(config)]),
    ]


def _equal_rates(train: TrainConfig) -> bool:
    """Whether a loss's scale does not matter, or somebody chose the rate: SGD's usual one is for cross-entropy."""
    return train.optimizer != "sgd" or train.lr != TrainConfig().lr


def _next(config: RetrainConfig) -> str:
    rates = "" if config.config is not None or _equal_rates(config.train) else ", at a rate of its own,"
    return f"Next: the same command with loss=ce{rates} says what the loss brings."


def _shown(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _model_name(config: RetrainConfig) -> str:
    return config.model.name if config.config is None else Path(config.config).stem
