"""Everything a user can set, as plain dataclasses: the schema of `configs/` and the command line.

One class per config group. No torch, no Hydra: every package may import it. Units are in the names or comments;
sizes are (height, width) in pixels. The limits of a setting are at its field, see `autoseg.limits`.

A run stores all of it, and a run of an earlier version gets the defaults of keys that were added later: the default of
a new key must be what was done before there was one. If that is impossible, increase `store.run_files.SCHEMA`.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from autoseg.limits import Limit, choice, limited, number

MOST_SEEDS = 1000  # most trainings of one loss with different seeds; all are listed before the first begins
PAPER_METRICS = ("miou", "fwiou", "macc", "gacc", "biou", "bf1")
RIVALS = ("identity", "ce", "wce", "tversky", "lovasz")  # the default losses that finalists are compared with


def _are_ids(values: list[Any]) -> bool:
    """Return whether all are different ids, or all different colours."""
    flat = [one for value in values for one in (value if isinstance(value, list) else [value])]
    bytes_alone = all(type(one) is int and 0 <= one <= 255 for one in flat)
    widths = {len(value) if isinstance(value, list) else 0 for value in values}
    return bytes_alone and widths in (set(), {0}, {3}) and all(values.count(value) == 1 for value in values)


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True


SIZE = Limit("[height,width] in pixels, each at least 16", lambda sides: len(sides) == 2 and min(sides) >= 16)
FACTORS = Limit("[smallest,largest] factor, both above 0", lambda ends: len(ends) == 2 and 0 < ends[0] <= ends[1])
SHARE = Limit("a number in [0, 1]", lambda share: 0 <= share <= 1)
ID = Limit("an id from 0 to 255", lambda label: 0 <= label <= 255, "Masks are 8-bit images.")
IDS = Limit("ids from 0 to 255, or RGB colours [r,g,b] of such numbers, each once", _are_ids)
COUNTS = Limit("[train,val,test] images", lambda counts: len(counts) == 3 and min(counts) >= 0)
MEANS = Limit("three numbers, for red, green and blue", lambda rgb: len(rgb) == 3)
SPREADS = Limit("three numbers above 0", lambda rgb: len(rgb) == 3 and min(rgb) > 0)
HELD_OUT = Limit("a share between 0 and 1", lambda share: 0 < share < 1)
PATTERN = Limit("a regular expression", _is_pattern)
ODD = Limit("an odd number of pixels, 3 or more", lambda side: side >= 3 and side % 2 == 1)


@dataclass
class DataConfig:
    """The source of images and masks (`data=`)."""

    name: str = "builtin"  # shown in reports, part of the run folder's name
    kind: str = choice("builtin", "folder", "mmseg")
    root: str | None = None  # folder with img_dir/SPLIT and ann_dir/SPLIT
    classes: list[str] = field(default_factory=list)  # in the order of the ids; empty: builtin's or the mmseg config's
    palette: list[list[int]] = field(default_factory=list)  # RGB per class, for pictures; empty: generated
    # folder: what stands for each class in the masks, an id or an RGB colour; empty: 0, 1, 2, …
    ids: list[Any] = limited([], IDS)
    ignore_index: int = limited(255, ID)  # the id of pixels that are ignored, unless `ids` has it
    ignored_ids: list[Any] = limited([], IDS)  # folder: further ones, ids or colours as in `ids`
    train_split: str = "train"
    val_split: str | None = "val"  # folder: None holds out as many of train_split as `holdout` says
    test_split: str | None = "test"  # None, or absent from disk: no test split
    img_dir: str = "img_dir"  # SPLIT in it stands for the split, as in SPLIT/images; else a folder for each lies in it
    ann_dir: str = "ann_dir"
    img_suffix: str = ""  # folder: end of the images' names, as _leftImg8bit.png; empty: of any kind of image
    seg_map_suffix: str = ".png"  # folder: what the masks' names have in its place
    annotator_dirs: list[str] = field(default_factory=list)  # further masks of the same images, a folder per annotator
    mmseg_config: str | None = None  # kind=mmseg: a dataset config of mmsegmentation, e.g. _base_/datasets/ade20k.py
    holdout: float = limited(0.2, HELD_OUT)  # share of the training images that reward a candidate; not trained on
    # a regular expression: images in whose names it finds the same, a patient or a video, are held out together
    groups: str | None = limited(None, PATTERN)
    seed: int = number(0, least=0)  # builtin only: which world is drawn
    count: list[int] = limited([240, 60, 120], COUNTS)  # builtin only: images per split
    cache_dir: str | None = None  # default: $XDG_CACHE_HOME/autoseg


@dataclass
class ModelConfig:
    """The network (`model=`): an mmsegmentation config plus changes to its `model` dict."""

    name: str = "deeplabv3plus_r50"
    config: str = "_base_/models/deeplabv3plus_r50-d8.py"  # a path, or one of the configs inside mmsegmentation
    overrides: dict[str, Any] = field(default_factory=dict)  # merged into its `model`, mmengine's rules (_delete_)
    weights: str | None = None  # backbone weights: a state dict (.pth read without unpickling code, or .safetensors)
    # RGB, 0..255; None: that of the config's data_preprocessor, or ImageNet's if it has none
    mean: list[float] | None = limited(None, MEANS)
    std: list[float] | None = limited(None, SPREADS)


@dataclass
class LabelConfig:
    """Options of `train.labels`; each kind reads its own."""

    # smooth, boundary_smooth: share spread over all classes; None: 0.1, at boundaries 0.5
    eps: float | None = limited(None, SHARE)
    width: int = limited(3, ODD)  # boundary_smooth: side of the window in which classes meet, pixels, odd
    teacher: str | None = None  # distill: the same network trained: work dir of a retrain, its .pth, or .safetensors
    weight: float = limited(0.5, SHARE)  # distill: the teacher's share of the label
    temperature: float = number(1.0, above=0)  # distill: the teacher's logits are divided by it


@dataclass
class SoftLabelConfig(LabelConfig):
    """Options of `proxy.labels`, which has two kinds more: annotators and pseudo."""

    momentum: float = limited(0.99, SHARE)  # pseudo: of the moving average that is the teacher
    confidence: float = limited(0.9, SHARE)  # pseudo: probability from which the teacher's guess counts
    labelled: float = limited(0.25, SHARE)  # pseudo: share of the training images whose labels are used


@dataclass
class ProxyConfig:
    """One short training (`proxy.*`), by which a candidate loss is judged."""

    iters: int = number(250, least=1)
    # the first of them, with cross-entropy: done once per seed, every candidate goes on from there
    warmup: int = number(0, least=0)
    backbone: str = choice("trained", "frozen")  # frozen: the heads alone are trained, on features computed once
    frozen_gb: float = number(8.0, above=0)  # frozen: the most that the features of one seed may take on the disk
    batch_size: int = number(8, least=2, hint="Batch norm needs more than one image.")
    size: list[int] = limited([180, 240], SIZE)  # every image is resized to this, once
    crop: int = number(128, least=16)  # side of the square training crop
    scale: list[float] = limited([0.75, 1.5], FACTORS)  # random scale before the crop
    flip: bool = True
    photometric: bool = True
    optimizer: str = choice("adamw", "sgd")  # adamw for short proxies; sgd is the paper's
    lr: float = number(5e-4, above=0)
    head_lr_mult: float = number(4.0, above=0)
    weight_decay: float = number(1e-4, least=0)
    momentum: float = number(0.9, least=0, below=1)  # sgd only
    poly_power: float = number(0.9, least=0)
    min_lr: float = number(0.0, least=0)
    aux_weight: float = number(0.4, least=0)  # auxiliary head, where the model has one
    amp: str = choice("auto", "off", "bf16", "fp16")
    channels_last: str = choice("auto", "on", "off")
    cuda_graph: bool = False  # GPU: iterations are captured once and replayed; off, since no GPU has measured it yet
    compile: str = choice("auto", "on", "off")  # the loss; on, and auto in long CPU trainings, need a C++ compiler
    threads: int = number(1, least=1)  # CPU threads per proxy; part of what makes a reward reproducible
    eval_batch_size: int = number(16, least=1)  # images scored at a time, or as many as have 1 GB of logits
    # bitwise on GPU too, slower, if torch can: it cannot for the pooling of PSPNet and UPerNet; on a CPU it always is
    deterministic: bool = False
    # the labels to train on
    labels: str = choice("hard", "smooth", "boundary_smooth", "distill", "annotators", "pseudo")
    soft: SoftLabelConfig = field(default_factory=SoftLabelConfig)


def comparable_settings(proxy: ProxyConfig) -> dict[str, Any]:
    """Return, as plain data, the settings that must be the same in trainings to be compared: all but the disk limit."""
    return asdict(replace(proxy, frozen_gb=ProxyConfig.frozen_gb))


@dataclass
class SpaceConfig:
    """The search space (`space=`): a name of `autoseg spaces`, or a .yaml file of the user's."""

    name: str = "default"  # a name or the path of a .yaml file; "paper" becomes paper-<metric>


@dataclass
class ControllerConfig:
    """The algorithm that proposes candidates (`controller=`)."""

    name: str = "gp"  # gp | tpe | cmaes | ppo (the paper) | random
    options: dict[str, Any] = field(default_factory=dict)  # keyword arguments of build_controller


@dataclass
class ConfirmConfig:
    """The last stage: best candidates and rivals trained again with fresh seeds; skipped if `top` or `seeds` is 0."""

    top: int = number(3, least=0)
    seeds: int = number(5, least=0, most=MOST_SEEDS)  # with fewer than 5 no lead is called certain
    rivals: list[str] = field(default_factory=lambda: list(RIVALS))
    iters: int | None = None  # iterations of each of these trainings; None: as many as a candidate's


@dataclass
class SearchSettings:
    """Size and rules of the search (`search.*`)."""

    rounds: int = number(8, least=1)
    candidates: int = number(8, least=1)
    start: Any = None  # a loss with the curves of the space, or its raw θ, to begin with; None: the identity curves
    floor: str | None = None  # e.g. "miou>=0.9*ce": below it a candidate's reward is cut
    # per training; None: 4 h until the first has ended, then ten times the longest so far, at least 600 s
    timeout_s: float | None = number(None, above=0)
    retries: int = number(1, least=0)  # fresh attempts after a worker died or hung
    confirm: ConfirmConfig = field(default_factory=ConfirmConfig)
    pruner: str = choice("none", "median", "percentile")  # stops candidates that score below earlier rounds' at a rung
    rungs: list[float] = field(default_factory=lambda: [0.25, 0.5])  # shares of proxy.iters, where they score
    pruner_options: dict[str, Any] = field(default_factory=dict)  # keyword arguments of Optuna's pruner


@dataclass
class ExecutorConfig:
    """The executor that runs candidates (`executor=`)."""

    name: str = choice("processes", "inline", "ray")
    per_device: int = number(1, least=1)  # workers per GPU
    address: str = "auto"  # ray: HOST:PORT of the cluster's head, or auto: the one that runs on this machine


@dataclass
class TrackerConfig:
    """Services that receive the progress, besides terminal and log (`tracker=`)."""

    tensorboard: bool = True
    wandb: str = choice("disabled", "offline", "online")
    wandb_project: str = "autoseg"


class Scored:
    """The keys that all commands share that score networks."""

    tolerance: int
    drop_background: bool

    @property
    def boundary_options(self) -> dict[str, Any]:
        """The options of the boundary metrics."""
        return {"tolerance": self.tolerance, "drop_background": self.drop_background}


@dataclass
class SearchConfig(Scored):
    """All settings of `autoseg search`."""

    metric: str = "miou"
    seed: int = number(0, least=0)
    run_dir: str | None = None  # default: runs/<metric>-<data>-<time>-<id>
    resume: str | None = None
    device: str = "auto"  # auto | cpu | cuda | cuda:<index>
    workers: str = "auto"  # auto, or how many
    tolerance: int = number(5, least=0)  # boundary metrics, pixels at proxy.size
    drop_background: bool = False  # boundary metrics: class 0 has no boundary of its own
    imports: list[str] = field(default_factory=list)  # your own modules with metrics and losses: .py files or names
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    proxy: ProxyConfig = field(default_factory=ProxyConfig)
    space: SpaceConfig = field(default_factory=SpaceConfig)
    controller: ControllerConfig = field(default_factory=ControllerConfig)
    search: SearchSettings = field(default_factory=SearchSettings)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)


FORCIBLE = ("model.", "proxy.")  # keys that `force` lets a comparison change; all others define the scores


@dataclass
class CompareConfig(Scored):
    """All settings of `autoseg compare`: every loss with every seed under one budget."""

    losses: list[str] = field(default_factory=list)  # names, sums, cards, run folders; identity, identity/<metric>
    metrics: list[str] = field(default_factory=lambda: ["miou"])  # shown; all are scored
    seeds: Any = 5  # how many, or a list such as [3,4,5]
    reference: str = "ce"  # the loss whose difference to all others is shown
    interval: str = choice("t", "bootstrap")  # interval of differences: over seeds; over seeds and images
    # images that are scored; auto: val, or what a comparison that goes on began with. The test images are for the end:
    # who compares on them again and again chooses by them
    split: str = choice("auto", "val", "test")
    like: str | None = None  # a run whose budget is taken: data, model, proxy, space, options of the metrics
    force: bool = False  # add trainings of another model or proxy to a comparison; its table says so
    run_dir: str | None = None  # a new folder, or one of the same budget to add to; default: runs/compare-<data>-...
    resume: str | None = None
    device: str = "auto"  # auto | cpu | cuda | cuda:<index>
    workers: str = "auto"  # auto, or how many
    # per training; None: 4 h until the first has ended, then ten times the longest so far, at least 600 s
    timeout_s: float | None = number(None, above=0)
    retries: int = number(1, least=0)  # fresh attempts after a worker died or hung
    tolerance: int = number(5, least=0)  # boundary metrics, pixels at proxy.size
    drop_background: bool = False  # boundary metrics: class 0 has no boundary of its own
    imports: list[str] = field(default_factory=list)  # your own modules with metrics and losses: .py files or names
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    proxy: ProxyConfig = field(default_factory=ProxyConfig)  # the budget
    space: SpaceConfig = field(default_factory=SpaceConfig)  # the space with the curves of "identity"
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)


@dataclass
class TrainConfig:
    """One full training through mmengine (`train.*`); batch sizes are totals over all GPUs."""

    iters: int = number(20000, least=1)
    # iterations between validations and checkpoints; None: a tenth of iters
    val_interval: int | None = number(None, least=1)
    # the latest ones
    keep_checkpoints: int = number(2, least=2, hint="One is removed before the next is written.")
    batch_size: int = number(16, least=1)  # over all GPUs together, so that a recipe does not depend on their number
    # images are fitted into it, upright or lying; None: what data.mmseg_config says, else their own size
    size: list[int] | None = limited(None, SIZE)
    ratio: list[float] = limited([0.5, 2.0], FACTORS)  # random factor on that size
    crop: list[int] = limited([512, 512], SIZE)
    flip: bool = True
    photometric: bool = True
    optimizer: str = choice("sgd", "adamw")
    lr: float = number(0.01, above=0)
    head_lr_mult: float = number(10.0, above=0)
    weight_decay: float = number(5e-4, least=0)
    momentum: float = number(0.9, least=0, below=1)  # sgd only
    poly_power: float = number(0.9, least=0)
    min_lr: float = number(1e-4, least=0)
    warmup_iters: int = number(0, least=0)  # the rate rises linearly from a millionth
    clip_grad: float | None = number(None, above=0)  # largest norm of the gradient
    aux_weight: float = number(0.4, least=0)  # weight of the same loss at auxiliary heads, if the model has some
    amp: str = choice("off", "auto", "fp16", "bf16")  # on a GPU
    # momentum of an average of the weights, e.g. 0.0002; it is what is scored and saved
    ema: float | None = number(None, above=0, below=1)
    sync_bn: str = choice("auto", "on", "off")  # batch norm over all GPUs; auto: where there are several
    # the labels to train on, see docs/soft_labels.md
    labels: str = choice("hard", "smooth", "boundary_smooth", "distill")
    soft: LabelConfig = field(default_factory=LabelConfig)


@dataclass
class RetrainConfig(Scored):
    """All settings of `autoseg retrain`: a full training with one loss; the work dir is mmengine's."""

    loss: str = "ce"  # a name, a sum, a loss card or the run folder of a search
    metrics: list[str] = field(default_factory=lambda: list(PAPER_METRICS))
    config: str | None = None  # a whole mmsegmentation config; only its loss, evaluators and work dir are replaced
    overrides: dict[str, Any] = field(default_factory=dict)  # merged into the finished mmengine config, its rules
    seed: int = number(0, least=0)
    run_dir: str | None = None  # the work dir; default: runs/retrain-<data>-<time>-<id>
    resume: str | None = None  # a work dir: goes on from its last checkpoint
    load_from: str | None = None  # weights of the whole network to start from
    split: str = choice("auto", "val", "test")  # final score; auto: both, if there is a test split
    device: str = choice("auto", "cpu", "cuda")
    workers: str = "auto"  # processes per GPU that load images; auto, or how many
    # the loss counts over the batches of all GPUs; auto: where there are several
    sync_counts: str = choice("auto", "on", "off")
    deterministic: bool = False
    tolerance: int = number(5, least=0)  # boundary metrics, pixels at the size of the labels
    drop_background: bool = False  # boundary metrics: class 0 has no boundary of its own
    imports: list[str] = field(default_factory=list)  # your own modules with metrics and losses: .py files or names
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)


@dataclass
class FullConfig:
    """The fuller training that the proxy approximates (`full.*`)."""

    iters: int | None = number(None, least=2)  # None: four times the proxy's
    seeds: int = number(1, least=1, most=MOST_SEEDS)  # losses are ranked by the mean over them


@dataclass
class TrustConfig:
    """All settings of `autoseg trust`, which checks whether the proxy of a search ranks losses as a fuller training
    does.
    """

    run: str = ""  # run folder of the search; the command takes it as its first word
    candidates: int = number(12, least=2)  # number of candidates, spread over their scores; rivals are added
    cheaper: list[str] = field(default_factory=list)  # changes of the proxy, e.g. "proxy.iters=75 proxy.crop=64"
    full: FullConfig = field(default_factory=FullConfig)
    run_dir: str | None = None  # default: runs/trust-<data>-<time>-<id>
    resume: str | None = None
    device: str = "auto"  # auto | cpu | cuda | cuda:<index>
    workers: str = "auto"  # auto, or how many
    # per training; None: 4 h until the first has ended, then ten times the longest so far, at least 600 s
    timeout_s: float | None = number(None, above=0)
    retries: int = number(1, least=0)  # fresh attempts after a worker died or hung
    imports: list[str] = field(default_factory=list)  # your own modules with metrics and losses: .py files or names
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
