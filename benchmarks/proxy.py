"""Training a proxy, against mmengine's Runner: iterations per second on the same network, images and loss.

DeepLabV3+ with MobileNetV2, batches of 8 crops of 128 pixels. The Runner is what a user of mmsegmentation would write:
a `BaseSegDataset` on a folder, its usual pipeline (RandomResize, RandomCrop, RandomFlip, PhotoMetricDistortion,
PackSegInputs), two persistent loader workers, AdamW, PolyLR. Ours is the training of a search. Blocks of iterations are
timed in turn, after a warm-up that is left out on both sides.

The images are CamVid's if AUTOSEG_BENCH_CAMVID names its folder, else the built-in ones at the same size.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from autoseg.config import DataConfig, ModelConfig, ProxyConfig
from autoseg.data.builtin import BuiltinSource
from autoseg.losses import build_loss
from autoseg.search.proxy import ProxyTask
from autoseg.training.models import network_config
from benchmarks.harness import Row

THREADS, LOADERS = 1, 2
WARMUP, TIMED, PAIRS = 4, 12, 5
SIZE = (180, 240)
CONFIGS = Path(__file__).parent.parent / "configs"


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        data = camvid() or generated(Path(scratch) / "images")
        data.cache_dir, data.holdout = scratch, 0.02
        return [training(data, scratch)]


def training(data: DataConfig, scratch: str) -> Row:
    torch.set_num_threads(THREADS)
    pairs = [(ours(data), theirs(data, scratch)) for _ in range(PAIRS)]
    mine, other = zip(*pairs, strict=True)
    return Row(
        f"proxy training, {data.name} images, cross-entropy",
        "mmengine Runner",
        statistics.median(mine),
        statistics.median(other),
        statistics.median(a / b for a, b in zip(mine, other, strict=True)),
        "iterations/s",
        ">= 2",
        {"model": "deeplabv3plus_mobilenet_v2", "crop": 128, "batch": 8, "threads": THREADS,
         "loader workers of the Runner": LOADERS, "ours": mine, "theirs": other},
    )  # fmt: skip


def network() -> ModelConfig:
    return ModelConfig(**yaml.safe_load((CONFIGS / "model" / "deeplabv3plus_mobilenet_v2.yaml").read_text()))


def camvid() -> DataConfig | None:
    root = os.environ.get("AUTOSEG_BENCH_CAMVID")
    if root is None:
        return None
    return DataConfig(**yaml.safe_load((CONFIGS / "data" / "camvid.yaml").read_text()), root=root)


def generated(root: Path, count: int = 64) -> DataConfig:
    """Built-in images in a folder, enlarged to what CamVid's are at half size."""
    source = BuiltinSource.from_config(DataConfig(count=[count, 2, 2]))
    for role in ("train", "val"):
        for folder in ("img_dir", "ann_dir"):
            (root / folder / role).mkdir(parents=True)
        for index, name in enumerate(source.names[role]):
            sample = source.read(role, index)
            image, mask = Image.fromarray(sample.image), Image.fromarray(sample.masks[0])
            image.resize(SIZE[::-1], Image.Resampling.BILINEAR).save(
                root / "img_dir" / role / f"{name}.jpg", quality=95
            )
            mask.resize(SIZE[::-1], Image.Resampling.NEAREST).save(root / "ann_dir" / role / f"{name}.png")
    return DataConfig(name="built-in", kind="folder", root=str(root), classes=list(source.classes))


class Ticking(nn.Module):
    """A loss that notes when it is called: once in every iteration."""

    def __init__(self, loss: nn.Module, clock: Callable[[], float] = time.perf_counter) -> None:
        super().__init__()
        self.loss, self.clock = loss, clock
        self.ticks: list[float] = []

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Note the time, then the loss."""
        self.ticks.append(self.clock())
        return self.loss(logits, labels)


def ours(data: DataConfig) -> float:
    """Iterations per second of a search's proxy."""
    proxy = ProxyConfig(iters=WARMUP + TIMED + 1, size=list(SIZE), threads=THREADS)
    loss = Ticking(build_loss("ce", num_classes=len(data.classes)))
    ProxyTask(data, network(), proxy, ("miou",))(loss, seed=0)
    return rate(loss.ticks)


def theirs(data: DataConfig, scratch: str) -> float:
    """Iterations per second of mmengine's Runner."""
    from mmengine.config import Config
    from mmengine.runner import Runner

    ticks: list[float] = []
    runner = Runner.from_cfg(Config(runner_config(data, scratch)))
    runner.model.decode_head.loss_decode.register_forward_pre_hook(lambda *_: ticks.append(time.perf_counter()))
    runner.train()
    return rate(ticks)


def rate(ticks: list[float]) -> float:
    return TIMED / (ticks[WARMUP + TIMED] - ticks[WARMUP])


def runner_config(data: DataConfig, scratch: str) -> dict[str, Any]:
    """A config as users of mmsegmentation write it, for the same network, schedule, sizes and augmentation."""
    settings, proxy = network(), ProxyConfig()
    model = network_config(settings, len(data.classes))
    model["data_preprocessor"] = {
        "type": "SegDataPreProcessor",
        "mean": settings.mean,
        "std": settings.std,
        "bgr_to_rgb": True,
        "size": (proxy.crop, proxy.crop),
        "pad_val": 0,
        "seg_pad_val": 255,
    }
    pipeline = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations"},
        {"type": "RandomResize", "scale": SIZE[::-1], "ratio_range": tuple(proxy.scale), "keep_ratio": True},
        {"type": "RandomCrop", "crop_size": (proxy.crop, proxy.crop)},
        {"type": "RandomFlip", "prob": 0.5},
        {"type": "PhotoMetricDistortion"},
        {"type": "PackSegInputs"},
    ]
    return {
        "default_scope": "mmseg", "log_level": "ERROR", "work_dir": scratch, "model": model,
        "train_dataloader": {
            "batch_size": proxy.batch_size, "num_workers": LOADERS, "persistent_workers": True,
            "sampler": {"type": "InfiniteSampler", "shuffle": True},
            "dataset": {
                "type": "BaseSegDataset", "data_root": data.root, "metainfo": {"classes": data.classes},
                "data_prefix": {"img_path": "img_dir/train", "seg_map_path": "ann_dir/train"}, "pipeline": pipeline,
            },
        },
        "optim_wrapper": {
            "type": "OptimWrapper",
            "optimizer": {"type": "AdamW", "lr": proxy.lr, "weight_decay": proxy.weight_decay},
            "paramwise_cfg": {"custom_keys": {"decode_head": {"lr_mult": proxy.head_lr_mult}}},
        },
        "param_scheduler": [{"type": "PolyLR", "power": 0.9, "eta_min": 0.0, "end": 250, "by_epoch": False}],
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": WARMUP + TIMED + 1, "val_interval": 10**9},
        "default_hooks": {"checkpoint": None, "logger": {"type": "LoggerHook", "interval": 50}},
        "visualizer": None, "randomness": {"seed": 0},
    }  # fmt: skip
