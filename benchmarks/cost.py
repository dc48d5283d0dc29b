"""The paper's search, costed: GPU-hours of its 384 trainings on this GPU, beside the 64 V100-hours published.

The proxy of `proxy=paper`: DeepLabV3+ with ResNet-50, 1000 iterations of 32 crops of 128 pixels, the mIoU surrogate,
then the six metrics on 1500 held-out images. Images and labels are generated, of VOC's number, classes and size, since
their content costs nothing. Timed are iterations after a warm-up, and one scoring; start-up is left out. The floor is
arithmetic alone: 23.2 GFLOP an image forward, three times that with the backward pass.

"With a common warm-up" is computed from the same timings: `proxy.warmup` shares the first third of a training among all
candidates, so that each has 667 iterations of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import yaml
from torch import Tensor

from autoseg.config import PAPER_METRICS, ModelConfig, ProxyConfig
from autoseg.data import Augment
from autoseg.metrics import build_metric
from autoseg.training import Batches, Training, View, build_model, evaluate
from autoseg.training.network_config import normalization
from autoseg.training.precision import precision_of, reproducible
from benchmarks.harness import Row, attempted, by_kernels, seconds
from benchmarks.proxy import CONFIGS, Spent, Ticking, network
from benchmarks.several import surrogate

DEVICE = "cuda"
TRAININGS, PUBLISHED_H = 384, 64.0
FORWARD_FLOP = 23.2e9  # of an image of 128 pixels
SHARED = 1 / 3  # of the iterations, by a common warm-up; docs/savings.md: harmless for BIoU, not surely for mIoU


@dataclass(frozen=True)
class Plan:
    """What is trained and scored, and on how many images.

    Attributes:
        device: a torch device.
        model, proxy: the config groups; `proxy.iters` is the length of a training in full.
        classes, images, scored: of the generated data.
        warmup, timed: iterations run for the figure.
    """

    device: str
    model: ModelConfig
    proxy: ProxyConfig
    classes: int = 21
    images: int = 10582  # of VOC's augmented training set
    scored: int = 1500
    warmup: int = 50
    timed: int = 200


@dataclass(frozen=True)
class Cost:
    """Seconds of an iteration and of a scoring."""

    iteration_s: float
    scoring_s: float

    def hours(self, trainings: int, iters: int, shared: float = 0.0) -> float:
        """Of a search whose trainings share the first part of their iterations."""
        own = trainings * (iters * (1 - shared) * self.iteration_s + self.scoring_s)
        return (own + shared * iters * self.iteration_s) / 3600


def rows() -> Iterator[Row]:
    """None without a GPU."""
    if not torch.cuda.is_available():
        print("cost: there is no GPU here; nothing was measured, nothing is kept")
        return
    proxy = ProxyConfig(**yaml.safe_load((CONFIGS / "proxy" / "paper.yaml").read_text(encoding="utf-8")))
    plan = Plan("cuda", network("deeplabv3plus_r50"), proxy)
    graphs = replace(proxy, cuda_graph=True)
    plans = {
        "plain iterations": plan,
        "CUDA graphs": replace(plan, proxy=graphs),
        "CUDA graphs, channels first": replace(plan, proxy=replace(graphs, channels_last="off")),
    }
    name = torch.cuda.get_device_name()
    yield from attempted((how, lambda each=each: table(each, measured(each), name)) for how, each in plans.items())


def table(plan: Plan, cost: Cost, device: str) -> list[Row]:
    """The search's hours, without and with a common warm-up."""
    images = plan.proxy.batch_size / cost.iteration_s
    flop = 3 * FORWARD_FLOP * plan.proxy.batch_size * plan.proxy.iters * TRAININGS
    detail = {
        "device": device, "images/s": images, "sustained TFLOP/s": images * 3 * FORWARD_FLOP / 1e12,
        "TFLOP/s for one hour": flop / 3600 / 1e12, "iteration_s": cost.iteration_s, "scoring_s": cost.scoring_s,
    }  # fmt: skip
    how = ", iterations as CUDA graphs" if plan.proxy.cuda_graph else ""
    how += ", channels first" if plan.proxy.channels_last == "off" else ""
    what = f"the paper's search, {TRAININGS} trainings on one {device}{how}"
    found = []
    for name, shared, goal_h in (("", 0.0, 3.0), (", with a common warm-up", SHARED, 1.0)):
        hours = cost.hours(TRAININGS, plan.proxy.iters, shared)
        ratio, target = hours / PUBLISHED_H, f"<= {goal_h / PUBLISHED_H:.4f}"
        found.append(Row(what + name, "published, V100", hours, PUBLISHED_H, ratio, "h", target, detail))
    return found


@by_kernels()
def measured(plan: Plan) -> Cost:
    """Train a while, score once."""
    device, proxy = torch.device(plan.device), plan.proxy
    precision = precision_of(proxy, device)
    images, labels = generated(plan, device)
    augment = Augment(proxy.crop, proxy.scale, proxy.flip, proxy.photometric, *normalization(plan.model))
    window = (plan.warmup, plan.warmup + plan.timed)
    loss = Ticking(surrogate(0, plan.classes).to(device), lambda: Spent.now(plan.device), window)
    loss.replayable = True  # it reads the clock between iterations
    with reproducible(device, 0, threads=proxy.threads, deterministic=proxy.deterministic):
        model = build_model(plan.model, plan.classes, 0).to(device)
        batches = Batches(
            images, labels, torch.arange(plan.images), augment,
            extra={}, seed=0, iters=window[1] + 1, batch_size=proxy.batch_size,
        )  # fmt: skip
        Training(model, batches, proxy, precision).run(loss)
        scored = torch.arange(plan.scored)
        view = View(images, scored, precision, *normalization(plan.model), proxy.eval_batch_size)
        metrics = {name: build_metric(name, plan.classes) for name in PAPER_METRICS}

        def score() -> None:
            evaluate(model, view, labels, metrics)

        score()  # kernels are chosen
        first, last = loss.ticks
        return Cost(last.each(first, plan.timed).wall_s, seconds(score, plan.device))


def generated(plan: Plan, device: torch.device) -> tuple[Tensor, Tensor]:
    """Noise (N, 3, H, W) uint8, and labels (N, H, W) uint8 of squares of 16 pixels, some of them void."""
    height, width = plan.proxy.size
    generator = torch.Generator(device).manual_seed(0)
    options = {"dtype": torch.uint8, "device": device, "generator": generator}
    images = torch.randint(0, 256, (plan.images, 3, height, width), **options)
    squares = torch.randint(0, plan.classes + 1, (plan.images, -(-height // 16), -(-width // 16)), **options)
    squares[squares == plan.classes] = 255
    labels = squares.repeat_interleave(16, 1).repeat_interleave(16, 2)
    return images, labels[:, :height, :width].contiguous()
