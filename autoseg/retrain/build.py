"""Builds the mmengine config of a training from typed settings: everything that will run, as plain data."""

from __future__ import annotations

import copy
import inspect
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from autoseg.config import ModelConfig, RetrainConfig, TrainConfig
from autoseg.data.mmseg_source import leaves, settle
from autoseg.errors import InputError, unknown_name
from autoseg.losses.build import has_named_curves
from autoseg.mmconfigs import config_path, mmengine_config, type_name
from autoseg.retrain import launch
from autoseg.retrain.loaders import Datasets, data_loaders, datasets, inference_pipeline
from autoseg.training.network_config import EDGES, OWN_LOSS, localized, network_config, normalization

Node = dict[str, Any]
log = logging.getLogger(__name__)
IMPORTS = ("autoseg.mmseg", "autoseg.retrain.parts")  # the modules that register our types
NAME = "retrain.py"  # the config's file in the work dir
OF_A_RUNNER = {  # keys that mmengine's Runner reads from a config, besides those that `build_config` writes
    *inspect.signature(Runner).parameters, "activation_checkpointing", "compile", "efficient_conv_bn_eval",
    "find_unused_parameters", "model_wrapper_cfg", "resource_limit", "sync_bn",
}  # fmt: skip
# Heads that index a list of losses: the indices of those for class maps. PIDNet's third loss is for edges.
BY_NUMBER = {"PIDHead": (0, 1, 3), "DDRHead": (0, 1)}
COMPLETE = ("model", "train_dataloader", "train_cfg", "optim_wrapper", "val_dataloader", "val_cfg")


def build_config(
    config: RetrainConfig, loss: str, work_dir: str, *, launcher: str = "none", device: str = "cpu", ranks: int = 1
) -> Config:
    """Build the mmengine config of a training.

    Args:
        config: the user's settings.
        loss: the loss as text for `AutoSegLoss`.
        work_dir: folder that mmengine writes to.
        launcher: mmengine's name of the launcher, see `launch.launcher`.
        device: "cpu" or "cuda".
        ranks: number of processes that train together.

    Raises:
        InputError: settings that contradict each other, or an unknown or unusable network, config or data set.
    """
    settings = _from_presets(config, ranks, device) if config.config is None else _from_file(config, device, ranks)
    synced = _switch(config.sync_counts, ranks > 1)
    own: Node = {"type": "AutoSegLoss", "loss": loss, "sync_counts": synced}
    if config.imports:
        own["imports"] = list(config.imports)
    if has_named_curves(loss):
        own["defaults"] = config.boundary_options
    _set_losses(settings["model"], own, config.train.aux_weight if config.config is None else None)
    settings.update(_surroundings(config, work_dir, launcher, device))
    there = (settings.get("custom_imports") or {}).get("imports") or []
    imports = [*([there] if isinstance(there, str) else there), *IMPORTS]
    settings["custom_imports"] = {"imports": imports, "allow_failed_imports": False}
    for role in ("val", "test"):
        if settings.get(f"{role}_dataloader") is not None:
            settings[f"{role}_evaluator"] = _evaluator(config, settings, ranks)
            settings[f"{role}_cfg"] = settings.get(f"{role}_cfg") or {"type": f"{role.title()}Loop"}
    _add(settings, "custom_hooks", {"type": "AutoSegProgressHook"})
    if config.model.weights is not None or config.load_from is not None:
        hook = {"type": "AutoSegWeightsHook", "backbone": config.model.weights, "network": config.load_from}
        _add(settings, "custom_hooks", hook)
    if config.train.labels != "hard":
        classes = main_head(settings["model"])["num_classes"]
        soft = {"labels": config.train.labels, "soft": asdict(config.train.soft), "num_classes": classes}
        _add(settings, "custom_hooks", {"type": "AutoSegLabelsHook", **soft})
    if ranks > 1:
        _add(settings, "custom_hooks", {"type": "AutoSegStatisticsHook"})
    if ranks > 1 and device == "cpu":  # mmengine would pin the module to a GPU
        wrapper = {"type": "MMDistributedDataParallel", "device_ids": None, "broadcast_buffers": False}
        settings["model_wrapper_cfg"] = wrapper
    result = Config(settings, cfg_text="# made by autoseg retrain\n", filename=NAME)
    for key in {name.partition(".")[0] for name in config.overrides} - settings.keys() - OF_A_RUNNER:
        hint = "A variable of your own belongs into a config of your own: config=FILE."
        raise unknown_name("overrides", key, settings.keys() | OF_A_RUNNER, hint)
    result.merge_from_dict(copy.deepcopy(config.overrides))
    if config.config is None:
        _check_masks(result)
    _name_best(result, config.metrics)
    return result


def _check_masks(settings: Config) -> None:
    """Raise if overrides read the masks of folders by mmsegmentation's step, which knows neither their ids nor void.

    Raises:
        InputError: they do.
    """
    for leaf in leaves(settings["train_dataloader"]["dataset"]):
        names = [type_name(step) for step in leaf.get("pipeline", [])]
        if leaf["type"] == "AutoSegFolder" and "LoadAnnotations" in names:
            hint = "Its labels are 0, 1, 2, … and 255."
            raise InputError("overrides", "masks read by AutoSegMask", "LoadAnnotations in a pipeline", hint)


def _name_best(settings: Config, metrics: Sequence[str]) -> None:
    """Set the score by which the best checkpoint is chosen to our name for it: mmsegmentation's mIoU is miou.

    Raises:
        InputError: a score that is not computed.
    """
    hook = (settings.get("default_hooks") or {}).get("checkpoint") or {}
    best = hook.get("save_best")
    if best is None or best == "auto":
        return
    names = [name if name in metrics else str(name).lower() for name in ([best] if isinstance(best, str) else best)]
    if unknown := [name for name in names if name not in metrics]:
        raise unknown_name("overrides.default_hooks.checkpoint.save_best", unknown[0], ["auto", *metrics])
    hook["save_best"] = names[0] if isinstance(best, str) else names


def _from_presets(config: RetrainConfig, ranks: int, device: str) -> Node:
    """Build model, data and schedule from the groups `model`, `data` and `train`."""
    train = config.train
    data = datasets(config.data)
    interval = train.val_interval or max(1, train.iters // 10)
    settings: Node = {
        "model": _model(config.model, data, train),
        **data_loaders(config, data, ranks),
        "test_pipeline": inference_pipeline(train, data),
        "optim_wrapper": _optimizer(train, device),
        "param_scheduler": _schedule(train),
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": train.iters, "val_interval": interval},
        "default_hooks": {
            "timer": {"type": "IterTimerHook"},
            "logger": {"type": "LoggerHook", "interval": min(50, interval), "log_metric_by_epoch": False},
            "param_scheduler": {"type": "ParamSchedulerHook"},
            "checkpoint": {
                "type": "CheckpointHook",
                "by_epoch": False,
                "interval": interval,
                "max_keep_ckpts": train.keep_checkpoints,
            },
            "sampler_seed": {"type": "DistSamplerSeedHook"},
            "visualization": {"type": "SegVisualizationHook"},
        },
        "log_processor": {"by_epoch": False},
    }
    if train.ema is not None:
        ema = {"type": "EMAHook", "momentum": train.ema, "update_buffers": True}
        _add(settings, "custom_hooks", ema)
    if _switch(train.sync_bn, ranks > 1 and device == "cuda"):
        settings["sync_bn"] = "torch"
    return settings


def _model(config: ModelConfig, data: Datasets, train: TrainConfig) -> Node:
    """Build the network with as many classes as the data, and its preprocessor."""
    model = network_config(config, len(data.classes))
    for head in _heads(model):
        head["ignore_index"] = data.ignore_index
        if type_name(head) == "PIDHead":
            hint = "Use config=FILE, with GenerateEdge in its pipeline."
            raise InputError("model.config", "a network that learns from labels alone", "PIDHead, from edges too", hint)
    mean, std = normalization(config)
    model["data_preprocessor"] = {
        "type": "SegDataPreProcessor",
        "mean": list(mean),
        "std": list(std),
        "bgr_to_rgb": True,
        "pad_val": 0,
        "seg_pad_val": data.ignore_index,
        "size": tuple(train.crop),
    }
    return model


def _optimizer(train: TrainConfig, device: str) -> Node:
    """Build the optimiser in its wrapper, which does mixed precision and clipping."""
    kinds: dict[str, Node] = {"sgd": {"type": "SGD", "momentum": train.momentum}, "adamw": {"type": "AdamW"}}
    kept = {"pos_block": {"decay_mult": 0.0}, "norm": {"decay_mult": 0.0}} if train.optimizer == "adamw" else {}
    rule = {**kinds[train.optimizer], "lr": train.lr, "weight_decay": train.weight_decay}
    dtype = _amp(train.amp, device)
    return {
        "type": "OptimWrapper" if dtype is None else "AmpOptimWrapper",
        **({} if dtype is None else {"dtype": dtype}),
        "optimizer": rule,
        "clip_grad": None if train.clip_grad is None else {"max_norm": train.clip_grad},
        # Of transformers, norms and positions are not decayed, as in mmsegmentation's recipes.
        "paramwise_cfg": {"custom_keys": {**kept, "head": {"lr_mult": train.head_lr_mult}}},
    }


def _amp(wanted: str, device: str) -> str | None:
    """Return the half precision of `train.amp`, None for none.

    Raises:
        InputError: half precision without a GPU.
    """
    if wanted == "off" or (wanted == "auto" and device == "cpu"):
        return None
    if device == "cpu":
        raise InputError("train.amp", "off or auto on a CPU", wanted, "mmengine's mixed precision needs a GPU.")
    if wanted == "auto":
        import torch

        wanted = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return {"bf16": "bfloat16", "fp16": "float16"}[wanted]


def _schedule(train: TrainConfig) -> list[Node]:
    warmup = train.warmup_iters
    poly = {
        "type": "PolyLR",
        "eta_min": train.min_lr,
        "power": train.poly_power,
        "begin": warmup,
        "end": train.iters,
        "by_epoch": False,
    }
    rise = {"type": "LinearLR", "start_factor": 1e-6, "begin": 0, "end": warmup, "by_epoch": False}
    return [rise, poly] if warmup else [poly]


def _from_file(config: RetrainConfig, device: str, ranks: int) -> Node:
    """Read a complete config of mmsegmentation; nothing it names is downloaded."""
    settings: Node = mmengine_config(config_path(str(config.config), "config"), "config").to_dict()
    missing = [key for key in COMPLETE if settings.get(key) is None]
    if missing:
        hint = "A part such as _base_/models/... is given as model.config=."
        raise InputError("config", "a complete config of mmsegmentation", f"one without {', '.join(missing)}", hint)
    if config.data.root is not None:
        for role in ("train", "val", "test"):
            if settings.get(f"{role}_dataloader") is not None:
                for leaf in leaves(settings[f"{role}_dataloader"]["dataset"]):
                    settle(leaf, config.data)
    dropped: list[str] = []
    keep_sync = ranks > 1 and device == "cuda"
    settings["model"] = localized(settings["model"], dropped, sync_bn=keep_sync)
    own_test = settings.get("test_dataloader") not in (None, settings["val_dataloader"])
    if config.split == "test" and not own_test:
        raise InputError("split", "val or auto", "test, which this config does not have beside val")
    if not own_test or config.split == "val":
        for key in ("test_dataloader", "test_cfg", "test_evaluator"):
            settings.pop(key, None)
    if settings.pop("load_from", None) and config.load_from is None:
        dropped.append("load_from")
    remarks = []
    if dropped and config.model.weights is None and config.load_from is None:
        remarks.append(f"not loaded, set model.weights or load_from to a local file: {', '.join(dropped)}")
    if device == "cpu" and type_name(settings["optim_wrapper"]) == "AmpOptimWrapper":
        kept = {key: value for key, value in settings["optim_wrapper"].items() if key not in ("loss_scale", "dtype")}
        settings["optim_wrapper"] = {**kept, "type": "OptimWrapper"}
        remarks.append("the config's AmpOptimWrapper needs a GPU: this training has full precision")
    for text in remarks if launch.ranks()[0] == 0 else []:
        print(f"warning: {text}")
    return settings


def _surroundings(config: RetrainConfig, work_dir: str, launcher: str, device: str) -> Node:
    """Return the settings of the environment and of logging."""
    backends: list[Node] = [{"type": "LocalVisBackend"}]
    if config.tracker.tensorboard:
        backends.append({"type": "TensorboardVisBackend"})
    if config.tracker.wandb != "disabled":
        from autoseg.tracking.wandb import reachable  # only where it is wanted: it takes seconds to import

        start = {"project": config.tracker.wandb_project, "mode": reachable(config.tracker.wandb)}
        backends.append({"type": "WandbVisBackend", "init_kwargs": start})
    return {
        "default_scope": "mmseg",
        "env_cfg": {
            "cudnn_benchmark": not config.deterministic,
            "mp_cfg": {"mp_start_method": "fork" if sys.platform == "linux" else "spawn", "opencv_num_threads": 0},
            "dist_cfg": {"backend": "nccl" if device == "cuda" else "gloo"},
        },
        # Each rank draws its own augmentation and dropout; mmengine hands out rank 0's weights afterwards.
        "randomness": {"seed": config.seed, "deterministic": config.deterministic, "diff_rank_seed": True},
        "visualizer": {"type": "SegLocalVisualizer", "vis_backends": backends, "name": "visualizer"},
        "log_level": "INFO",
        "work_dir": work_dir,
        "launcher": launcher,
        "resume": config.resume is not None,
    }


def _evaluator(config: RetrainConfig, settings: Node, ranks: int) -> Node:
    return {
        "type": "AutoSegMetric",
        "metrics": list(config.metrics),
        "ignore_index": _heads(settings["model"])[0].get("ignore_index", 255),
        **config.boundary_options,
        **({"imports": list(config.imports)} if config.imports else {}),
        "collect_device": "gpu" if ranks > 1 else "cpu",  # "cpu" means by files in the current folder
    }


def _set_losses(model: Node, loss: Node, aux_weight: float | None) -> None:
    """Set the loss of every head; auxiliary ones get the weight `aux_weight`, or for None the weight of their own loss.

    Raises:
        InputError: a network whose heads have losses of their own kind, or one channel.
    """
    heads = _heads(model)
    own = [kind for head in heads if (kind := type_name(head)) in OWN_LOSS]
    if own or not heads:
        hint = "Networks with a loss of their own (Mask2Former and its like) cannot take another."
        raise InputError("config", "a network with decode_head.loss_decode", (own or [type_name(model)])[0], hint)
    main = main_head(model)
    for head in heads:
        kind = type_name(head)
        if kind in EDGES:  # they keep their own
            continue
        if (head.get("out_channels") or head.get("num_classes")) == 1:
            expected = "out_channels=2, without a threshold: the background is a class too"
            raise InputError(f"config, its {kind}", expected, "a head of one channel")
        if head.pop("sampler", None) is not None:
            log.warning("the pixel sampler of a %s is left out: it weighs pixels, which a loss here does itself", kind)
        if kind in BY_NUMBER:
            head["loss_decode"] = [
                {**copy.deepcopy(loss), "loss_weight": one.get("loss_weight", 1.0)} if i in BY_NUMBER[kind] else one
                for i, one in enumerate(_each(head["loss_decode"]))
            ]
            continue
        weight = 1.0 if head is main else _weight_of(head) if aux_weight is None else aux_weight
        head["loss_decode"] = {**copy.deepcopy(loss), "loss_weight": weight}


def give_counts(model: Node, counts: Any) -> None:
    """Give the losses of every head the counts of the classes in the training masks, plain data."""
    for head in _heads(model):
        for loss in _each(head["loss_decode"]):
            if type_name(loss) == "AutoSegLoss":
                loss["class_counts"] = counts


def main_head(model: Node) -> Node:
    """Return the settings of the head that predicts; in a cascade, the last."""
    head = model["decode_head"]
    return head[-1] if isinstance(head, list) else head


def _weight_of(head: Node) -> float:
    own = [float(one.get("loss_weight", 1.0)) for one in _each(head.get("loss_decode"))]
    return sum(own) if own else 1.0


def _heads(model: Node) -> list[Node]:
    return list(_each(model.get("decode_head"))) + list(_each(model.get("auxiliary_head")))


def _each(heads: Any) -> Iterator[Node]:
    yield from heads if isinstance(heads, list | tuple) else [heads] if heads else []


def _add(settings: Node, key: str, item: Node) -> None:
    settings[key] = [*(settings.get(key) or []), item]


def _switch(value: str, automatic: bool) -> bool:
    """Return whether auto, on or off means on."""
    return automatic if value == "auto" else value == "on"
