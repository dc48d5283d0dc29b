"""Training a proxy, against mmengine's Runner: iterations per second on the same network, images and loss.

On a CPU DeepLabV3+ with MobileNetV2, batches of 8 crops of 128 pixels, with one thread, as a worker of a search has
it, and with one for every core, as torch takes them for a training alone; where there is a GPU, which the Runner then
takes, the paper's network and batches instead: ResNet-50, 32. The Runner is what a user of mmsegmentation
would write: a `BaseSegDataset` on a folder, its usual pipeline (RandomResize, RandomCrop, RandomFlip,
PhotoMetricDistortion, PackSegInputs), persistent loader workers, PolyLR; on a GPU with and without `AmpOptimWrapper`.
Ours is the training of a search. Blocks of iterations are timed in turn, after a warm-up left out on both sides.

Wall time is what a user waits for. With one thread it favours the Runner: its two loader workers have the second core
to themselves, which in a search trains a proxy of its own. So an iteration's CPU seconds, loaders included, are kept.

The images are CamVid's if AUTOSEG_BENCH_CAMVID names its folder, else the built-in ones at the same size.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from autoseg.config import DataConfig, ModelConfig, ProxyConfig
from autoseg.data.builtin import BuiltinSource
from autoseg.losses import build_loss
from autoseg.machine import cpu_cores
from autoseg.proxy.task import ProxyTask
from autoseg.training.network_config import network_config
from benchmarks.harness import Row, attempted

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MOBILE = "deeplabv3plus_mobilenet_v2"
SIZE = (180, 240)
CONFIGS = Path(__file__).parent.parent / "configs"


@dataclass(frozen=True)
class Setting:
    """What is trained, where, and how long it is watched.

    Attributes:
        device: "cpu" or "cuda".
        model: a config of `configs/model`.
        proxy: of our side; the Runner's schedule and augmentation follow it. `iters` is how many are run.
        warmup: iterations before the clock starts.
        loaders: workers of the Runner.
        target: of the ratio.
    """

    device: str
    model: str
    proxy: ProxyConfig
    warmup: int
    loaders: int
    target: str

    @property
    def timed(self) -> int:
        """Iterations that are timed: all after the warm-up but the last, which only stops the clock."""
        return self.proxy.iters - self.warmup - 1

    def network(self) -> ModelConfig:
        """The model's config."""
        return network(self.model)


def on_cpu(threads: int = 1) -> Setting:
    return Setting("cpu", MOBILE, ProxyConfig(iters=17, size=list(SIZE), threads=threads), 4, 2, ">= 2")


def on_gpu(graph: bool = False) -> Setting:
    paper = yaml.safe_load((CONFIGS / "proxy" / "paper.yaml").read_text(encoding="utf-8"))
    proxy = ProxyConfig(**{**paper, "iters": 141, "size": list(SIZE), "cuda_graph": graph})
    return Setting("cuda", "deeplabv3plus_r50", proxy, 40, min(8, cpu_cores()), ">= 4")


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        data = camvid() or generated(Path(scratch) / "images")
        data.cache_dir, data.holdout = scratch, 0.02
        if DEVICE == "cuda":
            each = product((False, True), ("AmpOptimWrapper", "OptimWrapper"))
            yield from attempted(
                (f"proxy, graph={graph}, {kind}", partial(_pairs, data, scratch, graph, kind)) for graph, kind in each
            )
        else:
            for threads in (1, cpu_cores()):
                yield training(data, scratch, on_cpu(threads), "OptimWrapper")


def _pairs(data: DataConfig, scratch: str, graph: bool, wrapper: str) -> list[Row]:
    return [training(data, scratch, on_gpu(graph), wrapper, pairs=3)]


def training(data: DataConfig, scratch: str, setting: Setting, wrapper: str, pairs: int = 5) -> Row:
    torch.set_num_threads(setting.proxy.threads)
    taken = [(ours(data, setting), theirs(data, scratch, setting, wrapper)) for _ in range(pairs)]
    mine, other = ([1 / one.wall_s for one in side] for side in zip(*taken, strict=True))
    cpu = [statistics.median(one.cpu_s for one in side) for side in zip(*taken, strict=True)]
    threads = f"{setting.proxy.threads} thread" + "s" * (setting.proxy.threads > 1)
    where = threads if setting.device == "cpu" else torch.cuda.get_device_name()
    how = ", iterations as CUDA graphs" if setting.proxy.cuda_graph else ""
    return Row(
        f"proxy training, {setting.model}, {data.name} images, cross-entropy, {where}{how}",
        "mmengine Runner" + (" with AMP" if wrapper.startswith("Amp") else ""),
        statistics.median(mine),
        statistics.median(other),
        statistics.median(a / b for a, b in zip(mine, other, strict=True)),
        "iterations/s",
        setting.target,
        {"model": setting.model, "crop": setting.proxy.crop, "batch": setting.proxy.batch_size,
         "threads": setting.proxy.threads, "loader workers of the Runner": setting.loaders,
         "cpu_s an iteration, ours and theirs with loaders": cpu, "ours": mine, "theirs": other},
    )  # fmt: skip


def network(name: str = MOBILE) -> ModelConfig:
    return ModelConfig(**yaml.safe_load((CONFIGS / "model" / f"{name}.yaml").read_text(encoding="utf-8")))


def camvid() -> DataConfig | None:
    root = os.environ.get("AUTOSEG_BENCH_CAMVID")
    if root is None:
        return None
    return DataConfig(**yaml.safe_load((CONFIGS / "data" / "camvid.yaml").read_text(encoding="utf-8")), root=root)


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
    """A loss that notes the time when an iteration begins.

    Args:
        loss: what it is otherwise.
        clock: what tells the time, or anything else.
        at: iterations that are noted; None: all.
    """

    def __init__(
        self, loss: nn.Module, clock: Callable[[], Any] = time.perf_counter, at: Collection[int] | None = None
    ) -> None:
        super().__init__()
        self.loss, self.clock, self.at = loss, clock, at
        self.iteration, self.ticks = 0, list[Any]()

    def set_progress(self, progress: float) -> None:
        """Called by the training, once in every iteration."""
        if self.at is None or self.iteration in self.at:
            self.ticks.append(self.clock())
        self.iteration += 1

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss."""
        return self.loss(logits, labels)


@dataclass(frozen=True)
class Spent:
    """Seconds: by the clock, and of all cores that worked for this process and its children; or of an iteration."""

    wall_s: float
    cpu_s: float

    @staticmethod
    def now(device: str) -> Spent:
        """So far; a GPU has then finished what it was given."""
        if device != "cpu":
            torch.cuda.synchronize()
        clock = time.perf_counter()  # before the walk through all processes, which takes milliseconds
        me = psutil.Process()
        times = [each.cpu_times() for each in (me, *me.children(recursive=True))]
        return Spent(clock, sum(one.user + one.system for one in times))

    def each(self, earlier: Spent, iterations: int) -> Spent:
        """Of an iteration since then."""
        return Spent((self.wall_s - earlier.wall_s) / iterations, (self.cpu_s - earlier.cpu_s) / iterations)


def ours(data: DataConfig, setting: Setting) -> Spent:
    """An iteration of a search's proxy."""
    window = (setting.warmup, setting.warmup + setting.timed)
    loss = Ticking(build_loss("ce", num_classes=len(data.classes)), lambda: Spent.now(setting.device), window)
    loss.replayable = True  # it reads the clock between iterations
    ProxyTask(data, setting.network(), setting.proxy, ("miou",))(loss, seed=0, device=setting.device)
    first, last = loss.ticks
    return last.each(first, setting.timed)


def theirs(data: DataConfig, scratch: str, setting: Setting, wrapper: str) -> Spent:
    """An iteration of mmengine's Runner."""
    from mmengine.config import Config
    from mmengine.runner import Runner

    loss = Ticking(nn.Identity(), lambda: Spent.now(setting.device), (setting.warmup, setting.warmup + setting.timed))
    kept = torch.backends.cudnn.benchmark
    try:
        runner = Runner.from_cfg(Config(runner_config(data, scratch, setting, wrapper)))
        runner.model.decode_head.loss_decode.register_forward_pre_hook(lambda *_: loss.set_progress(0.0))
        runner.train()
    finally:
        torch.backends.cudnn.benchmark = kept  # the Runner sets it for the whole process
    first, last = loss.ticks
    return last.each(first, setting.timed)


def runner_config(data: DataConfig, scratch: str, setting: Setting, wrapper: str) -> dict[str, Any]:
    """A config as users of mmsegmentation write it, for the same network, schedule, sizes and augmentation."""
    settings, proxy = setting.network(), setting.proxy
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
    optimizer = {"type": "AdamW", "lr": proxy.lr, "weight_decay": proxy.weight_decay}
    if proxy.optimizer == "sgd":
        optimizer |= {"type": "SGD", "momentum": proxy.momentum}
    return {
        "default_scope": "mmseg", "log_level": "ERROR", "work_dir": scratch, "model": model,
        "train_dataloader": {
            "batch_size": proxy.batch_size, "num_workers": setting.loaders, "persistent_workers": True,
            "sampler": {"type": "InfiniteSampler", "shuffle": True},
            "dataset": {
                "type": "BaseSegDataset", "data_root": data.root, "metainfo": {"classes": data.classes},
                "data_prefix": {"img_path": "img_dir/train", "seg_map_path": "ann_dir/train"}, "pipeline": pipeline,
            },
        },
        "optim_wrapper": {
            "type": wrapper,
            "optimizer": optimizer,
            "paramwise_cfg": {"custom_keys": {"decode_head": {"lr_mult": proxy.head_lr_mult}}},
        },
        "param_scheduler": [{"type": "PolyLR", "power": 0.9, "eta_min": 0.0, "end": 1000, "by_epoch": False}],
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": proxy.iters, "val_interval": 10**9},
        "default_hooks": {"checkpoint": None, "logger": {"type": "LoggerHook", "interval": 50}},
        "visualizer": None, "randomness": {"seed": 0},
        "env_cfg": {"cudnn_benchmark": True},  # as in mmsegmentation's default_runtime.py, and as ours
    }  # fmt: skip
