"""Everything a user can set, as plain dataclasses: the schema behind `configs/` and the command line.

One class per config group. No torch, no Hydra: every room may import it. Units are in the names or comments;
sizes are (height, width) in pixels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

PAPER_METRICS = ("miou", "fwiou", "macc", "gacc", "biou", "bf1")
RIVALS = ("identity", "ce", "wce", "tversky", "lovasz")  # what a search is confirmed beside, unless told otherwise


@dataclass
class DataConfig:
    """Where images and masks come from (`data=`)."""

    name: str = "builtin"  # shown in reports, part of the run folder's name
    kind: str = "builtin"  # builtin | folder | mmseg
    root: str | None = None  # folder with img_dir/SPLIT and ann_dir/SPLIT
    classes: list[str] = field(default_factory=list)  # in the order of the ids; empty: builtin's or the mmseg config's
    palette: list[list[int]] = field(default_factory=list)  # RGB per class, for pictures; empty: generated
    ignore_index: int = 255
    train_split: str = "train"
    val_split: str = "val"
    test_split: str | None = "test"  # None, or absent from disk: no test split
    img_dir: str = "img_dir"
    ann_dir: str = "ann_dir"
    annotator_dirs: list[str] = field(default_factory=list)  # further masks of the same images, a folder per annotator
    mmseg_config: str | None = None  # kind=mmseg: a dataset config of mmsegmentation, e.g. _base_/datasets/ade20k.py
    holdout: float = 0.2  # share of the training images on which a candidate is rewarded; never trained on
    seed: int = 0  # builtin only: which world is drawn
    count: list[int] = field(default_factory=lambda: [240, 60, 120])  # builtin only: images per split
    cache_dir: str | None = None  # default: $XDG_CACHE_HOME/autoseg


@dataclass
class ModelConfig:
    """The network (`model=`): an mmsegmentation config plus changes to its `model` dict."""

    name: str = "deeplabv3plus_r50"
    config: str = "_base_/models/deeplabv3plus_r50-d8.py"  # a path, or one of the configs inside mmsegmentation
    overrides: dict[str, Any] = field(default_factory=dict)  # merged into its `model`, mmengine's rules (_delete_)
    weights: str | None = None  # backbone weights: a state dict (.pth read without unpickling code, or .safetensors)
    mean: list[float] = field(default_factory=lambda: [123.675, 116.28, 103.53])  # RGB, 0..255
    std: list[float] = field(default_factory=lambda: [58.395, 57.12, 57.375])


@dataclass
class SoftLabelConfig:
    """Options of `proxy.labels`; each use reads its own."""

    eps: float | None = None  # smooth, boundary_smooth: share spread over all classes; None: 0.1, at boundaries 0.5
    width: int = 3  # boundary_smooth: side of the window in which classes meet, pixels, odd
    teacher: str | None = None  # distill: the same network trained: work dir of a retrain, its .pth, or .safetensors
    weight: float = 0.5  # distill: the teacher's share of the label
    temperature: float = 1.0  # distill: the teacher's logits are divided by it
    momentum: float = 0.99  # pseudo: of the moving average that is the teacher
    confidence: float = 0.9  # pseudo: probability from which the teacher's guess counts
    labelled: float = 0.25  # pseudo: share of the training images whose labels are used


@dataclass
class ProxyConfig:
    """One short training (`proxy.*`): what a candidate loss is judged by."""

    iters: int = 250
    warmup: int = 0  # the first of them, with cross-entropy: done once per seed, every candidate goes on from there
    backbone: str = "trained"  # trained | frozen: only the heads are, on features computed once per seed
    frozen_gb: float = 8.0  # frozen: the most that the features of one seed may take on the disk
    batch_size: int = 8
    size: list[int] = field(default_factory=lambda: [180, 240])  # every image is resized to this, once
    crop: int = 128  # side of the square training crop
    scale: list[float] = field(default_factory=lambda: [0.75, 1.5])  # random scale before the crop
    flip: bool = True
    photometric: bool = True
    optimizer: str = "adamw"  # adamw (short proxies) | sgd (the paper)
    lr: float = 5e-4
    head_lr_mult: float = 4.0
    weight_decay: float = 1e-4
    momentum: float = 0.9  # sgd only
    poly_power: float = 0.9
    min_lr: float = 0.0
    aux_weight: float = 0.4  # auxiliary head, where the model has one
    amp: str = "auto"  # auto | off | bf16 | fp16
    channels_last: str = "auto"  # auto | on | off
    cuda_graph: bool = False  # GPU: iterations are captured once and replayed; off, since no GPU has measured it yet
    compile: str = "auto"  # the loss: auto | on | off; on, and auto in long CPU trainings, need a C++ compiler
    threads: int = 1  # CPU threads per proxy; part of what makes a reward reproducible
    eval_batch_size: int = 16
    deterministic: bool = False  # bitwise on GPU too, slower; CPU always is
    labels: str = "hard"  # hard | smooth | boundary_smooth | distill | annotators | pseudo: what is trained on
    soft: SoftLabelConfig = field(default_factory=SoftLabelConfig)


def without_limits(proxy: ProxyConfig) -> dict[str, Any]:
    """What may not change while trainings are to be compared, plain; how much of the disk they may take is as usual."""
    return asdict(replace(proxy, frozen_gb=ProxyConfig.frozen_gb))


@dataclass
class SpaceConfig:
    """The search space (`space=`): a name of `autoseg spaces`, or a .yaml file of one's own."""

    name: str = "default"  # a name or the path of a .yaml file; "paper" becomes paper-<metric>


@dataclass
class ControllerConfig:
    """What proposes candidates (`controller=`)."""

    name: str = "gp"  # gp | tpe | cmaes | ppo (the paper) | random
    options: dict[str, Any] = field(default_factory=dict)  # keyword arguments of build_controller


@dataclass
class ConfirmConfig:
    """The last stage: best candidates and rivals trained again with fresh seeds; 0 of either: there is none."""

    top: int = 3
    seeds: int = 3
    rivals: list[str] = field(default_factory=lambda: list(RIVALS))
    iters: int | None = None  # of each of these trainings; None: as many as a candidate's


@dataclass
class SearchSettings:
    """Size and rules of the search (`search.*`)."""

    rounds: int = 8
    candidates: int = 8
    start: Any = None  # a loss with the curves of the space, or its raw θ, to begin with; None: the identity curves
    floor: str | None = None  # e.g. "miou>=0.9*ce": below it a candidate's reward is cut
    # per training; None: 4 h until the first has ended, then ten times the longest so far, at least 600 s
    timeout_s: float | None = None
    retries: int = 1  # fresh attempts after a worker died or hung
    confirm: ConfirmConfig = field(default_factory=ConfirmConfig)
    pruner: str = "none"  # none | median | percentile: stops candidates that score below earlier rounds' at a rung
    rungs: list[float] = field(default_factory=lambda: [0.25, 0.5])  # where, as shares of proxy.iters
    pruner_options: dict[str, Any] = field(default_factory=dict)  # keyword arguments of Optuna's pruner


@dataclass
class ExecutorConfig:
    """Where candidates run (`executor=`)."""

    name: str = "processes"  # inline | processes | ray
    per_device: int = 1  # workers per GPU
    address: str = "auto"  # ray: HOST:PORT of the cluster's head, or auto: the one that runs on this machine


@dataclass
class TrackerConfig:
    """Who else is told about progress (`tracker=`)."""

    tensorboard: bool = True
    wandb: str = "disabled"  # disabled | offline | online
    wandb_project: str = "autoseg"


class Scored:
    """What the commands that score networks share beside their keys."""

    tolerance: int
    drop_background: bool

    @property
    def boundary_options(self) -> dict[str, Any]:
        """Of the boundary metrics."""
        return {"tolerance": self.tolerance, "drop_background": self.drop_background}


@dataclass
class SearchConfig(Scored):
    """All of `autoseg search`."""

    metric: str = "miou"
    seed: int = 0
    run_dir: str | None = None  # default: runs/<metric>-<data>-<time>-<id>
    resume: str | None = None
    device: str = "auto"  # auto | cpu | cuda | cuda:<index>
    workers: str = "auto"  # auto, or how many
    tolerance: int = 5  # boundary metrics, pixels at proxy.size
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


FORCIBLE = ("model.", "proxy.")  # of a comparison, by `force`: how a network is trained; all else says what is scored


@dataclass
class CompareConfig(Scored):
    """All of `autoseg compare`: every loss with every seed under one budget."""

    losses: list[str] = field(default_factory=list)  # names, sums, cards, run folders; identity, identity/<metric>
    metrics: list[str] = field(default_factory=lambda: ["miou"])  # shown; all are scored
    seeds: Any = 5  # how many, or a list such as [3,4,5]
    reference: str = "ce"  # the loss whose difference to all others is shown
    interval: str = "t"  # of differences: t over seeds | bootstrap over seeds and images
    split: str = "auto"  # images that are scored: val | test | auto (test if there is one)
    like: str | None = None  # a run whose budget is taken: data, model, proxy, space, options of the metrics
    force: bool = False  # add trainings of another model or proxy to a comparison; its table says so
    run_dir: str | None = None  # a new folder, or one of the same budget to add to; default: runs/compare-<data>-...
    resume: str | None = None
    device: str = "auto"  # auto | cpu | cuda | cuda:<index>
    workers: str = "auto"  # auto, or how many
    # per training; None: 4 h until the first has ended, then ten times the longest so far, at least 600 s
    timeout_s: float | None = None
    retries: int = 1  # fresh attempts after a worker died or hung
    tolerance: int = 5  # boundary metrics, pixels at proxy.size
    drop_background: bool = False  # boundary metrics: class 0 has no boundary of its own
    imports: list[str] = field(default_factory=list)  # your own modules with metrics and losses: .py files or names
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    proxy: ProxyConfig = field(default_factory=ProxyConfig)  # the budget
    space: SpaceConfig = field(default_factory=SpaceConfig)  # whose identity curves "identity" has
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)


@dataclass
class TrainConfig:
    """One full training through mmengine (`train.*`); batch sizes are totals over all GPUs."""

    iters: int = 20000
    val_interval: int | None = None  # iterations between validations and checkpoints; None: a tenth of iters
    keep_checkpoints: int = 2  # the latest ones
    batch_size: int = 16  # over all GPUs together, so that a recipe does not depend on their number
    size: list[int] | None = None  # images are fitted into it; None: what data.mmseg_config says, else their own size
    ratio: list[float] = field(default_factory=lambda: [0.5, 2.0])  # random factor on that size
    crop: list[int] = field(default_factory=lambda: [512, 512])
    flip: bool = True
    photometric: bool = True
    optimizer: str = "sgd"  # sgd | adamw
    lr: float = 0.01
    head_lr_mult: float = 10.0
    weight_decay: float = 5e-4
    momentum: float = 0.9  # sgd only
    poly_power: float = 0.9
    min_lr: float = 1e-4
    warmup_iters: int = 0  # the rate rises linearly from a millionth
    clip_grad: float | None = None  # largest norm of the gradient
    aux_weight: float = 0.4  # of the same loss at auxiliary heads, where the model has some
    amp: str = "off"  # off | auto | fp16 | bf16; on a GPU
    ema: float | None = None  # momentum of an average of the weights, e.g. 0.0002; it is what is scored and saved
    sync_bn: str = "auto"  # auto (with several GPUs) | on | off: batch norm over all GPUs


@dataclass
class RetrainConfig(Scored):
    """All of `autoseg retrain`: a full training with one loss; the work dir is mmengine's."""

    loss: str = "ce"  # a name, a sum, a loss card or the run folder of a search
    metrics: list[str] = field(default_factory=lambda: list(PAPER_METRICS))
    config: str | None = None  # a whole mmsegmentation config; only its loss, evaluators and work dir are replaced
    overrides: dict[str, Any] = field(default_factory=dict)  # merged into the finished mmengine config, its rules
    seed: int = 0
    run_dir: str | None = None  # the work dir; default: runs/retrain-<data>-<time>-<id>
    resume: str | None = None  # a work dir: goes on from its last checkpoint
    load_from: str | None = None  # weights of the whole network to start from
    split: str = "auto"  # final score: val | test | auto (both, if there is a test split)
    device: str = "auto"  # auto | cpu | cuda
    workers: str = "auto"  # processes per GPU that load images; auto, or how many
    sync_counts: str = "auto"  # auto (with several GPUs) | on | off: the loss counts over the batches of all GPUs
    deterministic: bool = False
    tolerance: int = 5  # boundary metrics, pixels at the size of the labels
    drop_background: bool = False  # boundary metrics: class 0 has no boundary of its own
    imports: list[str] = field(default_factory=list)  # your own modules with metrics and losses: .py files or names
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)


@dataclass
class FullConfig:
    """The fuller training that a proxy stands for (`full.*`)."""

    iters: int | None = None  # None: four times the proxy's
    seeds: int = 1  # their mean ranks


@dataclass
class TrustConfig:
    """All of `autoseg trust`: does the proxy of a search rank losses as a fuller training does?"""

    run: str = ""  # run folder of the search; the command takes it as its first word
    candidates: int = 12  # of the search, spread over its scores; its rivals come on top
    cheaper: list[str] = field(default_factory=list)  # changes of the proxy, e.g. "proxy.iters=75 proxy.crop=64"
    full: FullConfig = field(default_factory=FullConfig)
    run_dir: str | None = None  # default: runs/trust-<data>-<time>-<id>
    resume: str | None = None
    device: str = "auto"  # auto | cpu | cuda | cuda:<index>
    workers: str = "auto"  # auto, or how many
    # per training; None: 4 h until the first has ended, then ten times the longest so far, at least 600 s
    timeout_s: float | None = None
    retries: int = 1  # fresh attempts after a worker died or hung
    imports: list[str] = field(default_factory=list)  # your own modules with metrics and losses: .py files or names
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
